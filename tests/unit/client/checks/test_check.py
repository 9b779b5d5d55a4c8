# SPDX-License-Identifier: Apache-2.0
"""`pasta-client check`: ticks where a site is ready, crosses where it is not, and as programs read them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import client.cli
from client import check as check_module
from client.check import KIT, check_site
from client.checks.finding import Finding
from client.checks.house import AUDIT, LEDGER, VERSIONS
from client.checks.machine import STORE
from client.checks.secrets import NODE_KEY
from client.checks.server import CLOCK
from tests.support.checks import EVERYTHING, Scene, crosses


def test_site_that_is_ready_has_ticks_only(scene: Scene) -> None:
    assert crosses(scene) == {}
    found = {finding.check: finding.found for finding in check_site(scene.kit)}
    assert found[STORE] == "subjects: 3 train, 1 valid, 0 test; 3 mm"
    assert found[NODE_KEY] == "secp384r1, readable by its owner only"
    assert found[AUDIT] == "empty so far"
    assert found[LEDGER] == "empty so far: no private run was here"
    assert "torch" in found[VERSIONS]


def test_check_that_breaks_is_a_cross_and_hides_no_other(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path) -> Iterator[Finding]:
        raise RuntimeError("what nobody thought of")
        yield

    monkeypatch.setattr(check_module, "check_node_key", broken)
    scene.door.clock_s = 400
    found = crosses(scene)
    assert list(found) == [NODE_KEY, CLOCK]
    assert found[NODE_KEY].found == "RuntimeError: what nobody thought of"


def test_kit_that_cannot_be_read(tmp_path: Path) -> None:
    (found,) = check_site(tmp_path)
    assert (found.check, found.good) == (KIT, False)
    assert "cannot be read" in found.found


class TestCommand:
    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        def run(*words: object) -> tuple[int, str]:
            monkeypatch.setenv("COLUMNS", "300")
            monkeypatch.setattr(sys, "argv", ["pasta-client", "check", *map(str, words)])
            with pytest.raises(SystemExit) as stop:
                client.cli.main()
            return int(stop.value.code or 0), capsys.readouterr().out

        return run

    def test_ready(self, scene: Scene, run) -> None:
        status, out = run(scene.kit)
        assert status == 0
        assert out.count("✓") == len(EVERYTHING)
        assert "✗" not in out
        assert "ready to join" in out

    def test_not_ready(self, scene: Scene, run) -> None:
        scene.door.clock_s = 400
        (scene.kit / "keys" / "node.key").chmod(0o644)
        status, out = run(scene.kit)
        assert (status, out.count("✗")) == (2, 2)
        assert "chmod 600" in out
        assert "timedatectl" in out
        assert "not ready: 2 cross(es)" in out

    def test_for_programs(self, scene: Scene, run) -> None:
        status, out = run(scene.kit, "--json")
        told = json.loads(out)
        assert (status, told["ready"]) == (0, True)
        assert [finding["check"] for finding in told["findings"]] == EVERYTHING
