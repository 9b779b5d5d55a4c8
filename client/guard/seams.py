# SPDX-License-Identifier: Apache-2.0
"""Where the guard takes hold of Flower's SuperNode, and whether this Flower is one it was made for.

Flower has no door for a site's own rules, so three of its internals are replaced before it starts: how a
message comes in, how replies go out, and how the connection is made. Each is checked first. A Flower in
which one of them looks different is not started: no guard, no node.
"""

import importlib
import inspect
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pasta_model.errors import PolicyError, Problems

LOOP = "flwr.supernode.start_client_internal"
CONNECTION = "flwr.supernode.fleet_http_connection"
CLIENT = "flwr.supernode.fleet_http_client"
STATE = "flwr.supernode.nodestate"
STORE = "flwr.supercore.object_store"
TRIED = "1.41"

PULL, PUSH, CONNECT = "_pull_and_store_message", "_push_messages", "FleetHttpClient.from_server_address"


@dataclass(frozen=True)
class Seam:
    """A function of Flower's that the guard replaces or relies on: its parameters, and what it must use."""

    module: str
    name: str
    parameters: tuple[str, ...]
    uses: tuple[str, ...] = ()


SEAMS = (
    Seam(
        LOOP,
        PULL,
        (
            *("state", "object_store", "node_config", "receive", "get_run", "get_fab", "pull_object"),
            *("confirm_message_received", "trusted_entities"),
        ),
        ("get_run", "store_run", "store_fab", "store_message", "get_fused_config_from_fab"),
    ),
    Seam(
        LOOP,
        PUSH,
        ("state", "object_store", "send", "push_object"),
        ("get_messages_legacy", "get_object_tree", "get_message_processing_duration", "delete_messages"),
    ),
    Seam(LOOP, "start_client_internal", ("state_factory", "server_address"), (PULL, PUSH)),
    Seam(
        CLIENT,
        CONNECT,
        ("server_address", "insecure", "root_certificates", "interceptors", "retry_invoker"),
    ),
    Seam(
        CONNECTION, "http_request_response", ("server_address",), ("FleetHttpClient", "from_server_address")
    ),
    Seam(CLIENT, "FleetHttpClient.__init__", ("self", "base_url", "interceptors", "verify")),
    Seam(STATE, "NodeState.get_messages_legacy", ("self", "run_ids", "is_reply", "limit")),
    Seam(STATE, "NodeState.delete_messages", ("self", "message_ids")),
    Seam(STATE, "NodeState.get_run", ("self", "run_id")),
    Seam(STATE, "NodeState.get_fab", ("self", "fab_hash")),
    Seam(STATE, "NodeState.get_run_series_context", ("self", "series_id")),
    Seam(STORE, "ObjectStore.get", ("self", "object_id")),
    Seam(STORE, "ObjectStore.put", ("self", "object_id", "object_content")),
    Seam(STORE, "ObjectStore.get_object_tree", ("self", "object_id")),
    Seam(STORE, "ObjectStore.preregister", ("self", "run_id", "object_tree")),
    Seam(STORE, "ObjectStore.delete", ("self", "object_id")),
)


def check_seams() -> None:
    """Refuse a Flower that the guard was not made for.

    Raises
    ------
    PolicyError
        With a line for every function that is missing, or does not look as it should.
    """
    problems = Problems(
        f"this Flower ({version('flwr')}) is not one that the site's guard knows, so it is not started;"
        f" install one that starts with {TRIED}"
    )
    for seam in SEAMS:
        if wrong := _wrong_with(seam):
            problems.add(f"{seam.module}.{seam.name}: {wrong}")
    problems.raise_if_any(PolicyError)


def guard_messages(pull: Callable[..., int | None], push: Callable[..., None]) -> None:
    """Let `pull` and `push` stand between Flower's loop and what it would do itself.

    Both are called with Flower's own function first, and then as Flower calls that one.
    """
    for name, guarded in ((PULL, pull), (PUSH, push)):
        original = _found(LOOP, name)
        setattr(importlib.import_module(LOOP), name, _before(guarded, original))


def guard_connection(context: ssl.SSLContext) -> None:
    """Connect only as `context` says: to a server that the consortium knows, with the site's certificate.

    A server that answers "look elsewhere" is not followed: it could send a site's messages through the
    hospital's own network.
    """
    client = _found(CLIENT, "FleetHttpClient")

    def from_server_address(
        server_address: str, insecure: object, root_certificates: object, interceptors: Any, **others: Any
    ) -> Any:
        if insecure or root_certificates is None:
            raise PolicyError("a connection without the consortium's authority was asked for; it is not made")
        connected = client(f"https://{server_address}", interceptors=interceptors, verify=context, **others)
        vars(connected)["_client"].follow_redirects = False
        return connected

    client.from_server_address = staticmethod(from_server_address)


def _before(guarded: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    def call(**words: Any) -> Any:
        return guarded(original, **words)

    return call


def _found(module: str, name: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _wrong_with(seam: Seam) -> str:
    try:
        function = inspect.unwrap(_found(seam.module, seam.name))
    except (ImportError, AttributeError):
        return "is not there"
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(function).parameters
    if missing := [name for name in seam.parameters if name not in parameters]:
        return f"takes no {', '.join(missing)}"
    known = set(seam.parameters)
    if seam.name in (PULL, PUSH, CONNECT) and (more := [name for name in parameters if name not in known]):
        return f"takes {', '.join(more)}, too"
    code = getattr(function, "__code__", None)
    used = _names_used(code) if code else frozenset[str]()
    if unused := [name for name in seam.uses if name not in used]:
        return f"does not use {', '.join(unused)}"
    return ""


def _names_used(code: Any) -> frozenset[str]:
    """Names of globals and attributes that a function and the functions in it use."""
    inner = [_names_used(constant) for constant in code.co_consts if hasattr(constant, "co_names")]
    return frozenset(code.co_names).union(*inner) | set(code.co_varnames) | set(code.co_cellvars)
