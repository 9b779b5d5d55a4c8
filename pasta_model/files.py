# SPDX-License-Identifier: Apache-2.0
"""Whole files or none: write under a temporary name, then rename."""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pasta_model.errors import ConfigError


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it to `target` when the block succeeds.

    The temporary name keeps the suffixes of the target, because writers choose their format
    by them. When the block fails, the temporary file is removed and `target` is untouched.
    """
    if target.is_dir():
        raise ConfigError(f"{target}: is a folder, wanted a file; choose another name")
    temporary: Path | None = None
    try:
        _make_folder(target.parent)
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=".partial-", suffix="".join(target.suffixes[-2:])
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise ConfigError(_unwritable(target, error)) from error
    except SafetensorError as error:  # its writer has errors of its own for a full disk
        raise ConfigError(
            f"{target}: cannot be written ({error}); free the space, or choose another place"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Yield a temporary directory; it replaces `target` whole when the block succeeds.

    Where `target` is a link to a folder, that folder is replaced, and the link stays.
    """
    refuse_irreplaceable(target)
    target = target.resolve()
    try:
        _make_folder(target.parent)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".partial-"))
    except OSError as error:
        raise ConfigError(_unwritable(target, error)) from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        _replace(target, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(target: Path, ready: Path) -> None:
    try:
        if target.exists():
            remove_folder(target)
        ready.rename(target)
    except OSError as error:
        raise ConfigError(_unwritable(target, error)) from error


def remove_folder(folder: Path) -> None:
    """Remove a folder so that it is never seen half-removed: rename it first, then empty it."""
    aside = folder.with_name(f".partial-{uuid.uuid4().hex[:8]}")
    folder.rename(aside)
    shutil.rmtree(aside)


def clear_partial(folder: Path) -> None:
    """Remove what a killed process left half-written in a folder that nobody else writes to."""
    for left in folder.glob(".partial-*"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder for outputs before any work is done for it; nothing is written.

    Raises
    ------
    ConfigError
        When a file is in the way, or the folder cannot be written.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ConfigError(f"{folder}: {there} is a file, wanted a folder; choose another name")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: {there} cannot be written; choose another folder")


def refuse_input_as_output(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over a file that is read.

    Raises
    ------
    ConfigError
        When the output is one of the inputs.
    """
    if output.exists() and any(given.exists() and given.samefile(output) for given in inputs):
        raise ConfigError(f"{output}: is read here, and would be written over; choose another output")


def refuse_irreplaceable(folder: Path) -> None:
    """Refuse, before any work is done for it, a folder that could not be replaced whole.

    Raises
    ------
    ConfigError
        When a file is in the way, the folder is mounted or the shell stands in it, or what holds it cannot be
        written.
    """
    place = folder.resolve()
    if place.is_mount():
        raise ConfigError(f"{folder}: is a mounted disk, which cannot be replaced; name a folder in it")
    if Path.cwd().is_relative_to(place):
        raise ConfigError(f"{folder}: is the folder of this shell, which cannot be replaced; name another")
    if place.is_file():
        raise ConfigError(f"{folder}: is a file, wanted a folder; choose another name")
    refuse_unwritable(place.parent)


def _unwritable(target: Path, error: OSError) -> str:
    return f"{target}: cannot be written ({error.strerror or error}); free the space, or choose another place"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"{folder}: a file is where a folder is wanted; choose another name") from error


def _umask() -> int:
    """Return what this user takes away from new files' permissions; scans stay as private as wanted."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_text(target: Path, text: str) -> None:
    """Write `text` to `target` atomically, in UTF-8."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, content: Any) -> None:
    """Write `content` to `target` atomically as indented JSON."""
    write_text(target, json.dumps(content, indent=2, sort_keys=True) + "\n")
