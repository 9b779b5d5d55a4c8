# SPDX-License-Identifier: Apache-2.0
"""Checks of a site's keys and certificates: one is broken, and that one has a cross."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.checks.secrets import CERTIFICATE, CERTIFICATE_KEY, NODE_KEY, check_certificate
from client.checks.server import CLOCK, SERVER
from client.kit import read_kit
from tests.support.checks import Scene, crosses, make_consortium, only


class TestKeys:
    @pytest.mark.parametrize(
        ("name", "check"), [("node.key", NODE_KEY), ("client.key", CERTIFICATE_KEY)], ids=["node", "client"]
    )
    def test_others_can_read_a_key(self, scene: Scene, name: str, check: str) -> None:
        key = scene.kit / "keys" / name
        key.chmod(0o640)
        assert only(crosses(scene), check).advice == f"chmod 600 {key}"

    def test_node_key_that_is_none(self, scene: Scene) -> None:
        (scene.kit / "keys" / "node.key").write_text("-----BEGIN NOTHING-----\n")
        assert "wanted an elliptic curve's" in only(crosses(scene), NODE_KEY).found

    def test_key_of_another_certificate(self, scene: Scene) -> None:
        shutil.copy(scene.house / "kits" / "birch" / "keys" / "client.key", scene.kit / "keys")
        found = crosses(scene)
        assert found[CERTIFICATE_KEY].found == "it belongs to another certificate"
        assert list(found) == [CERTIFICATE_KEY, SERVER, CLOCK], "with it nobody can be called"

    def test_certificate_of_another_site(self, scene: Scene) -> None:
        for name in ("client.key", "client.crt"):
            shutil.copy(scene.house / "kits" / "birch" / "keys" / name, scene.kit / "keys")
        assert only(crosses(scene), CERTIFICATE).found == "it is for birch, the kit for alder"

    def test_certificate_of_another_authority(self, scene: Scene, tmp_path: Path) -> None:
        other = make_consortium(tmp_path / "south-sea")
        for name in ("client.key", "client.crt"):
            shutil.copy(other / "kits" / "alder" / "keys" / name, scene.kit / "keys")
        found = crosses(scene)
        assert found[CERTIFICATE].found == "it was not signed by keys/ca.crt"
        assert list(found) == [CERTIFICATE, SERVER, CLOCK]
        assert "refused the connection" in found[SERVER].found

    @pytest.mark.parametrize(
        ("days", "good", "said"),
        [(-2, False, "not valid before"), (340, True, ""), (366, False, "it expired on")],
    )
    def test_certificate_in_time(self, scene: Scene, days: int, good: bool, said: str) -> None:
        keys = read_kit(scene.kit).keys
        then = datetime.now(UTC) + timedelta(days=days)
        own = {"key": keys.certificate_key, "authority": keys.authority, "site": "alder"}
        found = next(check_certificate(keys.certificate, **own, now=then))
        assert found.good == good
        assert said in found.found
        assert found.advice.startswith("soon: ") == (days == 340), "in its last month a tick says so, too"
