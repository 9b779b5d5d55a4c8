# SPDX-License-Identifier: Apache-2.0
"""`pasta-server provision`, add-site, renew-site, renew-server, revoke-site: as a person types them."""

import subprocess
import sys
from pathlib import Path

import pytest

PLAN = '[consortium]\nname = "n"\nnames = ["localhost"]\n[[sites]]\nname = "alder"\n'


def pasta_server(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from server.cli import main; main()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "consortium.toml"
    path.write_text(PLAN, encoding="utf-8")
    return path


def test_a_consortium_from_its_first_day_to_its_last(tmp_path: Path, plan: Path) -> None:
    def done(*words: str) -> str:
        ran = pasta_server(*words, cwd=tmp_path)
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout

    said = done("provision", plan.name, "dir")
    assert all(word in said for word in ("valid until", "authority", "server", "site alder", "dir/kits"))
    assert "hand dir/kits/birch over" in done(
        "add-site", "dir", "birch", "--max-subjects", "9", "--contact", "B"
    )
    assert "old node key" not in done("renew-site", "dir", "alder")
    assert "old node key" in done("renew-site", "dir", "alder", "--node-key")
    assert "superlink dir" in done("renew-server", "dir")
    reload = f"nginx -p {tmp_path / 'dir' / 'server'} -c nginx.conf -s reload"
    assert reload in done("revoke-site", "dir", "birch")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("provision", "consortium.toml", "."), "nothing is overwritten"),
        (("provision", "nowhere.toml", "dir"), "nowhere.toml: cannot be read"),
        (("add-site", ".", "birch"), "no consortium here"),
        (("add-site", ".", "bir/ch"), "found 'bir/ch'"),
        (("renew-site", ".", "alder"), "no consortium here"),
        (("renew-server", "."), "no consortium here"),
        (("revoke-site", ".", "alder"), "no consortium here"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(
    tmp_path: Path, plan: Path, words: tuple[str, ...], message: str
) -> None:
    ran = pasta_server(*words, cwd=tmp_path)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["consortium.toml"]


def test_every_problem_of_a_plan_is_a_line(tmp_path: Path, plan: Path) -> None:
    plan.write_text(PLAN.replace("localhost", "a b") + "max-subject = 1\n", encoding="utf-8")
    ran = pasta_server("provision", plan, tmp_path / "dir", cwd=tmp_path)
    assert ran.returncode == 2
    assert "2 problem(s)" in ran.stderr
    assert not (tmp_path / "dir").exists()
