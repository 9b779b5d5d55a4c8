# SPDX-License-Identifier: Apache-2.0
"""The last look before a message leaves: what is not exactly of its type stays."""

from collections.abc import Callable

import numpy as np
import pytest

from pasta_model.checkpoint import exchanged_layout
from pasta_model.config import Settings
from pasta_model.data.clinical import Moments
from pasta_model.errors import ExchangeError
from pasta_model.exchange.contents import (
    EVALUATE,
    JOIN,
    SITES,
    TRAIN,
    NodeReport,
    Parcel,
    SiteReport,
    TrainReport,
)
from pasta_model.exchange.departure import check_departure
from pasta_model.exchange.steps import encode_step
from pasta_model.exchange.vectors import float_buffers

SMALLEST = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"
SMALL = {"network__shape": SMALLEST, "sampling__hop": 4, "exchange__uplink": "int8"}
ZEROS = np.zeros(6)


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(**SMALL, exchange__personal="norms")


@pytest.fixture
def train(settings: Settings) -> Parcel:
    rng = np.random.default_rng(0)
    sizes = float_buffers(exchanged_layout(settings))
    update, _ = encode_step("int8", [(n, rng.normal(size=s).astype(np.float32)) for n, s in sizes.items()])
    return TrainReport("A", 0, 3, 1.5, 0.2, 9.0, update).parcel()


def others() -> dict[str, Parcel]:
    return {
        SITES: NodeReport(("A",)).parcel(),
        JOIN: SiteReport("A", 3, 1, Moments(ZEROS, ZEROS, ZEROS), "a" * 64).parcel(),
        EVALUATE: TrainReport("A", 2, 1, None, 0.2, 9.0, None).parcel(),
    }


@pytest.mark.parametrize("kind", [SITES, JOIN, EVALUATE])
def test_what_is_right_may_leave(settings: Settings, kind: str) -> None:
    check_departure(kind, others()[kind], settings)


def test_update_may_leave_with_or_without_its_metrics(settings: Settings, train: Parcel) -> None:
    check_departure(TRAIN, train, settings)
    for name in ("train-loss", "valid-mae", "seconds"):
        del train.values[name]
        check_departure(TRAIN, train, settings)


@pytest.mark.parametrize("kind", [SITES, JOIN, EVALUATE, TRAIN])
def test_another_value_or_array_stays(settings: Settings, train: Parcel, kind: str) -> None:
    parcel = ({TRAIN: train} | others())[kind]
    with pytest.raises(ExchangeError, match="subject"):
        check_departure(kind, Parcel(parcel.values | {"subject": "sub-1"}, parcel.arrays), settings)
    scan = {**parcel.arrays, "scan": np.zeros(3, np.float32)}
    with pytest.raises(ExchangeError, match=r"scan|codec"):
        check_departure(kind, Parcel(parcel.values, scan), settings)


@pytest.mark.parametrize("kind", [SITES, JOIN, EVALUATE, TRAIN])
def test_answer_to_something_else_stays(settings: Settings, train: Parcel, kind: str) -> None:
    parcels = {TRAIN: train} | others()
    for other in parcels.keys() - {kind}:
        with pytest.raises(ExchangeError):
            check_departure(kind, parcels[other], settings)


@pytest.mark.parametrize("kind", ["query.everything", "", "query", "train.default"])
def test_nothing_answers_a_message_that_is_not_exchanged(settings: Settings, kind: str) -> None:
    with pytest.raises(ExchangeError, match="are not exchanged"):
        check_departure(kind, Parcel({}, {}), settings)


def first(parcel: Parcel) -> str:
    return next(iter(parcel.arrays))


UPDATES: dict[str, tuple[Callable[[Parcel], Parcel], str]] = {
    "another codec": (lambda p: Parcel(p.values | {"codec": "float32"}, p.arrays), "as float32, wanted int8"),
    "unknown codec": (lambda p: Parcel(p.values | {"codec": "zip"}, p.arrays), "as zip, wanted int8"),
    "no update": (
        lambda p: Parcel({n: v for n, v in p.values.items() if n != "codec"}, {}),
        "holds no update",
    ),
    "plain floats": (
        lambda p: Parcel(p.values, {n: np.zeros(9, np.float32) for n in p.arrays}),
        "wanted bytes",
    ),
    "a NaN": (
        lambda p: Parcel(p.values, p.arrays | {first(p): np.full(9, np.nan, np.float32)}),
        "NaN or infinity",
    ),
    "a byte more": (
        lambda p: Parcel(p.values, p.arrays | {first(p): np.append(p.arrays[first(p)], np.uint8(7))}),
        "does not hold",
    ),
    "a byte less": (
        lambda p: Parcel(p.values, p.arrays | {first(p): p.arrays[first(p)][:-1]}),
        "damaged|does not hold",
    ),
    "a buffer less": (lambda p: Parcel(p.values, {}), "codec without weights"),
    "infinite loss": (lambda p: Parcel(p.values | {"train-loss": float("inf")}, p.arrays), "finite"),
    "loss as text": (lambda p: Parcel(p.values | {"train-loss": "sub-1"}, p.arrays), "finite number"),
    "subjects as names": (lambda p: Parcel(p.values | {"subjects": ["sub-1"]}, p.arrays), "wanted a count"),
}


@pytest.mark.parametrize("kind", UPDATES)
def test_update_that_is_not_what_the_settings_say_stays(settings: Settings, train: Parcel, kind: str) -> None:
    change, said = UPDATES[kind]
    with pytest.raises(ExchangeError, match=said):
        check_departure(TRAIN, change(train), settings)


def test_update_with_the_personal_parts_in_it_stays(settings: Settings, make_settings) -> None:
    """The whole network is larger than what is shared: it does not fit, and does not leave."""
    whole = make_settings(**SMALL)
    sizes = float_buffers(exchanged_layout(whole))
    update, _ = encode_step("int8", [(n, np.ones(s, np.float32)) for n, s in sizes.items()])
    parcel = TrainReport("A", 0, 3, 1.5, 0.2, 9.0, update).parcel()
    check_departure(TRAIN, parcel, whole)
    with pytest.raises(ExchangeError):
        check_departure(TRAIN, parcel, settings)


def test_weights_in_an_evaluation_stay(settings: Settings, train: Parcel) -> None:
    with pytest.raises(ExchangeError, match="answer to an evaluation holds weights"):
        check_departure(EVALUATE, train, settings)


@pytest.mark.parametrize(
    "sums",
    [np.zeros(5), np.zeros((6, 2)), np.zeros(0), np.array(["a"] * 6), np.zeros(6, bool), np.full(6, np.nan)],
    ids=["another scheme", "rows", "none", "text", "flags", "NaN"],
)
def test_clinical_sums_of_another_form_stay(settings: Settings, sums: np.ndarray) -> None:
    for name in ("count", "total", "squares"):
        parcel = others()[JOIN]
        with pytest.raises(ExchangeError):
            check_departure(JOIN, Parcel(parcel.values, {**parcel.arrays, name: sums}), settings)


def test_holding_must_be_a_digest(settings: Settings) -> None:
    parcel = others()[JOIN]
    for text in ("sub-1", "A" * 64, "a" * 63):
        with pytest.raises(ExchangeError, match="wanted a SHA-256"):
            check_departure(JOIN, Parcel(parcel.values | {"holds": text}, parcel.arrays), settings)
    check_departure(JOIN, Parcel(parcel.values | {"holds": ""}, parcel.arrays), settings)
