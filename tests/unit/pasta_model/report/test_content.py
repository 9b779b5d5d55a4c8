# SPDX-License-Identifier: Apache-2.0
"""Examples are chosen by a rule."""

from pasta_model.evaluation.scores import SubjectScore
from pasta_model.report.content import choose_examples
from tests.support.scores import a_score


def _score(subject: str, mae: float, diagnosis: str = "CN", method: str = "federated") -> SubjectScore:
    return a_score(subject, diagnosis=diagnosis, method=method, mae=mae)


def test_the_median_is_chosen() -> None:
    scores = [_score("a", 0.3), _score("b", 0.1), _score("c", 0.2), _score("d", 0.15, method="alone")]
    assert [s.subject for s in choose_examples(scores)] == ["c"]


def test_the_lower_of_two_in_the_middle() -> None:
    scores = [_score("a", 0.4), _score("b", 0.1), _score("c", 0.2), _score("d", 0.3)]
    assert [s.subject for s in choose_examples(scores)] == ["c"]


def test_equal_scores_do_not_depend_on_their_order() -> None:
    scores = [_score(name, 0.1) for name in "cab"]
    assert choose_examples(scores) == choose_examples(scores[::-1])
    assert choose_examples(scores)[0].subject == "b"


def test_diagnoses_come_in_order_and_an_absent_one_is_left_out() -> None:
    scores = [_score("x", 0.1, "Dementia"), _score("y", 0.1, "CN")]
    assert [s.diagnosis for s in choose_examples(scores)] == ["CN", "Dementia"]


def test_a_session_without_an_mae_is_never_an_example() -> None:
    none = a_score("a", mae=None, why={"mae": "no brain"})
    assert [s.subject for s in choose_examples([none, _score("b", 0.2)])] == ["b"]
    assert choose_examples([none]) == []
