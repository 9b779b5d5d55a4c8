# SPDX-License-Identifier: Apache-2.0
"""The guard takes hold of Flower where it thinks it does, or Flower is not started."""

import importlib
import os
import socket
import ssl
import sys
from importlib.metadata import version

import pytest
from flwr.supernode import fleet_http_client, start_client_internal
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.nodestate import NodeState

from client.guard import supernode
from client.guard.gate import Gate
from client.guard.seams import PULL, PUSH, check_seams, guard_connection, guard_messages
from client.kit import Kit
from pasta_model.errors import AuditError, ConfigError, FederationError, PolicyError
from tests.support.guarded import open_log


def test_this_flower_is_known() -> None:
    check_seams()


def other_parameters(state, object_store, send, push_object, session) -> None:
    replies = state.get_messages_legacy, object_store.get_object_tree
    send(replies, state.get_message_processing_duration, state.delete_messages)


def other_way_out(state, object_store, send, push_object) -> None:
    for message in state.take_replies():
        send(message)


class TestAnotherFlowerIsNotStarted:
    def refused(self) -> str:
        with pytest.raises(
            PolicyError, match=r"not one that the site's guard knows.*starts with 1\.41"
        ) as error:
            check_seams()
        return str(error.value)

    def test_a_function_that_is_gone(self, monkeypatch) -> None:
        monkeypatch.delattr(start_client_internal, PUSH)
        assert f"{PUSH}: is not there" in self.refused()

    def test_a_function_that_takes_more(self, monkeypatch) -> None:
        monkeypatch.setattr(start_client_internal, PUSH, other_parameters)
        assert f"{PUSH}: takes session, too" in self.refused()

    def test_a_function_that_takes_less(self, monkeypatch) -> None:
        monkeypatch.setattr(start_client_internal, PULL, lambda state: None)
        assert f"{PULL}: takes no object_store, node_config" in self.refused()

    def test_a_function_that_gets_its_replies_elsewhere(self, monkeypatch) -> None:
        monkeypatch.setattr(start_client_internal, PUSH, other_way_out)
        assert f"{PUSH}: does not use get_messages_legacy" in self.refused()

    def test_a_loop_that_goes_past_the_gate(self, monkeypatch) -> None:
        monkeypatch.setattr(
            start_client_internal, "start_client_internal", lambda state_factory, server_address: None
        )
        assert f"start_client_internal: does not use {PULL}, {PUSH}" in self.refused()

    def test_a_state_with_another_method(self, monkeypatch) -> None:
        monkeypatch.delattr(NodeState, "get_messages_legacy")
        assert "NodeState.get_messages_legacy: is not there" in self.refused()

    def test_all_at_once(self, monkeypatch) -> None:
        monkeypatch.delattr(start_client_internal, PUSH)
        monkeypatch.delattr(start_client_internal, PULL)
        assert "2 problem(s)" in self.refused()


def test_the_loop_calls_the_gate(monkeypatch) -> None:
    for name in (PULL, PUSH):  # put back what it was, after the test
        monkeypatch.setattr(start_client_internal, name, getattr(start_client_internal, name))
    originals = [getattr(start_client_internal, name) for name in (PULL, PUSH)]
    seen = []
    guard_messages(
        lambda original, **words: seen.append((original, words)),
        lambda original, **words: seen.append((original, words)),
    )
    start_client_internal._pull_and_store_message(state=1)
    start_client_internal._push_messages(state=2)
    assert seen == [(originals[0], {"state": 1}), (originals[1], {"state": 2})]


class TestConnection:
    @pytest.fixture
    def context(self, monkeypatch) -> ssl.SSLContext:
        monkeypatch.setattr(
            FleetHttpClient,
            "from_server_address",
            vars(FleetHttpClient).get("from_server_address"),
            raising=False,
        )
        context = ssl.create_default_context()
        guard_connection(context)
        return context

    def connect(self, **changes) -> FleetHttpClient:
        words = {"server_address": "localhost:9443", "insecure": False, "root_certificates": b"CA"} | changes
        return fleet_http_client.FleetHttpClient.from_server_address(**words, interceptors=[])

    def test_it_is_made_with_the_sites_context(self, context, monkeypatch) -> None:
        made = []
        real = FleetHttpClient.__init__

        def note(self, *words, **named) -> None:
            made.append((words, named["verify"]))
            real(self, *words, **named)

        monkeypatch.setattr(FleetHttpClient, "__init__", note)
        self.connect()
        assert made == [(("https://localhost:9443",), context)]

    def test_it_is_never_sent_elsewhere(self, context) -> None:
        assert self.connect()._client.follow_redirects is False

    @pytest.mark.parametrize("change", [{"insecure": True}, {"root_certificates": None}])
    def test_it_is_not_made_without_the_consortiums_authority(self, context, change) -> None:
        with pytest.raises(PolicyError, match="is not made"):
            self.connect(**change)


class TestStart:
    @pytest.fixture
    def started(self, monkeypatch, restored_environment) -> list[list[str]]:
        """The words of each SuperNode that is started; none runs."""
        words: list[list[str]] = []
        module = importlib.import_module("flwr.supernode.cli.flower_supernode")
        monkeypatch.setattr(module, "flower_supernode", lambda: words.append(sys.argv))
        return words

    @pytest.fixture
    def kit(self, make_ready_kit) -> Kit:
        """A kit whose port is free."""
        kit = make_ready_kit()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return kit.model_copy(update={"guard": kit.guard.model_copy(update={"port": port})})

    def test_it_is_started_behind_the_gate(self, kit, started) -> None:
        originals = [getattr(start_client_internal, name) for name in (PULL, PUSH)]
        stale = kit.flower / "apps" / "pasta.other.0-1-0.12345678"
        stale.mkdir(parents=True)
        with pytest.raises(FederationError, match="the connection to the server has ended"):
            supernode.start(kit)
        assert started == [["flower-supernode", *supernode.arguments(kit)]]
        now = [getattr(start_client_internal, name) for name in (PULL, PUSH)]
        assert not set(now) & set(originals)
        assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
        assert not stale.exists()
        (entry,) = open_log(kit).entries()
        assert (entry["event"], entry["approved"], entry["flower"]) == ("started", [], version("flwr"))

    def test_an_unknown_flower_is_not_started(self, kit, started, monkeypatch) -> None:
        monkeypatch.delattr(start_client_internal, PUSH)
        with pytest.raises(PolicyError, match="is not there"):
            supernode.start(kit)
        assert started == []

    def test_a_port_that_is_taken_is_told(self, kit, started) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", kit.guard.port))
            other.listen()
            with pytest.raises(ConfigError, match=f"port {kit.guard.port} of this machine is taken"):
                supernode.start(kit)
        assert started == []

    def test_a_log_that_cannot_be_written_is_why_it_ended(self, kit, started, monkeypatch) -> None:
        monkeypatch.setattr(Gate, "failure", AuditError("the disk is full"), raising=False)
        monkeypatch.setattr(Gate, "__init__", lambda self, kit, log: None)
        with pytest.raises(AuditError, match="the disk is full"):
            supernode.start(kit)
