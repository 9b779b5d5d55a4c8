# SPDX-License-Identifier: Apache-2.0
"""Our plain reader of BIDS against pybids: the same T1 MRIs, FDG-PETs and metadata."""

import json
from pathlib import Path

import pytest
from bids import BIDSLayout

from pasta_model.prepare.bids import read_bids

SESSIONS = {"01": ("M000", "M006", "M012"), "02": ("M000",), "03": (), "ADNI011S0002": ("M000", "x")}
TRACERS = {"01": ("18FFDG", "11CPIB"), "02": ("18FAV45",), "03": ("18FFDG",), "ADNI011S0002": ("18FFDG",)}
SIDECARS = {
    "trc-18FFDG_pet.json": {"Units": "Bq/mL", "FrameDuration": [300, 300]},
    "trc-11CPIB_pet.json": {"Units": "SUV"},
    "sub-01/sub-01_trc-18FFDG_pet.json": {"FrameDuration": [60, 120, 300]},
    "sub-01/ses-M006/pet/sub-01_ses-M006_trc-18FFDG_pet.json": {"Units": "SUVR"},
    "sub-03/pet/sub-03_trc-18FFDG_pet.json": {"FrameDuration": [1800]},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset with and without sessions, of several tracers, sidecars at every level."""
    folder = tmp_path_factory.mktemp("bids")
    texts = {name: json.dumps(content) for name, content in SIDECARS.items()}
    texts["dataset_description.json"] = json.dumps({"Name": "made", "BIDSVersion": "1.9.0"})
    texts["participants.tsv"] = "participant_id\tsite\n" + "".join(f"sub-{s}\tA\n" for s in SESSIONS)
    for subject, sessions in SESSIONS.items():
        for session in sessions or ("",):
            place = f"sub-{subject}/" + (f"ses-{session}/" if session else "")
            stem = f"sub-{subject}" + (f"_ses-{session}" if session else "")
            texts |= dict.fromkeys((f"{place}anat/{stem}_T1w.nii.gz", f"{place}anat/{stem}_FLAIR.nii.gz"), "")
            texts |= {f"{place}pet/{stem}_trc-{tracer}_pet.nii.gz": "" for tracer in TRACERS[subject]}
    texts["derivatives/x/sub-02/ses-M000/pet/sub-02_ses-M000_trc-18FFDG_pet.nii.gz"] = ""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def layout(root: Path) -> BIDSLayout:
    return BIDSLayout(root)


@pytest.mark.parametrize(
    ("kind", "query"), [("mri", {"suffix": "T1w"}), ("pet", {"suffix": "pet", "tracer": "18FFDG"})]
)
def test_the_same_files_are_found(root: Path, layout: BIDSLayout, kind: str, query: dict[str, str]) -> None:
    wanted = {Path(path) for path in layout.get(return_type="file", extension=[".nii", ".nii.gz"], **query)}
    found = [getattr(visit, kind).path for visit in read_bids(root) if getattr(visit, kind)]
    assert sorted(found) == sorted(wanted)
    assert len(found) == {"mri": 7, "pet": 6}[kind]


def test_the_same_sessions_are_found(root: Path, layout: BIDSLayout) -> None:
    wanted = {
        (f"sub-{subject}", f"ses-{session}")
        for subject in layout.get_subjects()
        for session in layout.get_sessions(subject=subject) or ["M000"]
    }
    assert {(visit.subject, visit.session) for visit in read_bids(root)} == wanted


def test_the_same_metadata_are_inherited(root: Path, layout: BIDSLayout) -> None:
    pets = [visit.pet for visit in read_bids(root) if visit.pet]
    for pet in pets:
        wanted = layout.get_metadata(str(pet.path))
        assert (pet.units, list(pet.frame_seconds)) == (wanted["Units"], wanted["FrameDuration"]), pet.label
    assert [(pet.units, len(pet.frame_seconds)) for pet in pets] == [
        ("Bq/mL", 3), ("SUVR", 3), ("Bq/mL", 3), ("Bq/mL", 1), ("Bq/mL", 2), ("Bq/mL", 2),
    ]  # fmt: skip
