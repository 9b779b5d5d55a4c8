# SPDX-License-Identifier: Apache-2.0
"""What may cross the line: each type comes back as it went, and nothing else is let through."""

import numpy as np
import pytest

from pasta_model.data.clinical import Moments, Standardisation
from pasta_model.errors import ExchangeError
from pasta_model.exchange.contents import (
    Invitation,
    NodeReport,
    Parcel,
    Refusal,
    SiteReport,
    TrainReport,
    TrainTask,
)

WEIGHTS = {"float32.000": np.arange(3, dtype=np.float32)}
MOMENTS = Moments(np.array([2.0]), np.array([131.5]), np.array([8700.25]))
EXAMPLES = [
    NodeReport(("A", "B")),
    NodeReport(()),
    Invitation("A"),
    SiteReport("A", 12, 0, MOMENTS),
    TrainTask("A", 3, Standardisation((70.5, 0.5), (7.0, 0.5)), WEIGHTS),
    TrainTask("A", 0, Standardisation((), ()), WEIGHTS),
    TrainReport("A", 3, 12, 1.5, 0.2, 9.75, WEIGHTS),
    TrainReport("A", 3, 0, 0.0, 0.2, 9.75, {}),
]


def same(one: object, other: object) -> bool:
    np.testing.assert_equal(one.__dict__ | {"moments": None}, other.__dict__ | {"moments": None})
    if isinstance(one, SiteReport):
        np.testing.assert_equal(one.moments.__dict__, other.moments.__dict__)
    return type(one) is type(other)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: type(e).__name__)
class TestEveryType:
    def test_comes_back(self, example) -> None:
        assert same(type(example).of(example.parcel()), example)

    def test_another_value_is_refused(self, example) -> None:
        parcel = example.parcel()
        parcel.values["subjects-names"] = ["sub-1"]
        with pytest.raises(ExchangeError, match="subjects-names"):
            type(example).of(parcel)

    def test_missing_value_is_refused(self, example) -> None:
        parcel = example.parcel()
        parcel.values.popitem()
        with pytest.raises(ExchangeError, match="wanted"):
            type(example).of(parcel)

    def test_values_of_another_type_are_refused(self, example) -> None:
        parcel = example.parcel()
        for name in parcel.values:
            for wrong in (None, b"x", True, {"a": 1}):
                with pytest.raises(ExchangeError):
                    type(example).of(Parcel(parcel.values | {name: wrong}, parcel.arrays))


@pytest.mark.parametrize("example", [NodeReport(("A",)), Invitation("A"), SiteReport("A", 1, 1, MOMENTS)])
def test_another_array_is_refused(example) -> None:
    parcel = example.parcel()
    parcel.arrays["scan"] = np.zeros(3)
    with pytest.raises(ExchangeError, match="scan"):
        type(example).of(parcel)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    report = TrainReport("A", 3, 12, 1.5, 0.2, 9.75, WEIGHTS)
    for name in ("train-loss", "valid-mae", "seconds"):
        with pytest.raises(ExchangeError, match="finite"):
            TrainReport.of(Parcel(report.parcel().values | {name: value}, WEIGHTS))
    with pytest.raises(ExchangeError, match=r"float32\.000"):
        TrainReport.of(Parcel(report.parcel().values, {"float32.000": np.array([1, value], np.float32)}))
    with pytest.raises(ExchangeError, match="total"):
        SiteReport.of(
            SiteReport("A", 1, 1, Moments(MOMENTS.count, np.array([value]), MOMENTS.squares)).parcel()
        )
    task = TrainTask("A", 0, Standardisation((value,), (1.0,)), WEIGHTS)
    with pytest.raises(ExchangeError, match="finite"):
        TrainTask.of(task.parcel())


def test_negative_counts_and_empty_names_are_refused() -> None:
    with pytest.raises(ExchangeError, match="wanted a count"):
        SiteReport.of(SiteReport("A", -1, 1, MOMENTS).parcel())
    with pytest.raises(ExchangeError, match="wanted a name"):
        Invitation.of(Invitation("").parcel())


def test_refusal_says_its_kind_and_where_to_look() -> None:
    assert Refusal("StoreError", "abcd1234").text == "StoreError (reference abcd1234 in the site's log)"
