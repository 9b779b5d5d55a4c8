# SPDX-License-Identifier: Apache-2.0
"""Nobody on whom a method was trained is measured, and what is not known is said."""

from dataclasses import replace
from pathlib import Path

import pytest

from pasta_model.data.manifest import Session, write_splits
from pasta_model.errors import SplitError
from pasta_model.evaluation.unseen import Basis, measured


def session(subject: str, split: str | None = None, *, rid: str = "", visit: str = "bl") -> Session:
    return Session(subject, visit, "A", "CN", Path("mri.nii"), Path("pet.nii"), split=split, rid=rid)


MIXED = [session("a", "train"), session("b", "valid"), session("c", "test"), session("d", "test")]


def names(sessions: tuple[Session, ...]) -> list[str]:
    return [s.subject for s in sessions]


def test_who_trains_or_validates_is_left_out() -> None:
    found = measured(MIXED)
    assert names(found.sessions) == ["c", "d"]
    assert (found.basis, found.left_out) == (Basis.SPLITS, ("a_bl", "b_bl"))
    assert found.title == "Result on held-out subjects"
    assert found.sentence == (
        "Held out by the splits of the manifest; 2 sessions of persons in train or valid were left out."
    )


def test_the_splits_come_from_a_table(tmp_path: Path) -> None:
    table = tmp_path / "splits.tsv"
    write_splits(table, {"a": "train", "b": "test", "of other days": "train"})
    found = measured([session("a"), session("b")], splits=table)
    assert names(found.sessions) == ["b"]
    assert found.sessions[0].split == "test"
    assert found.words == "held out by the splits in splits.tsv"
    with pytest.raises(SplitError, match="c: has no split"):
        measured([session("a"), session("c")], splits=table)


def test_other_visits_and_other_names_of_a_person_are_left_out_too() -> None:
    found = measured(
        [session("a", "train", rid="7"), session("a2", rid="0007"), session("a", visit="m12"), session("b")]
    )
    assert names(found.sessions) == ["b"]
    assert found.left_out == ("a_bl", "a2_bl", "a_m12")


def test_what_nobody_knows_is_not_called_held_out() -> None:
    for sessions in ([session("a"), session("b")], [session("a", "test"), session("b")]):
        found = measured(sessions)
        assert (len(found.sessions), found.basis) == (2, Basis.NOT_CHECKED)
        assert "held-out" not in found.title
        assert found.sentence == "Whether a method was trained on these subjects was not checked."


def test_the_word_of_the_user_is_called_so() -> None:
    found = measured([session("a"), session("b", "train")], sure=True)
    assert names(found.sessions) == ["a"], "what a table says is not overruled"
    assert found.basis is Basis.WORD
    assert "said to be held out" in found.title
    assert "the user's word (--all-unseen)" in found.sentence
    assert measured(MIXED, sure=True).basis is Basis.SPLITS, "it was not needed"


def test_nobody_left_is_refused() -> None:
    with pytest.raises(SplitError, match=r"all 2 sessions are of persons in train or valid.*--splits"):
        measured([replace(s, split="train") for s in MIXED[:2]])
