# SPDX-License-Identifier: Apache-2.0
"""Checks of a site's store, its policy and its log: one is broken, and that one has a cross."""

from pathlib import Path

import pytest

from client import check as check_module
from client.audit import AuditLog
from client.checks.house import AUDIT, POLICY
from client.checks.machine import STORE
from client.kit import read_kit
from simulation.consortium import change_toml
from tests.support.checks import Scene, crosses, only


class TestData:
    def test_no_store(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        scene.change(store='"nowhere"')
        monkeypatch.setattr(check_module, "FINEST_MM", 3.0)  # what the stand-in knows
        assert "nowhere" in only(crosses(scene), STORE).found

    def test_another_sites_store(self, scene: Scene, tmp_path: Path) -> None:
        scene.change(store=f'"{tmp_path / "sites" / "birch"}"')
        found = only(crosses(scene), STORE)
        assert found.found == "it is site 'birch', the kit is for 'alder'"
        assert "--site alder" in found.advice

    def test_fewer_subjects_than_the_policy_wants(self, scene: Scene) -> None:
        change_toml(scene.kit / "policy.toml", {"min-subjects": "4"})
        assert "wants at least 4 to train" in only(crosses(scene), STORE).found

    def test_policy_that_cannot_be_read_hides_no_other_check(self, scene: Scene) -> None:
        change_toml(scene.kit / "policy.toml", {"max-rounds": '"many"'})
        assert "max-rounds" in only(crosses(scene), POLICY).found + only(crosses(scene), POLICY).advice

    def test_policy_that_wants_privacy(self, scene: Scene) -> None:
        change_toml(scene.kit / "policy.toml", {"privacy-required": "true"})
        assert not [c for c in crosses(scene) if c.check == POLICY]

    def test_log_that_was_changed(self, scene: Scene) -> None:
        kit = read_kit(scene.kit)
        log = AuditLog(kit.guard.audit, site="alder", consortium="north-sea")
        for number in range(3):
            log.append({"event": "noted", "what": number})
        assert crosses(scene) == {}
        text = kit.guard.audit.read_text()
        kit.guard.audit.write_text(text.replace('"what":1', '"what":7'))
        assert "line 2" in only(crosses(scene), AUDIT).found
