# SPDX-License-Identifier: Apache-2.0
"""Checks of the server and its clock: one is broken, and that one has a cross."""

import shutil
from pathlib import Path

import pytest

from client.checks.secrets import CERTIFICATE
from client.checks.server import CLOCK, SERVER
from tests.support.checks import Door, Health, Scene, crosses, listen, make_consortium, only


class TestServer:
    @pytest.mark.parametrize(
        ("seconds", "good"), [(0, True), (200, True), (-2, True), (400, False), (-60, False)]
    )
    def test_clock(self, scene: Scene, seconds: float, good: bool) -> None:
        """The server's clock is so many seconds ahead of ours."""
        scene.door.clock_s = seconds
        found = crosses(scene)
        if good:
            assert found == {}
        else:
            said = f"s {'behind' if seconds > 0 else 'ahead of'} the server's"
            assert said in only(found, CLOCK).found

    @pytest.mark.parametrize(
        ("status", "said"),
        [
            (400, "does not take this site's certificate"),
            (502, "SuperLink behind it does not run"),
            (404, "answers 404"),
        ],
    )
    def test_answers_that_are_none(self, scene: Scene, status: int, said: str) -> None:
        scene.door.status = status
        assert said in only(crosses(scene), SERVER).found

    def test_nobody_listens(self, scene: Scene) -> None:
        scene.door.shutdown()
        scene.door.server_close()
        found = crosses(scene)
        assert list(found) == [SERVER, CLOCK]
        assert "cannot be reached" in found[SERVER].found

    def test_server_of_another_authority(self, scene: Scene, tmp_path: Path) -> None:
        other = make_consortium(tmp_path / "south-sea")
        shutil.copy(other / "authority" / "ca.crt", scene.kit / "keys" / "ca.crt")
        found = crosses(scene)
        assert list(found) == [CERTIFICATE, SERVER, CLOCK]
        assert "is not who it should be" in found[SERVER].found
        assert found[SERVER].advice.startswith("do not join")

    def test_server_under_another_name(self, scene: Scene) -> None:
        scene.change(address=f'"127.0.0.2:{scene.door.server_port}"')
        scene.door.socket.close()
        with Door(("127.0.0.2", scene.door.server_port), Health) as door:
            listen(door, scene.house)
            found = crosses(scene)
            door.shutdown()
        assert list(found) == [SERVER, CLOCK]
        assert "is not who it should be" in found[SERVER].found
