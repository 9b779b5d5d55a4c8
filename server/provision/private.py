# SPDX-License-Identifier: Apache-2.0
"""Files and folders that only their owner reads, from the moment they exist."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pasta_model.errors import ConfigError


def write_private(target: Path, content: bytes) -> None:
    """Write `content` to `target` atomically, readable by its owner alone (0600)."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".partial-")  # made with 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_private_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder of its owner alone (0700); it becomes `target`, which must not be there.

    Raises
    ------
    ConfigError
        When `target` is there already, or cannot be made.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".partial-"))  # made with 0700
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be made ({error.strerror or error}); choose another place"
        ) from error
    try:
        yield temporary
        if target.exists() or target.is_symlink():
            raise ConfigError(f"{target}: is there already, and nothing is overwritten")
        temporary.rename(target)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_private_folder(folder: Path) -> None:
    """Remove a folder with the keys in it, if it is there; stopped halfway, the same call removes the rest.

    Raises
    ------
    ConfigError
        When something of it cannot be removed.
    """
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be removed ({error.strerror or error})") from error
