# SPDX-License-Identifier: Apache-2.0
"""Who of a table is measured: nobody on whom a method was trained or chosen, as far as that is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pasta_model.data.manifest import Session, read_splits
from pasta_model.data.splits import apply_splits, people
from pasta_model.errors import SplitError

SEEN = ("train", "valid")


class Basis(StrEnum):
    """How it is known that no method was trained on those who are measured."""

    SPLITS = "splits"
    WORD = "word of the user"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Measured:
    """Who is measured, and how it is known that they are held out.

    Attributes
    ----------
    left_out
        Names of the sessions of persons in train or valid.
    splits
        The table that says so; None where the manifest does.
    """

    sessions: tuple[Session, ...]
    basis: Basis
    left_out: tuple[str, ...] = ()
    splits: Path | None = None

    @property
    def title(self) -> str:
        """Heading of their results."""
        who = {
            Basis.SPLITS: " on held-out subjects",
            Basis.WORD: " on subjects that are said to be held out",
            Basis.NOT_CHECKED: "",
        }
        return f"Result{who[self.basis]}"

    @property
    def words(self) -> str:
        """How it is known, without numbers."""
        where = f"the splits in {self.splits.name}" if self.splits else "the splits of the manifest"
        return {
            Basis.SPLITS: f"held out by {where}",
            Basis.WORD: "that no method was trained on these subjects is the user's word (--all-unseen)",
            Basis.NOT_CHECKED: "whether a method was trained on these subjects was not checked",
        }[self.basis]

    @property
    def sentence(self) -> str:
        """How it is known, and how many were left out."""
        left = f"; {len(self.left_out)} sessions of persons in train or valid were left out"
        return f"{self.words[0].upper()}{self.words[1:]}{left if self.left_out else ''}."


def measured(sessions: Sequence[Session], *, splits: Path | None = None, sure: bool = False) -> Measured:
    """Leave out everybody in train or valid, with all visits and under all names.

    Parameters
    ----------
    splits
        Table of splits; None: the splits of the sessions themselves, where they have any.
    sure
        The user says that no method was trained on anybody whose split is not known.

    Raises
    ------
    SplitError
        When nobody is left, or the table does not fit the sessions.
    ManifestError
        When the table cannot be read.
    """
    if splits is not None:
        sessions = apply_splits(sessions, read_splits(splits))
    persons = people(sessions)
    seen = {persons[s.subject] for s in sessions if s.split in SEEN}
    kept = tuple(s for s in sessions if persons[s.subject] not in seen)
    if not kept:
        raise SplitError(
            f"all {len(sessions)} sessions are of persons in train or valid, on whom methods are trained or"
            " chosen; wanted some in test: evaluate other persons, or give the methods' own table (--splits)"
        )
    known = all(s.split is not None for s in kept)
    basis = Basis.SPLITS if known else Basis.WORD if sure else Basis.NOT_CHECKED
    left = tuple(s.name for s in sessions if persons[s.subject] in seen)
    return Measured(kept, basis, left, splits)
