# SPDX-License-Identifier: Apache-2.0
"""A privacy ledger notices what is done to it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.errors import PrivacyError
from pasta_model.privacy.accounting import Release
from tests.support.accounting import remember
from tests.support.ledgers import (
    PEOPLE,
    content,
    lines_of,
    opened,
    release,
    reserve,
    spent,
    write,
)


@pytest.fixture(autouse=True)
def each_history_is_accounted_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ledger of a run of two rounds."""
    ledger = opened(tmp_path)
    ledger.note_plan("first", PEOPLE, {"noise_multiplier": 1.1})
    for number in range(2):
        release(ledger, f"task-{number}", number=number)
    return tmp_path


def edit_noise(folder: Path) -> None:
    write(
        folder,
        [line.replace(b'"noise_multiplier":1.1', b'"noise_multiplier":9.1') for line in lines_of(folder)],
    )


def delete_line(folder: Path) -> None:
    write(folder, [line for line in lines_of(folder) if b'"reserved"' not in line or b"task-0" not in line])


def delete_last_line(folder: Path) -> None:
    write(folder, lines_of(folder)[:-1])


def delete_file(folder: Path) -> None:
    (folder / "ledger.jsonl").unlink()


def delete_head(folder: Path) -> None:
    (folder / "ledger.jsonl.head").unlink()


def delete_both(folder: Path) -> None:
    delete_file(folder)
    delete_head(folder)


def damage_head(folder: Path) -> None:
    (folder / "ledger.jsonl.head").write_text("{")


def empty_both(folder: Path) -> None:
    delete_head(folder)
    write(folder, [])


def begin_anew(folder: Path) -> None:
    """A new ledger that is as long as the old one, and says that less was spent."""
    delete_both(folder)
    witness = folder / "store/state/ledger.json"
    kept = witness.read_bytes()
    witness.unlink()
    ledger = opened(folder)
    for number in range(4):
        release(ledger, f"task-{number}", Release(50.0, 0.01, 1))
    witness.write_bytes(kept)


def damage_witness(folder: Path) -> None:
    (folder / "store/state/ledger.json").write_text("{")


def empty_witness(folder: Path) -> None:
    (folder / "store/state/ledger.json").write_text('{"lines": 0, "hash": ""}')


def negative_witness(folder: Path) -> None:
    (folder / "store/state/ledger.json").write_text('{"lines": -40, "hash": ""}')


def list_for_a_witness(folder: Path) -> None:
    (folder / "store/state/ledger.json").write_text("[]")


TAMPERINGS = [
    edit_noise,
    delete_line,
    delete_last_line,
    delete_file,
    delete_head,
    delete_both,
    damage_head,
    empty_both,
    begin_anew,
    damage_witness,
    empty_witness,
    negative_witness,
    list_for_a_witness,
]


class TestChanged:
    @pytest.mark.parametrize("tamper", TAMPERINGS)
    def test_it_is_noticed_and_nothing_is_released(
        self, folder: Path, tamper: Callable[[Path], None]
    ) -> None:
        already_open = opened(folder)
        tamper(folder)
        before = content(folder)
        with pytest.raises(PrivacyError) as error:
            opened(folder)
        said = str(error.value)
        assert str(folder) in said
        assert "put it back" in said, "it does not say what to do"
        assert "Nothing is released before" in said
        assert "\n" not in said
        with pytest.raises(PrivacyError), already_open.alone():
            raise AssertionError("a process that opened it before goes on")
        assert content(folder) == before, "a changed ledger is kept as it is found"

    @given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
    def test_whatever_byte_is_changed(self, ledger_for_all: Path, place: int, byte: int) -> None:
        path = ledger_for_all / "ledger.jsonl"
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[place % len(whole)] = byte
        try:
            path.write_bytes(bytes(changed))
            if bytes(changed) == whole:
                opened(ledger_for_all)
            else:
                with pytest.raises(PrivacyError):
                    opened(ledger_for_all)
        finally:
            path.write_bytes(whole)

    def test_older_copy_is_noticed(self, tmp_path: Path) -> None:
        release(opened(tmp_path), "1")
        copy = content(tmp_path)
        release(opened(tmp_path), "2")
        for name, found in copy.items():
            (tmp_path / name).write_bytes(found)
        with pytest.raises(PrivacyError, match=r"found 4 line\(s\), the store remembers 6.*put it back"):
            opened(tmp_path)

    def test_older_copy_that_went_on_is_noticed(self, tmp_path: Path) -> None:
        """Somebody trained on with an older copy elsewhere, and brought it back: as long, but another."""
        release(opened(tmp_path), "1")
        copy = content(tmp_path)
        release(opened(tmp_path), "2")
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        for name, found in copy.items():
            (elsewhere / name).write_bytes(found)
        release(opened(elsewhere), "3", Release(90.0, 0.01, 1))
        for name, found in content(elsewhere).items():
            (tmp_path / name).write_bytes(found)
        with pytest.raises(PrivacyError, match="taken away or replaced"):
            opened(tmp_path)

    def test_ledger_of_other_people_is_refused(self, folder: Path) -> None:
        with pytest.raises(PrivacyError, match=r"another data set.* 3 persons.* give this data set a ledger"):
            opened(folder, people=["sub-xi", "sub-yu"])
        opened(folder, people=["sub-xi", "sub-cyd"])  # people came and went, as they do

    def test_ledger_whose_witness_is_gone_says_what_was_spent(self, folder: Path) -> None:
        """Preparing the data anew takes the whole store away, and its memory with it."""
        wanted = spent(opened(folder))
        (folder / "store/state/ledger.json").unlink()
        assert spent(opened(folder)) == wanted
        reserve(opened(folder), "9")
        delete_last_line(folder)
        with pytest.raises(PrivacyError):
            opened(folder)


@pytest.fixture(scope="module")
def ledger_for_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger")
    release(opened(folder), "1")
    return folder
