# SPDX-License-Identifier: Apache-2.0
"""Whole files or none."""

import json
from pathlib import Path

import pytest

from pasta_model import files
from pasta_model.errors import ConfigError
from pasta_model.files import (
    atomic_directory,
    atomic_path,
    refuse_input_as_output,
    write_json,
    write_text,
)


class DiskFullError(Exception):
    pass


def test_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "scan.nii.gz"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.name.endswith(".nii.gz")
        assert temporary.parent == target.parent
    assert target.read_text() == "half"
    assert list(target.parent.iterdir()) == [target]


def test_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "table.tsv"
    write_text(target, "old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise DiskFullError

    with pytest.raises(DiskFullError):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"é": [1, 2]})
    with pytest.raises(TypeError):
        write_json(target, {"x": object()})
    assert json.loads(target.read_text(encoding="utf-8")) == {"é": [1, 2]}
    assert list(tmp_path.iterdir()) == [target]


def test_directory_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "store"
    for name in ("one", "two"):
        with atomic_directory(target) as work:
            (work / name).touch()
    assert [p.name for p in target.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [target]


def test_failing_directory_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "store"
    with atomic_directory(target) as work:
        (work / "one").touch()

    def fail() -> None:
        with atomic_directory(target) as work:
            (work / "two").touch()
            raise DiskFullError

    with pytest.raises(DiskFullError):
        fail()
    assert [p.name for p in target.iterdir()] == ["one"]
    assert list(tmp_path.iterdir()) == [target]


def test_link_to_a_folder_stays_and_its_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk" / "old").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "old")
    with atomic_directory(tmp_path / "out") as work:
        (work / "one").touch()
    assert (tmp_path / "out").is_symlink()
    assert [p.name for p in (tmp_path / "disk" / "old").iterdir()] == ["one"]
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["old"]


def test_folder_of_the_shell_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="the folder of this shell"), atomic_directory(Path()):
        pass


def test_mounted_disk_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match=r"mounted disk.*name a folder in it"),
        atomic_directory(Path("/proc")),
    ):
        pass


def test_folder_that_cannot_be_renamed_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(ConfigError, match="resource busy"), atomic_directory(tmp_path / "out"):
        pass
    assert not list(tmp_path.iterdir())


def test_folder_that_goes_is_never_seen_half_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "round"
    (folder / "deep").mkdir(parents=True)

    def killed(path: Path, **_: object) -> None:
        assert not folder.exists()
        assert path.name.startswith(".partial-")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            files.remove_folder(folder)
    assert len(list(tmp_path.iterdir())) == 1
    files.clear_partial(tmp_path)
    assert not list(tmp_path.iterdir())


def test_only_what_is_half_written_is_cleared(tmp_path: Path) -> None:
    for name in (".partial-folder", "round-00001"):
        (tmp_path / name).mkdir()
    for name in (".partial-x.json", "state.json", ".hidden"):
        (tmp_path / name).touch()
    files.clear_partial(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "round-00001", "state.json"]
    files.clear_partial(tmp_path / "nowhere")


def test_what_is_read_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "table.tsv").write_text("people")
    (tmp_path / "link.tsv").symlink_to(tmp_path / "table.tsv")
    with pytest.raises(ConfigError, match="would be written over"):
        refuse_input_as_output(tmp_path / "link.tsv", [tmp_path / "other", tmp_path / "table.tsv"])
    refuse_input_as_output(tmp_path / "new.tsv", [tmp_path / "table.tsv"])
