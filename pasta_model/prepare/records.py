# SPDX-License-Identifier: Apache-2.0
"""What the three ways in have in common: scans, visits, pairs, and a decision about every session.

`bids`, `adni` and `published_hdf5` read visits; `matching` makes pairs of them and says why.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Outcome = Literal["taken", "left", "refused"]


@dataclass(frozen=True)
class RawScan:
    """A scan as the hospital has it.

    Attributes
    ----------
    path
        NIfTI file, or an HDF5 file.
    inside
        Name of the dataset in an HDF5 file; empty for NIfTI.
    session
        The visit that it belongs to, for example "ses-M006".
    day
        Of acquisition, as days since any origin that is the same for all scans of a subject; None where
        it is not known.
    label
        What a person calls it: an image id, or the path below the dataset.
    units
        Of a PET as its metadata say ("Bq/mL", "SUVR"); empty where they say nothing.
    frame_seconds
        Length of each frame of a dynamic PET as its metadata say; empty where they say nothing.
    manufacturer
        Of the scanner as the metadata say; empty where they say nothing.
    """

    path: Path
    session: str
    day: float | None = None
    label: str = ""
    inside: str = ""
    units: str = ""
    frame_seconds: tuple[float, ...] = ()
    manufacturer: str = ""


@dataclass(frozen=True)
class Visit:
    """One session of one subject, as found.

    Attributes
    ----------
    subject, session
        "sub-0002", "ses-M006"; fit for folder names.
    diagnosis
        CN, MCI or Dementia; empty where unknown.
    rid
        The person behind the subject's name, ADNI's RID; empty where the name is the person.
    phase
        Study phase, for example "ADNI2"; empty outside such a study.
    clinical
        Raw values by the manifest's column names (see `data.manifest.CLINICAL`); None where missing.
    split
        Where the source already has splits (the published HDF5 files): train, valid or test.
    problems
        What keeps the session from being used, each one clear sentence.
    notes
        What was found and could not be taken, such as a PET of another tracer; told where nothing else was.
    """

    subject: str
    session: str
    site: str
    diagnosis: str
    mri: RawScan | None = None
    pet: RawScan | None = None
    phase: str = ""
    clinical: Mapping[str, float | None] = field(default_factory=dict)
    split: str | None = None
    problems: tuple[str, ...] = ()
    rid: str = ""
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Subject and session, as in BIDS file names."""
        return f"{self.subject}_{self.session}"


@dataclass(frozen=True)
class Pair:
    """An MRI and the PET nearest to it in time; `days_apart` is None where days are not known."""

    visit: Visit
    mri: RawScan
    pet: RawScan
    days_apart: float | None

    @property
    def name(self) -> str:
        """Subject and session of the MRI."""
        return self.visit.name


@dataclass(frozen=True)
class Decision:
    """What became of a session, and why.

    Attributes
    ----------
    outcome
        "taken"; "left" when nothing is wrong but there is nothing to train on (no PET within the limit);
        "refused" when something must be mended.
    """

    subject: str
    session: str
    outcome: Outcome
    reason: str
    mri: str = ""
    pet: str = ""
    days_apart: float | None = None
