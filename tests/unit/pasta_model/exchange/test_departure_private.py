# SPDX-License-Identifier: Apache-2.0
"""What leaves a run that protects subjects: what a mechanism covers, and nothing else."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

from pasta_model.checkpoint import exchanged_layout
from pasta_model.config import Settings
from pasta_model.data.clinical import Moments
from pasta_model.errors import ExchangeError
from pasta_model.exchange.contents import (
    EVALUATE,
    JOIN,
    METRICS,
    SITES,
    TRAIN,
    NodeReport,
    Parcel,
    SiteReport,
    TrainReport,
)
from pasta_model.exchange.departure import check_departure
from pasta_model.exchange.steps import Step
from pasta_model.exchange.vectors import float_buffers

SMALLEST = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"
VALUES = {"train-loss": 1.5, "valid-mae": 0.25, "seconds": 9.0}
SOME = [set(names) for size in range(4) for names in combinations(METRICS, size)]
COVERED = {"withheld": set[str](), "noised": {"valid-mae"}, "open": set(METRICS)}


@pytest.fixture
def private(make_settings: Callable[..., Settings]) -> Callable[..., Settings]:
    usual = {"network__shape": SMALLEST, "sampling__hop": 4, "privacy__unit": "subject"}
    return lambda **changes: make_settings(**(usual | changes))


def report(kind: str, settings: Settings, metrics: set[str]) -> Parcel:
    """An answer with these metrics."""
    update = None
    if kind == TRAIN:
        sizes = float_buffers(exchanged_layout(settings))
        update = Step("float32", {name: np.full(size, 1e-3, np.float32) for name, size in sizes.items()})
    bare = TrainReport("A", 0, 3, None, None, None, update).parcel()
    return Parcel(bare.values | {name: VALUES[name] for name in metrics}, bare.arrays)


@pytest.mark.parametrize("metrics", SOME, ids=lambda names: "+".join(sorted(names)) or "none")
@pytest.mark.parametrize("mode", COVERED)
@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
def test_only_metrics_that_are_covered_leave(private, kind: str, mode: str, metrics: set[str]) -> None:
    settings = private(privacy__metrics=mode)
    bare = sorted(metrics - COVERED[mode])
    if not bare:
        check_departure(kind, report(kind, settings, metrics), settings)
        return
    with pytest.raises(ExchangeError) as error:
        check_departure(kind, report(kind, settings, metrics), settings)
    assert str(error.value) == f"{', '.join(bare)} would leave a private run, and no mechanism covers it"


@pytest.mark.parametrize("unit", ["none", "subject"])
@pytest.mark.parametrize("place", ["count", "total", "squares"])
def test_clinical_sums_stay(private, unit: str, place: str) -> None:
    settings, zeros = private(privacy__unit=unit), np.zeros(6)
    sums = dict.fromkeys(("count", "total", "squares"), zeros)
    check_departure(JOIN, SiteReport("A", 3, 1, Moments(**sums)).parcel(), settings)
    one = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1e-9])
    told = SiteReport("A", 3, 1, Moments(**(sums | {place: one}))).parcel()
    if unit == "none":
        check_departure(JOIN, told, settings)
        return
    with pytest.raises(ExchangeError, match="clinical sums would leave a private run; wanted zeros"):
        check_departure(JOIN, told, settings)


@pytest.mark.parametrize("mode", COVERED)
def test_sums_stay_however_metrics_leave(private, mode: str) -> None:
    told = SiteReport("A", 3, 1, Moments(*[np.ones(6)] * 3)).parcel()
    with pytest.raises(ExchangeError, match="clinical sums"):
        check_departure(JOIN, told, private(privacy__metrics=mode))


def test_metrics_do_not_leave_under_another_answer(private) -> None:
    settings = private()
    for kind, parcel in (
        (SITES, NodeReport(("A",)).parcel()),
        (JOIN, SiteReport("A", 3, 1, Moments(*[np.zeros(6)] * 3)).parcel()),
    ):
        check_departure(kind, parcel, settings)
        for name in METRICS:
            with pytest.raises(ExchangeError, match=name):
                check_departure(kind, Parcel(parcel.values | {name: 0.5}, parcel.arrays), settings)


def test_what_is_checked_otherwise_is_checked_here_too(private) -> None:
    settings = private(privacy__metrics="noised")
    whole = report(TRAIN, settings, {"valid-mae"})
    for changed in (
        Parcel(whole.values | {"subject": "sub-1"}, whole.arrays),
        Parcel(whole.values | {"valid-mae": float("nan")}, whole.arrays),
        Parcel(whole.values | {"valid-mae": -0.1}, whole.arrays),
        Parcel(whole.values, whole.arrays | {"scan": np.zeros(3, np.float32)}),
        Parcel(whole.values, {}),
    ):
        with pytest.raises(ExchangeError):
            check_departure(TRAIN, changed, settings)
