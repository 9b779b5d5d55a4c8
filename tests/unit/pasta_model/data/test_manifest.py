# SPDX-License-Identifier: Apache-2.0
"""The manifest: every way in which a table can be wrong, all reported at once."""

from dataclasses import replace
from pathlib import Path

import pytest

from pasta_model.data.manifest import Session, read_manifest, read_splits, write_splits
from pasta_model.errors import ManifestError

HEADER = ["participant_id", "session_id", "site", "diagnosis", "mri", "pet", "age", "sex", "mmse", "split"]
WIDE = [*HEADER, "rid", "phase"]
GOOD = ["sub-1", "bl", "A", "CN", "m.nii", "p.nii", "71.5", "F", "n/a", "train"]


@pytest.fixture
def table(tmp_path: Path):
    """Write a table; `m.nii` and `p.nii` exist beside it."""
    for name in ("m.nii", "p.nii"):
        (tmp_path / name).touch()

    def write(
        *rows: list[str], header: list[str] = HEADER, name: str = "participants.tsv", start: str = ""
    ) -> Path:
        mark = "," if name.endswith(".csv") else "\t"
        text = start + "\n".join(mark.join(row) for row in (header, *rows)) + "\n"
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def changed(**cells: str) -> list[str]:
    return [cells.get(name, value) for name, value in zip(HEADER, GOOD, strict=True)]


def problems(path: Path, **options: bool) -> list[str]:
    with pytest.raises(ManifestError) as error:
        read_manifest(path, **options)
    return str(error.value).splitlines()[1:]


@pytest.mark.parametrize("name", ["participants.tsv", "participants.csv"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_good_row(table, tmp_path: Path, name: str, start: str) -> None:
    (session,) = read_manifest(table(GOOD, name=name, start=start))
    clinical = {"age": 71.5, "sex": 1.0, "education": None, "mmse": None, "adas13": None, "apoe4": None}
    assert session == Session(
        "sub-1", "bl", "A", "CN", tmp_path / "m.nii", tmp_path / "p.nii", clinical, "train"
    )
    assert session.name == "sub-1_bl"


def test_every_bad_row_at_once(table) -> None:
    path = table(
        GOOD,
        changed(participant_id="sub-2", mri="gone.nii"),
        changed(participant_id="sub-3", pet="n/a"),
        changed(participant_id="sub-4", diagnosis="AD"),
        changed(participant_id="sub-5", age="171"),
        changed(participant_id="sub-6", mmse="many"),
        changed(participant_id="sub-7", sex="X"),
        changed(participant_id="sub-8", split="dev"),
        changed(participant_id="", site="n/a"),
        changed(participant_id="sub-10", age="nan"),
        GOOD,
    )
    found = problems(path)
    wanted = [
        "line 3 (sub-2): MRI .*gone.nii does not exist",
        "line 4 (sub-3): no PET",
        "line 5 (sub-4): diagnosis 'AD', wanted one of CN, MCI, Dementia",
        "line 6 (sub-5): age '171', wanted a number from 18 to 120",
        "line 7 (sub-6): mmse 'many', wanted a number from 0 to 30",
        "line 8 (sub-7): sex 'X', wanted F or M",
        "line 9 (sub-8): split 'dev', wanted one of train, valid, test",
        "line 10 (no participant_id): participant_id is missing",
        "line 10 (no participant_id): site is missing",
        "line 11 (sub-10): age 'nan'",
        "sub-1_bl: found in 2 rows",
    ]
    assert len(found) == len(wanted)
    for line, start in zip(found, wanted, strict=True):
        for part in start.split(".*"):
            assert part in line


def test_line_numbers_are_those_of_an_editor(table, tmp_path: Path) -> None:
    path = table(GOOD, ["", *GOOD[1:]])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1], "", lines[2]]))
    assert problems(path)[0].startswith("  - line 4 ")


def test_empty_table(table) -> None:
    assert "at least one row" in problems(table())[0]


def test_file_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("")
    assert len(problems(tmp_path / "a.tsv")) == 6


def test_missing_columns_are_all_named(table) -> None:
    found = problems(table(GOOD[:4], header=HEADER[:4]))
    assert [line.split("'")[1] for line in found] == ["mri", "pet"]


def test_unknown_column_gets_a_hint(table) -> None:
    header = [{"mmse": "mmes"}.get(name, name) for name in HEADER]
    (line,) = problems(table(GOOD, header=header))
    assert "'mmes' is unknown; did you mean 'mmse'?" in line


