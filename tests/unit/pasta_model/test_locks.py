# SPDX-License-Identifier: Apache-2.0
"""One process at a time, whatever happens to it."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pasta_model.errors import BusyError, ConfigError
from pasta_model.locks import only_one


def test_lock_is_let_go_when_its_holder_is_killed(tmp_path: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from pasta_model.locks import only_one\n"
        "with only_one(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "run")]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BusyError, match="another process"), only_one(tmp_path / "run"):
            pass
        with only_one(tmp_path / "another"):
            pass
        holder.kill()
    with only_one(tmp_path / "run"):
        pass


def test_waits_for_a_holder_that_ends(tmp_path: Path) -> None:
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with only_one(tmp_path / "run"):
            held.set()
            leave.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    threading.Timer(0.3, leave.set).start()
    with only_one(tmp_path / "run", wait_s=600.0):
        assert leave.is_set()
    holder.join()


def test_lock_inside_a_folder_makes_it_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with (
        only_one(out, inside=True),
        pytest.raises(BusyError, match="out: another process"),
        only_one(out, inside=True),
    ):
        pass
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose another place"), only_one(tmp_path / "file" / "run"):
        pass
