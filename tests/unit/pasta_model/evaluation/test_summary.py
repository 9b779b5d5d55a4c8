# SPDX-License-Identifier: Apache-2.0
"""Means by hand, their groups, what is hidden, and paired differences against scipy."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pasta_model.evaluation.columns import BY_NAME, METRICS
from pasta_model.evaluation.estimates import Estimate
from pasta_model.evaluation.summary import ALL_SITES, MEAN_OF_SITES, best, differences, summarise
from tests.support.scores import a_score


def _row(subject: str, site: str, mae: float, *, method: str = "federated"):
    return a_score(
        subject, site, method=method, mae=mae, psnr=20 + 10 * mae, ssim=1 - mae, metaroi_error=2 * mae
    )


# Two subjects at A, one at B: means by subject and by site differ.
SCORES = [_row("s1", "A", 0.1), _row("s2", "A", 0.2), _row("s3", "B", 0.6)]
POLICY = "fewer than 3 subjects, too few to tell"


def _by_group(rows) -> dict[str, object]:
    return {row.group: row for row in rows}


def test_means_by_hand() -> None:
    rows = summarise(SCORES)
    assert [(row.kind, row.group) for row in rows] == [
        ("site", "A"),
        ("site", "B"),
        ("all", ALL_SITES),
        ("sites", MEAN_OF_SITES),
    ]
    assert [row.subjects for row in rows] == [2, 1, 3, 3]
    for name, wanted in {
        "mae": [0.15, 0.6, 0.3, 0.375],
        "psnr": [21.5, 26.0, 23.0, 23.75],
        "ssim": [0.85, 0.4, 0.7, 0.625],
        "metaroi_error": [0.3, 1.2, 0.6, 0.75],
    }.items():
        assert [BY_NAME[name].of(row) for row in rows] == pytest.approx(wanted), name


def test_methods_stand_in_the_order_of_their_first_score() -> None:
    rows = summarise([*SCORES, _row("s3", "B", 0.1, method="alone")])
    assert [(row.group, row.method) for row in rows] == [
        ("A", "federated"),
        ("B", "federated"),
        ("B", "alone"),
        (ALL_SITES, "federated"),
        (ALL_SITES, "alone"),
        (MEAN_OF_SITES, "federated"),
        (MEAN_OF_SITES, "alone"),
    ]


def test_every_kind_of_group() -> None:
    scores = [replace(s, age=60.0 + 20 * i, sex="FM"[i % 2]) for i, s in enumerate(SCORES)]
    rows = summarise(scores, by=("site", "diagnosis", "sex", "age"))
    kinds = [row.kind for row in rows]
    assert kinds == ["site"] * 2 + ["diagnosis"] + ["sex"] * 2 + ["age"] * 3 + ["all", "sites"]
    by_sex = [(row.group, row.subjects, row.values["mae"].value) for row in rows if row.kind == "sex"]
    assert by_sex == [("F", 2, pytest.approx(0.35)), ("M", 1, pytest.approx(0.2))]
    assert "sites" not in {row.kind for row in summarise(scores, by=("sex",))}


def test_a_subject_with_two_sessions_counts_once() -> None:
    rows = summarise([SCORES[0], replace(SCORES[0], session="m12", values={**SCORES[0].values, "mae": 0.3})])
    assert rows[0].subjects == 1
    assert rows[0].values["mae"] == Estimate(pytest.approx(0.2), why="one subject gives no interval")


def test_of_nothing_is_nothing() -> None:
    assert summarise([]) == []


def test_best_follows_the_direction_of_the_metric() -> None:
    rows = summarise(SCORES)[:2]
    assert [best(rows, metric) for metric in METRICS] == ["0.1500", "26.00", "0.8500", "0.3000"]
    assert best(rows, BY_NAME["metaroi_real"]) is None
    assert best(rows, BY_NAME["mse"]) is None


def test_interval_of_a_mean_holds_it() -> None:
    scores = [_row(f"s{n}", "AB"[n % 2], 0.1 + 0.02 * n) for n in range(12)]
    for row in summarise(scores):
        mae = row.values["mae"]
        assert mae.low < mae.value < mae.high, row.group


def test_mean_over_sites_draws_persons_within_each_site() -> None:
    """A site with one value throughout keeps it, however small it is."""
    scores = [_row(f"a{n}", "A", 0.1) for n in range(20)] + [_row(f"b{n}", "B", 0.5) for n in range(2)]
    mean = summarise(scores)[-1].values["mae"]
    assert (mean.low, mean.value, mean.high) == pytest.approx((0.3, 0.3, 0.3))


def test_what_a_session_lacks_is_said_and_does_not_count() -> None:
    none = a_score("s4", psnr=None, why={"psnr": "the volumes are equal"})
    rows = summarise([*(_row(f"s{n}", "A", 0.1) for n in range(3)), none])
    psnr = rows[0].values["psnr"]
    assert psnr.value == pytest.approx(21.0)
    assert psnr.why == "1 of 4 sessions have none: the volumes are equal"
    assert summarise([none])[0].values["psnr"] == Estimate(None, why="the volumes are equal")


def test_a_metric_that_nobody_measured_is_no_column() -> None:
    assert "mse" not in summarise(SCORES)[0].values
    assert list(summarise([replace(SCORES[0], values={"new": 1.0, "mae": 2.0})])[0].values) == ["mae", "new"]


class TestSmallest:
    scores = (
        *(_row(f"a{n}", "A", 0.1) for n in range(6)),
        *(_row(f"b{n}", "B", 0.2 + n) for n in range(4)),
        *(_row(f"c{n}", "C", 0.3) for n in range(2)),
    )

    def test_hides_a_small_group_and_the_one_that_would_tell_it(self) -> None:
        rows = _by_group(summarise(self.scores, smallest=3))
        assert rows["C"].values["mae"] == Estimate(None, why=POLICY)
        assert rows["B"].values["mae"].value is None
        assert "by difference" in rows["B"].values["mae"].why
        assert rows["A"].values["mae"].value == pytest.approx(0.1)
        assert [rows[g].count for g in "ABC"] == ["6", "not shown", "fewer than 3"]
        assert rows[ALL_SITES].values["mae"].value is not None

    def test_mean_over_sites_is_of_those_that_are_shown(self) -> None:
        rows = _by_group(summarise(self.scores, smallest=3))
        assert rows[MEAN_OF_SITES].values["mae"].value == pytest.approx(0.1)
        assert rows[MEAN_OF_SITES].subjects == 6

    def test_hides_a_metric_that_few_have(self) -> None:
        lacking = {"psnr": None, "why": {"psnr": "the volumes are equal"}}
        groups = {"A": (9, 9), "B": (8, 2), "C": (8, 8)}  # people, and those with a PSNR
        scores = [
            a_score(f"{site}{n}", site, **(lacking if n >= having else {}))
            for site, (size, having) in groups.items()
            for n in range(size)
        ]
        rows = _by_group(summarise(scores, smallest=5))
        assert {name: rows[name].hidden for name in "ABC"} == {"A": "", "B": "", "C": ""}
        assert rows["B"].values["psnr"] == Estimate(None, why="fewer than 5 subjects, too few to tell")
        assert rows["C"].values["psnr"].why.startswith("would tell by difference")
        assert rows["A"].values["psnr"].value == pytest.approx(20.0)
        assert rows[ALL_SITES].values["psnr"].value == pytest.approx(20.0)
        assert rows[MEAN_OF_SITES].values["psnr"].value is None, "A's alone, and of no other metric so"
        assert all(row.values["mae"].value == pytest.approx(0.1) for row in rows.values())

    def test_hides_a_metric_that_few_have_in_all(self) -> None:
        scores = [a_score(f"s{n}", psnr=None, why={"psnr": "the volumes are equal"}) for n in range(9)]
        known = [a_score(f"k{n}") for n in range(2)]
        rows = _by_group(summarise([*scores, *known], smallest=5))
        assert {row.values["psnr"].value for row in rows.values()} == {None}
        assert rows[ALL_SITES].values["psnr"].why == "fewer than 5 subjects, too few to tell"
        assert rows[ALL_SITES].values["ssim"].value == pytest.approx(0.9)
        nobody = _by_group(summarise(scores, smallest=5))
        assert nobody[ALL_SITES].values["psnr"].why == "the volumes are equal"

    def test_hides_all_when_there_are_few(self) -> None:
        for row in summarise(self.scores[-2:], smallest=3):
            assert {estimate.value for estimate in row.values.values()} == {None}
            assert all(estimate.why == POLICY for estimate in row.values.values())


class TestDifferences:
    first = np.random.default_rng(0).uniform(0.1, 0.9, 30)
    second = first + np.random.default_rng(1).normal(0.03, 0.02, 30)

    def scores(self) -> list:
        pairs = zip(self.first, self.second, strict=True)
        return [
            _row(f"s{n}", "A", float(value), method=method)
            for n, pair in enumerate(pairs)
            for method, value in zip(("x", "y"), pair, strict=True)
        ]

    def test_are_paired(self) -> None:
        found = differences(self.scores(), "y", "x", "mae")
        wanted = stats.bootstrap(
            (self.second, self.first), lambda a, b, axis: np.mean(a - b, axis=axis), paired=True,
            vectorized=True, method="percentile", random_state=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        assert found.value == pytest.approx((self.second - self.first).mean())
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=2e-3)
        assert found.low > 0, "what all subjects share cancels"
        apart = summarise(self.scores())[0].values["mae"]
        assert found.high - found.low < 0.2 * (apart.high - apart.low)

    def test_turn_round(self) -> None:
        one, other = (differences(self.scores(), *pair, METRICS[0]) for pair in (("x", "y"), ("y", "x")))
        assert one.value == pytest.approx(-other.value)

    def test_take_the_sessions_of_both(self) -> None:
        found = differences(self.scores()[:-1], "x", "y", "mae")
        assert found.value == pytest.approx((self.first - self.second)[:-1].mean())
        assert found.why == "1 sessions lack one of the two"

    def test_of_methods_without_a_common_session(self) -> None:
        scores = [_row("a", "A", 0.1, method="x"), _row("b", "A", 0.2, method="y")]
        assert differences(scores, "x", "y", "mae") == Estimate(
            None, why="no session has a mae of x and of y"
        )
