# SPDX-License-Identifier: Apache-2.0
"""What a reader is shown: the MRI or a PET, with or without clinical values."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MRI = "MRI"
REAL_PET = "real PET"
WITH_CLINICAL = " + clinical"


@dataclass(frozen=True)
class Input:
    """One scan, and whether clinical values come with it.

    Attributes
    ----------
    name
        As tables show it: "MRI", "MRI + clinical", "real PET", or the name of a method.
    scan
        "MRI", or the key of the PET among those of a case.
    clinical
        Whether the clinical values are shown too.
    """

    name: str
    scan: str
    clinical: bool

    @property
    def is_synthetic(self) -> bool:
        """Whether it is a synthetic PET and nothing else."""
        return self.scan not in (MRI, REAL_PET) and not self.clinical


def input_of(name: str) -> Input:
    """Return the input of a name; " + clinical" at its end adds the clinical values to any scan."""
    scan = name.removesuffix(WITH_CLINICAL)
    return Input(name, scan, clinical=scan != name)


def default_inputs(methods: Iterable[str]) -> tuple[str, ...]:
    """Return what is compared unless asked otherwise: MRI, MRI + clinical, each method, the real PET."""
    synthetic = sorted(set(methods) - {REAL_PET})
    return (MRI, MRI + WITH_CLINICAL, *synthetic, REAL_PET)


def applied_inputs(trained_on: Input, inputs: Sequence[Input]) -> tuple[Input, ...]:
    """Return what a reader that was trained on an input is applied to.

    Its own input; and where that is the real PET, each synthetic one: does it show what a real one shows?
    """
    others = [each for each in inputs if each.is_synthetic] if trained_on.name == REAL_PET else []
    return (trained_on, *others)