def test_unknown_column_does_not_hide_bad_rows(table) -> None:
    header = [{"mmse": "mmes"}.get(name, name) for name in HEADER]
    assert len(problems(table(changed(diagnosis="AD"), header=header))) == 2


def test_column_twice(table) -> None:
    (line,) = problems(table([*GOOD, "A"], header=[*HEADER, "site"]))
    assert "'site': found 2 times" in line


def test_spaces_around_names_and_values_do_no_harm(table) -> None:
    header = [HEADER[0], *(f" {name}" for name in HEADER[1:])]
    row = [GOOD[0], *(f" {value}" for value in GOOD[1:])]
    assert read_manifest(table(row, header=header, name="a.csv"))[0].site == "A"


def test_row_with_too_many_cells_is_refused(table) -> None:
    # 'Doe, Ann' without quotes moves every later cell by one.
    assert problems(table([*GOOD, "train"], name="a.csv"))


def test_pet_is_not_needed_for_synthesis(table) -> None:
    assert read_manifest(table(changed(pet="n/a")), needs_pet=False)[0].subject == "sub-1"
    assert "gone.nii" in problems(table(changed(mri="gone.nii", pet="n/a")), needs_pet=False)[0]


@pytest.mark.parametrize("text", [None, b"\xff\xfe\x00"])
def test_unreadable_table(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "a.tsv").write_bytes(text)
    with pytest.raises(ManifestError, match=r"a\.tsv: (cannot be read|not UTF-8)"):
        read_manifest(tmp_path / "a.tsv")


class TestWhoItIs:
    def test_rid_and_phase_are_read(self, table) -> None:
        (session,) = read_manifest(table([*GOOD, "0002", "ADNI2"], header=WIDE))
        assert (session.rid, session.phase, session.person) == ("0002", "ADNI2", "rid:2")

    @pytest.mark.parametrize("cell", ["", "n/a"])
    def test_without_them_the_subject_is_the_person(self, table, cell: str) -> None:
        row = [*changed(split=cell), cell, cell]
        (session,) = read_manifest(table(row, header=WIDE))
        assert (session.split, session.rid, session.phase, session.person) == (None, "", "", "sub-1")

    @pytest.mark.parametrize("rid", ["2", "0002", "2.0", "02.00"])
    def test_one_rid_is_spelt_in_many_ways(self, table, rid: str) -> None:
        (session,) = read_manifest(table([*GOOD, rid, ""], header=WIDE))
        assert session.person == "rid:2"

    def test_a_rid_is_never_taken_for_a_subject(self) -> None:
        subject = Session("2", "bl", "A", "CN", Path("m.nii"), Path("p.nii"))
        assert subject.person != replace(subject, rid="2").person == replace(subject, rid="02").person

    def test_words_that_are_no_names(self, table) -> None:
        found = problems(table([*GOOD, "2/3", "phase 2"], header=WIDE))
        assert "line 2 (sub-1): rid '2/3', wanted letters" in found[0]
        assert "line 2 (sub-1): phase 'phase 2', wanted letters" in found[1]

    def test_a_subject_of_two_rids(self, table) -> None:
        rows = [[*GOOD, "2", ""], [*changed(session_id="m12"), "3", ""], [*changed(session_id="m24"), "", ""]]
        (line,) = problems(table(*rows, header=WIDE))
        assert "sub-1: is rid:2 and rid:3; wanted one RID a participant_id" in line


class TestSplitTable:
    def test_comes_back(self, tmp_path: Path) -> None:
        splits = {"sub-2": "test", "sub-1": "train", "sub-3": "valid"}
        write_splits(tmp_path / "splits.tsv", splits)
        assert read_splits(tmp_path / "splits.tsv") == splits

    def test_subject_in_two_splits_and_unknown_split_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "splits.tsv"
        path.write_text("participant_id\tsplit\nsub-1\ttrain\nsub-2\tdev\nsub-1\ttest\n")
        with pytest.raises(ManifestError, match=r"(?s)2 problem.*sub-2: split 'dev'.*sub-1: in two splits"):
            read_splits(path)

    def test_other_columns(self, tmp_path: Path) -> None:
        (tmp_path / "s.tsv").write_text("subject\tsplit\n")
        with pytest.raises(ManifestError, match="wanted participant_id and split"):
            read_splits(tmp_path / "s.tsv")
