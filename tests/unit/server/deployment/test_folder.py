# SPDX-License-Identifier: Apache-2.0
"""The coordinator's folder, and how Flower's commands reach the SuperLink from it."""

import tomllib

import pytest

from pasta_model.errors import FederationError
from server.deployment.folder import Deployment


class TestFolder:
    def test_all_that_is_missing_is_told_at_once(self, deployment: Deployment) -> None:
        (deployment.folder / "server" / "server.key").unlink()
        deployment.invited.unlink()
        with pytest.raises(FederationError) as error:
            Deployment.at(deployment.folder)
        assert "2 problem(s)" in str(error.value)
        assert "server/server.key is missing" in str(error.value)

    def test_commands_trust_the_consortiums_authority_only(self, deployment: Deployment) -> None:
        deployment.flower.write_connection()
        connection = tomllib.loads((deployment.flower.state / "config.toml").read_text())["superlink"]
        authority = str(deployment.folder / "server" / "ca.crt")  # authority/ may be kept elsewhere
        assert connection["pasta"] == {"address": "127.0.0.1:12345", "root-certificates": authority}
        assert connection["default"] == "pasta"
