# SPDX-License-Identifier: Apache-2.0
"""Tables that cannot be used: what every command answers."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import Outcome
from tests.support.hospital import Hospital


def without_file(hospital: Hospital) -> str:
    hospital.scan(1, "mri").unlink()
    return rf"line 3 \(sub-02\): MRI {hospital.scan(1, 'mri')} does not exist; check the path"


def without_pet(hospital: Hospital) -> str:
    hospital.rows[0]["pet"] = "n/a"
    return r"line 2 \(sub-01\): no PET; give its path or leave the session out"


def with_unknown_column(hospital: Hospital) -> str:
    hospital.rows[0]["diagnose"] = "CN"
    return r"column 'diagnose' is unknown; did you mean 'diagnosis'\?"


def with_impossible_values(hospital: Hospital) -> str:
    hospital.rows[0] |= {"age": "7O", "sex": "2", "diagnosis": "AD"}
    return (
        r"(?s)3 problem.*diagnosis 'AD', wanted one of CN, MCI, Dementia.*age '7O', wanted a number"
        r".*sex '2', wanted F or M"
    )


def with_a_session_twice(hospital: Hospital) -> str:
    hospital.rows.append(dict(hospital.rows[0]))
    return r"sub-01_ses-1: found in 2 rows, wanted one row a session"


TABLES = (
    without_file,
    without_pet,
    with_unknown_column,
    with_impossible_values,
    with_a_session_twice,
)


CASES = [
    (command, spoil)
    for command in ("validate", "split", "store", "evaluate", "synthesize")
    for spoil in TABLES
    if (command, spoil) != ("synthesize", without_pet)  # a session to synthesise needs no PET
]


@pytest.mark.parametrize(("command", "spoil"), CASES, ids=lambda part: getattr(part, "__name__", part))
def test_table_that_cannot_be_used_is_refused_by_every_command(
    command: str,
    spoil: Callable[[Hospital], str],
    hospital: Hospital,
    splits: Path,
    model: Path,
    tmp_path: Path,
    refused: Callable[..., str],
) -> None:
    wanted = spoil(hospital)
    manifest, output = hospital.manifest, tmp_path / "output"
    words: dict[str, tuple[str | Path, ...]] = {
        "validate": (manifest,),
        "split": (manifest, "--output", output),
        "store": (manifest, output, "--splits", splits, "--spacing", "3"),
        "evaluate": (manifest, tmp_path, "--output", output),
        "synthesize": ("--model", model, manifest, output),
    }
    said = refused("pasta", command, *words[command])
    assert str(manifest) in said
    assert re.search(wanted, said), said


def test_table_with_nothing_below_its_header_is_refused(
    hospital: Hospital, splits: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    manifest = hospital.manifest
    manifest.write_text(manifest.read_text().splitlines()[0] + "\n")
    for words in (["validate", manifest], ["store", manifest, tmp_path / "store", "--splits", splits]):
        said = refused("pasta", *words)
        assert f"{manifest}: the manifest cannot be used" in said
        assert "found no subject; wanted at least one row below the header" in said


def test_table_that_is_not_there_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    said = refused("pasta", "validate", tmp_path / "nothing.tsv")
    assert f"{tmp_path / 'nothing.tsv'}: cannot be read (No such file or directory); check the path" in said


def test_all_bad_rows_of_a_table_are_told_at_once(hospital: Hospital, refused: Callable[..., str]) -> None:
    for number in range(3, 40):
        hospital.rows.append(dict(hospital.rows[0], participant_id=f"sub-{number}", mri="gone.nii"))
    hospital.rows.append(dict(hospital.rows[1], participant_id="sub-40", pet="", age="200"))
    said = refused("pasta", "validate", hospital.manifest)
    assert "39 problem(s)" in said
    assert said.count("gone.nii does not exist") == 37
    assert "line 41 (sub-40): no PET" in said
    assert "line 41 (sub-40): age '200'" in said


def test_subject_in_two_splits_of_the_manifest_is_refused(
    hospital: Hospital, refused: Callable[..., str]
) -> None:
    hospital.rows[0]["split"], hospital.rows[1]["split"] = "train", "test"
    hospital.rows.append(dict(hospital.rows[0], session_id="ses-2", split="test"))
    assert "sub-01: in splits test, train; wanted one" in refused("pasta", "validate", hospital.manifest)


def test_subject_in_two_splits_of_the_table_of_splits_is_refused(
    hospital: Hospital, splits: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    splits.write_text(splits.read_text() + "sub-01\ttest\nsub-02\tlater\n")
    said = refused("pasta", "store", hospital.manifest, tmp_path / "store", "--splits", splits)
    assert f"{splits}: the splits cannot be used: 3 problem(s)" in said
    assert "sub-01: in two splits, train and test; choose one" in said
    assert "sub-02: split 'later', wanted one of train, valid, test" in said


def test_subject_without_a_split_is_refused(
    hospital: Hospital, splits: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    hospital.admit("sub-03")
    hospital.admit("sub-04")
    said = refused("pasta", "store", hospital.manifest, tmp_path / "store", "--splits", splits)
    assert "2 problem(s)" in said
    assert "sub-03: has no split" in said
    assert "sub-04: has no split" in said


def test_subject_at_two_sites_is_refused(
    hospital: Hospital, tmp_path: Path, refused: Callable[..., str]
) -> None:
    other = Hospital(tmp_path / "other", hospital.write_scan)
    other.folder.mkdir()
    other.admit("sub-02", site="birch")
    said = refused("pasta", "split", hospital.manifest, other.manifest, "--output", tmp_path / "new.tsv")
    assert "sub-02: at sites alder, birch; wanted one" in said


@pytest.mark.parametrize("column", ["participant_id", "age"])
def test_blanks_around_the_name_of_a_column_do_not_matter(
    column: str, hospital: Hospital, splits: Path, tmp_path: Path, call: Callable[..., Outcome]
) -> None:
    manifest = hospital.manifest
    manifest.write_text(manifest.read_text().replace(column, f" {column} ", 1))
    store = tmp_path / "store"
    assert call("pasta", "store", manifest, store, "--splits", splits, "--spacing", "3").status == 0
    entries = json.loads((store / "index.json").read_text())["entries"]
    assert [entry["clinical"]["age"] for entry in entries] == [70.5, 70.5]


def test_leak_names_the_table_it_was_found_in(hospital: Hospital, refused: Callable[..., str]) -> None:
    hospital.rows.append(dict(hospital.rows[0], session_id="ses-2", split="test"))
    hospital.rows[0]["split"] = "train"
    assert str(hospital.folder / "participants.tsv") in refused("pasta", "validate", hospital.manifest)
