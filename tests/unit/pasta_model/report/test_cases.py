# SPDX-License-Identifier: Apache-2.0
"""Cases are chosen by a rule, and the rule is told."""

from dataclasses import replace

import numpy as np
import pytest

from pasta_model.data.volume import Volume
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.report.cases import choose_cases, with_difference


def _score(subject: str, mae: float | None, diagnosis: str = "CN", site: str = "A") -> SubjectScore:
    why = {} if mae is not None else {"mae": "an empty mask"}
    return SubjectScore(subject, "bl", site, diagnosis, "federated", subject, values={"mae": mae}, why=why)


def _subjects(scores: list[SubjectScore], *rules: str) -> list[str]:
    chosen = choose_cases(scores, "federated", rules=rules, groups=(("diagnosis",),))
    return [case.score.subject for case in chosen]


def test_median_worst_and_best_of_a_diagnosis() -> None:
    scores = [_score(name, mae) for name, mae in (("a", 0.3), ("b", 0.1), ("c", 0.2), ("d", 0.5), ("e", 0.4))]
    assert _subjects(scores, "median", "worst", "best") == ["a", "d", "b"]


def test_the_median_of_an_even_number_is_the_lower_one() -> None:
    assert _subjects([_score("a", 0.4), _score("b", 0.1), _score("c", 0.2), _score("d", 0.3)], "median") == [
        "c"
    ]


def test_another_method_is_not_looked_at() -> None:
    other = replace(_score("x", 0.0), method="alone")
    assert _subjects([_score("a", 0.3), other], "best") == ["a"]


def test_what_is_not_available_is_never_chosen() -> None:
    assert _subjects([_score("a", 0.3), _score("b", None)], "median", "worst", "best") == ["a"]


def test_equal_scores_do_not_depend_on_their_order() -> None:
    scores = [_score(name, 0.1) for name in "cab"]
    assert choose_cases(scores, "federated") == choose_cases(scores[::-1], "federated")


def test_a_session_stands_once_with_all_its_rules() -> None:
    chosen = choose_cases([_score("a", 0.1), _score("b", 0.2, "MCI")], "federated")
    assert [case.score.subject for case in chosen] == ["a", "b"]
    assert chosen[0].rule == (
        "median MAE of CN (1); worst MAE of CN (1); best MAE of CN (1);"
        " median MAE of site A (2); best MAE of site A (2)"
    )


def test_what_is_typical_comes_first_and_diagnoses_in_order() -> None:
    scores = [_score(f"{d}{k}", 0.1 * k, d) for d in ("Dementia", "MCI", "CN") for k in range(1, 4)]
    chosen = choose_cases(scores, "federated", groups=(("diagnosis",),))
    assert [case.score.subject for case in chosen] == [
        "CN2", "MCI2", "Dementia2", "CN3", "MCI3", "Dementia3", "CN1", "MCI1", "Dementia1"
    ]  # fmt: skip


def test_with_many_sites_the_worst_and_best_come_early() -> None:
    scores = [_score(f"{d}{k}", 0.1 * k, d, site=f"{k:02d}") for d in ("CN", "MCI") for k in range(1, 30)]
    chosen = choose_cases(scores, "federated")
    assert [case.rules[0] for case in chosen[:6]] == [
        f"{rule} MAE of {d} (29)" for rule in ("median", "worst", "best") for d in ("CN", "MCI")
    ]
    assert chosen[6].rules[0].startswith("median MAE of site")


def test_groups_may_be_crossed() -> None:
    scores = [_score("a", 0.1, site="A"), _score("b", 0.2, site="B"), _score("c", 0.3, site="B")]
    chosen = choose_cases(scores, "federated", rules=("worst",), groups=(("site", "diagnosis"),))
    assert [case.rule for case in chosen] == ["worst MAE of site A, CN (1)", "worst MAE of site B, CN (2)"]


def test_how_many_few_are_is_not_told() -> None:
    scores = [
        _score(f"{name}{n}", 0.1 * n, name)
        for name, size in (("CN", 6), ("MCI", 5), ("Dementia", 4))
        for n in range(1, size + 1)
    ]
    words = [word for one in choose_cases(scores, "federated", smallest=5) for word in one.rules]
    assert {w for w in words if w.startswith("worst")} == {
        "worst MAE of CN (6)",
        "worst MAE of MCI",  # the whole less CN and MCI would tell the four
        "worst MAE of Dementia",
        "worst MAE of site A (15)",
    }


def test_nobody_gives_no_case() -> None:
    assert choose_cases([], "federated") == []


def test_the_difference_is_synthetic_minus_real(volumes: dict[str, Volume]) -> None:
    found = with_difference(volumes)["difference"]
    np.testing.assert_array_equal(found.data, volumes["synthetic"].data - volumes["real"].data)
    given = {**volumes, "difference": volumes["mri"]}
    assert with_difference(given)["difference"] is volumes["mri"]


@pytest.mark.parametrize("absent", ["real", "synthetic"])
def test_without_both_there_is_no_difference(volumes: dict[str, Volume], absent: str) -> None:
    assert "difference" not in with_difference({k: v for k, v in volumes.items() if k != absent})
