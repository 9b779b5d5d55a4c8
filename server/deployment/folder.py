# SPDX-License-Identifier: Apache-2.0
"""The folder of a consortium as a deployment reads it: where the SuperLink is, and who is invited."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pasta_model.errors import FederationError, Problems
from server.deployment.flower import Flower, quiet_environment
from server.provision.consortium import read_consortium
from server.provision.registry import INVITED, Invited, read_invited

LOOPBACK = "127.0.0.1"
_NEEDED = (
    "consortium.toml",
    "server/ca.crt",
    "server/server.crt",
    "server/server.key",
    f"server/{INVITED}",
)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A consortium's folder, complete, and the Flower that serves it.

    Attributes
    ----------
    folder
        As `pasta-server provision` made it.
    flower
        Its SuperLink; its files are in `server/flower`.
    """

    folder: Path
    flower: Flower

    @classmethod
    def at(cls, folder: Path) -> Self:
        """Open a consortium's folder.

        Raises
        ------
        FederationError
            When something of it is missing.
        ConfigError
            When its `consortium.toml` cannot be used.
        """
        folder = folder.resolve()
        problems = Problems(f"{folder}: no consortium to deploy; make one with 'pasta-server provision'")
        for name in _NEEDED:
            if not (folder / name).is_file():
                problems.add(f"{name} is missing")
        problems.raise_if_any(FederationError)
        plan = read_consortium(folder / "consortium.toml").consortium
        state = folder / "server" / "flower"
        state.mkdir(mode=0o700, exist_ok=True)
        flower = Flower(
            state=state,
            address=f"{LOOPBACK}:{plan.superlink_port}",
            authority=folder / "server" / "ca.crt",
            environment=quiet_environment(state),
        )
        return cls(folder=folder, flower=flower)

    @property
    def invited(self) -> Path:
        """The list of invited sites."""
        return self.folder / "server" / INVITED

    @property
    def database(self) -> Path:
        """Where the SuperLink keeps nodes, runs and messages."""
        return self.folder / "server" / "state.db"

    def guests(self) -> dict[str, Invited]:
        """Return the invited sites, by name.

        Raises
        ------
        ConfigError
            When the list cannot be read.
        """
        return read_invited(self.folder / "server")
