# SPDX-License-Identifier: Apache-2.0
"""What may cross the line: each type comes back as it went, and nothing else is let through."""

import numpy as np
import pytest

from pasta_model.data.clinical import Moments, Standardisation
from pasta_model.errors import ExchangeError
from pasta_model.exchange.contents import (
    METRICS,
    Invitation,
    NodeReport,
    Parcel,
    Refusal,
    SiteReport,
    TrainReport,
    TrainTask,
)
from pasta_model.exchange.steps import Step

WEIGHTS = {"float32.000": np.arange(3, dtype=np.float32)}
STEP, SMALL = Step("float32", WEIGHTS), Step("int8", {"float32.000": np.arange(9, dtype=np.uint8)})
BASE, TARGET = "a" * 64, "0123456789abcdef" * 4
MOMENTS = Moments(np.array([2.0]), np.array([131.5]), np.array([8700.25]))
EXAMPLES = [
    NodeReport(("A", "B")),
    NodeReport(()),
    Invitation("A"),
    SiteReport("A", 12, 0, MOMENTS),
    SiteReport("A", 12, 0, MOMENTS, BASE),
    TrainTask("A", 3, Standardisation((70.5, 0.5), (7.0, 0.5)), BASE, TARGET, (SMALL, STEP, SMALL)),
    TrainTask("A", 0, Standardisation((), ()), "", TARGET, (STEP,)),
    TrainTask("A", 0, Standardisation((), ()), TARGET, TARGET, ()),
    TrainTask("A", 2, Standardisation((), ()), BASE, TARGET, (SMALL,), BASE),
    TrainTask("A", 0, Standardisation((), ()), "", TARGET, (STEP,), BASE, STEP),
    TrainReport("A", 3, 12, 1.5, 0.2, 9.75, SMALL),
    TrainReport("A", 3, 12, None, None, None, STEP),
    TrainReport("A", 3, 0, None, 0.2, 9.75, None),
]


def plain(content: object) -> object:
    """Records as dictionaries and tuples, which numpy compares value by value."""
    if isinstance(content, tuple):
        return [plain(part) for part in content]
    if hasattr(content, "__dict__"):
        return {name: plain(part) for name, part in vars(content).items()}
    return content


def same(one: object, other: object) -> bool:
    np.testing.assert_equal(plain(one), plain(other))
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
        optional = {*METRICS, "codec"} if isinstance(example, TrainReport) else set()
        for name in example.parcel().values.keys() - optional:
            parcel = example.parcel()
            del parcel.values[name]
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
    report = TrainReport("A", 3, 12, 1.5, 0.2, 9.75, STEP)
    for name in METRICS:
        with pytest.raises(ExchangeError, match="finite"):
            TrainReport.of(Parcel(report.parcel().values | {name: value}, WEIGHTS))
    with pytest.raises(ExchangeError, match=r"float32\.000"):
        TrainReport.of(Parcel(report.parcel().values, {"float32.000": np.array([1, value], np.float32)}))
    with pytest.raises(ExchangeError, match="total"):
        SiteReport.of(
            SiteReport("A", 1, 1, Moments(MOMENTS.count, np.array([value]), MOMENTS.squares)).parcel()
        )
    task = TrainTask("A", 0, Standardisation((value,), (1.0,)), "", TARGET, (STEP,))
    with pytest.raises(ExchangeError, match="finite"):
        TrainTask.of(task.parcel())


def test_parts_that_are_not_exchanged_come_with_their_digest() -> None:
    parcel = TrainTask("A", 0, Standardisation((), ()), "", TARGET, (STEP,), BASE, STEP).parcel()
    with pytest.raises(ExchangeError, match="without their SHA-256"):
        TrainTask.of(Parcel(parcel.values | {"start": ""}, parcel.arrays))


def test_bytes_of_a_task_are_those_of_its_steps_and_of_the_rest() -> None:
    task = TrainTask("A", 0, Standardisation((), ()), "", TARGET, (STEP, SMALL), BASE, STEP)
    assert task.nbytes == 12 + 9 + 12 == sum(a.nbytes for a in task.parcel().arrays.values())


def test_metric_that_is_kept_back_is_not_in_the_message() -> None:
    report = TrainReport("A", 3, 12, None, 0.2, None, STEP)
    assert set(report.parcel().values) == {"site", "round", "subjects", "codec", "valid-mae"}


def test_weights_and_their_codec_come_together() -> None:
    values = TrainReport("A", 3, 12, 1.5, 0.2, 9.75, STEP).parcel().values
    with pytest.raises(ExchangeError, match="codec without weights"):
        TrainReport.of(Parcel(values, {}))
    del values["codec"]
    with pytest.raises(ExchangeError, match="weights without their codec"):
        TrainReport.of(Parcel(values, WEIGHTS))


@pytest.mark.parametrize("name", ["02/float32.000", "float32.000", "x/float32.000", "-1/float32.000", "/a"])
def test_array_of_no_step_is_refused(name: str) -> None:
    parcel = TrainTask("A", 0, Standardisation((), ()), "", TARGET, (STEP, SMALL)).parcel()
    parcel.arrays[name] = np.zeros(3, np.float32)
    with pytest.raises(ExchangeError, match="of no step"):
        TrainTask.of(parcel)


def test_tasks_with_the_same_steps_share_their_arrays() -> None:
    """Flower's transport then converts and keeps them once, for 300 sites as for one."""
    one, other = (TrainTask(n, 0, Standardisation((), ()), "", TARGET, (STEP,)).parcel() for n in "AB")
    assert one.arrays["00/float32.000"] is other.arrays["00/float32.000"] is WEIGHTS["float32.000"]


@pytest.mark.parametrize("target", ["", "a" * 63, "G" * 64, "A" * 64, "a" * 64 + "\n"])
def test_target_must_be_a_digest(target: str) -> None:
    task = TrainTask("A", 0, Standardisation((), ()), "", target, (STEP,))
    with pytest.raises(ExchangeError):
        TrainTask.of(task.parcel())


def test_negative_counts_and_empty_names_are_refused() -> None:
    with pytest.raises(ExchangeError, match="wanted a count"):
        SiteReport.of(SiteReport("A", -1, 1, MOMENTS).parcel())
    with pytest.raises(ExchangeError, match="wanted a name"):
        Invitation.of(Invitation("").parcel())


def test_refusal_says_its_kind_and_where_to_look() -> None:
    assert Refusal("StoreError", "abcd1234").text == "StoreError (reference abcd1234 in the site's log)"
