# SPDX-License-Identifier: Apache-2.0
"""The control path of our SuperLink: which keys it knows, and which runs are not over.

Flower's command lines tell neither the key of a node nor the settings of a run, so both are asked for
directly. The path is open to whoever reaches the SuperLink's port: it listens on this machine only, and
the proxy before it lets nothing but the sites' own path through.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor

from pasta_model.errors import FederationError
from server.deployment.flower import Flower
from server.invitations import key_fingerprint

ONLINE, UNREGISTERED = "online", "unregistered"
FINISHED = "finished"


@dataclass(frozen=True)
class Node:
    """A node that the SuperLink knows: its number, its name, how it stands, and since when it is here."""

    number: int
    name: str
    status: str
    activated: str

    @classmethod
    def of(cls, info: NodeInfo) -> Self:
        """Take what matters here of what Flower tells."""
        return cls(info.node_id, info.name, info.status, info.last_activated_at)


@dataclass(frozen=True)
class Run:
    """A run that the SuperLink knows, and where it writes."""

    number: int
    output: str
    status: str


class Control:
    """Asks and tells a SuperLink.

    Parameters
    ----------
    flower
        Where it is.
    """

    def __init__(self, flower: Flower) -> None:
        self._client = ControlHttpClient.from_server_address(
            flower.address,
            insecure=flower.authority is None,
            root_certificates=flower.authority.read_bytes() if flower.authority else None,
            interceptors=[RuntimeVersionHttpInterceptor("pasta-server")],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def nodes(self) -> dict[str, Node]:
        """Return every node, by the SHA-256 of its public key."""
        with _explained():
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return {key_fingerprint(info.public_key): Node.of(info) for info in found}

    def register(self, name: str, public_key: str) -> None:
        """Let the node with this OpenSSH public key come."""
        key = load_ssh_public_key(public_key.encode())
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        with _explained():
            self._client.RegisterNode(RegisterNodeRequest(public_key=pem, name=name))

    def unregister(self, number: int) -> None:
        """Let a node come no more; Flower never takes its key again."""
        with _explained():
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=number))

    def unfinished_runs(self) -> list[Run]:
        """Return the runs that the SuperLink believes to be running or waiting."""
        with _explained():
            found = self._client.ListRuns(ListRunsRequest()).run_dict.values()
        runs = [Run(r.run_id, r.override_config["run.output"].string, r.status.status) for r in found]
        return [run for run in runs if run.status != FINISHED]

    def stop(self, number: int) -> None:
        """Stop a run."""
        with _explained():
            self._client.StopRun(StopRunRequest(run_id=number))


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what the SuperLink answers, or that it does not, into a user's message."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        known = FlowerError.from_json(error.response.text)
        reason = known.message if known else error.response.text
        raise FederationError(f"Flower's SuperLink refused: {reason}") from error
    except httpx.HTTPError as error:
        raise FederationError(
            f"Flower's SuperLink does not answer ({error}); start it with 'pasta-server superlink DIR'"
        ) from error
