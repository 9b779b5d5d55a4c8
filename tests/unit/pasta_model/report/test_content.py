# SPDX-License-Identifier: Apache-2.0
"""Examples are chosen by a rule."""

from pasta_model.evaluation.scores import SubjectScore
from pasta_model.report.content import choose_examples


def _score(subject: str, mae: float, diagnosis: str = "CN", method: str = "federated") -> SubjectScore:
    return SubjectScore(subject, "bl", "A", diagnosis, method, mae, 20.0, 0.9, 0.1, 1.0, 1.0)


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
