# SPDX-License-Identifier: Apache-2.0
"""Who takes part: invited sites that answer for themselves, whenever they come; nobody else."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Message

from pasta_model.errors import FederationError
from pasta_model.exchange.contents import Parcel
from server import members
from server.invitations import key_fingerprint
from server.rounds import Federation
from server.wire import GridPost
from tests.support.grid import InProcessGrid
from tests.support.sites import (
    Sites,
    make_settings,
    parcel_of,
    prepared,
    refusing,
    weight,
    with_arrays,
    with_values,
)


def on_join(site: str, change: Callable[[Message, Parcel], Message | None]):
    def tamper(message: Message, reply: Message) -> Message | None:
        if message.metadata.message_type != "query.join" or parcel_of(message).values["site"] != site:
            return reply
        return change(message, parcel_of(reply))

    return tamper


def test_site_that_refuses_stays_out(run) -> None:
    _, folder = run(Sites("ABC"), tamper=on_join("C", refusing))
    assert weight(folder / "last.safetensors") == 14.0


def test_too_few_sites(run, tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"1 site\(s\) joined \(A\), wanted at least 2; not here: B"):
        run(tamper=on_join("B", refusing))
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "not here: B" in status["why"]
    assert not (tmp_path / "run" / "settings.json").exists()


def test_site_served_twice(run) -> None:
    with pytest.raises(FederationError, match="'A' is served by two nodes"):
        run(Sites("AA"))


BAD = {
    "another name": (with_values(site="B"), "calls itself 'B'"),
    "no training subject": (with_values(train_subjects=0), "no subject to train on"),
    "a million subjects": (
        with_values(train_subjects=1_000_000),
        "1,000,000 training subjects, allowed 20,000",
    ),
    "a further value": (with_values(subject="sub-1"), "holds"),
    "no digest": (with_values(holds="everything"), "SHA-256"),
    "another scheme": (with_arrays(count=np.ones(2), total=np.ones(2), squares=np.ones(2)), "3 columns"),
    "sums of text": (with_arrays(count=["a"] * 3, total=["b"] * 3, squares=["c"] * 3), "no numbers"),
    "complex sums": (with_arrays(**dict.fromkeys(("count", "total", "squares"), [1j] * 3)), "no numbers"),
    "negative squares": (with_arrays(count=[4.0] * 3, total=[1.0] * 3, squares=[-1.0] * 3), "impossible"),
    "more values than subjects": (
        with_arrays(count=[1e9] * 3, total=[1.0] * 3, squares=[1.0] * 3),
        "impossible",
    ),
    "ages of a galaxy": (with_arrays(count=[4.0] * 3, total=[1e300] * 3, squares=[1e300] * 3), "impossible"),
    "infinite sums": (with_arrays(count=[4.0] * 3, total=[np.inf] * 3, squares=[1.0] * 3), "NaN or infinity"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_report_keeps_one_site_out_not_all(run, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    change, reason = BAD[kind]
    sites = Sites("ABC")
    _, folder = run(sites, tamper=on_join("C", change))
    assert weight(folder / "last.safetensors") == 14.0
    assert "C" not in {name for name, _ in sites.trained}
    assert any("site C is left out" in text and reason in text for text in caplog.messages), caplog.messages


def test_site_may_bring_as_many_subjects_as_it_was_invited_with(run) -> None:
    with pytest.raises(FederationError, match=r"1 site\(s\) joined \(A\)"):
        run(federation__max_subjects=2)  # B has 3
    run(federation__max_subjects=3, output="enough")


def test_no_node(tmp_path: Path) -> None:
    prepared(tmp_path, "AB")
    grid = InProcessGrid(Sites().app, run_config={}, nodes=0)
    with pytest.raises(
        FederationError, match=r"0 site\(s\) joined \(none\), wanted at least 2; not here: A, B"
    ):
        Federation(GridPost(grid, deadline=1.0), make_settings(tmp_path, tmp_path / "run")).run()


class TestKeys:
    """In a deployment a node is whose key it has, whatever it says of itself."""

    @pytest.fixture
    def keys(self) -> dict[int, bytes]:
        return {
            node: ec.generate_private_key(ec.SECP384R1())
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            for node in (1, 2, 3)
        }

    @pytest.fixture
    def invite(self, tmp_path: Path, keys: dict[int, bytes]) -> Callable[..., str]:
        def write(names: str = "AB", **limits: int) -> str:
            path = tmp_path / "invited.toml"
            lines = []
            for node, name in enumerate(names, start=1):
                lines += [f"[sites.{name}]", f'key = "{key_fingerprint(keys[node])}"']
                lines += [f"max-subjects = {limits[name]}"] if name in limits else []
            path.write_text("\n".join(lines))
            return str(path)

        return write

    def test_stranger_is_asked_for_nothing(self, run, invite, keys, caplog) -> None:
        sites = Sites("ABC")
        _, folder = run(sites, keys=keys, federation__invited=invite("AB"))
        assert weight(folder / "last.safetensors") == 14.0
        assert {message.metadata.dst_node_id for message in run.grid.asked} == {1, 2}
        # Nobody is asked whom it serves: the key says it.
        assert {m.metadata.message_type for m in run.grid.asked} == {"query.join", "train", "evaluate"}
        assert [text for text in caplog.messages if "not invited" in text] == [
            "node 3 is not invited; it is asked for nothing"
        ]
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        assert [e["key"] for e in events if e["event"] == "stranger"] == [key_fingerprint(keys[3])]

    def test_node_without_a_key_is_a_stranger(self, run, invite, keys) -> None:
        del keys[2]
        with pytest.raises(FederationError, match=r"1 site\(s\) joined \(A\).*not here: B"):
            run(Sites("AB"), keys=keys, federation__invited=invite_all(invite, keys))
        assert {message.metadata.dst_node_id for message in run.grid.asked} == {1}

    def test_site_cannot_pass_for_another(self, run, invite, keys, caplog) -> None:
        # The node with A's key answers as B.
        sites = Sites("ABC")

        def lie(message: Message, reply: Message) -> Message:
            is_a = message.metadata.dst_node_id == 1 and message.metadata.message_type == "query.join"
            return with_values(site="B")(message, parcel_of(reply)) if is_a else reply

        run(sites, keys=keys, tamper=lie, federation__invited=invite("ABC"))
        assert "A" not in {name for name, _ in sites.trained}
        assert "site A is left out: it calls itself 'B'" in caplog.messages

    def test_limit_of_the_list_counts(self, run, invite, keys) -> None:
        with pytest.raises(FederationError, match=r"joined \(A\)"):
            run(keys=keys, federation__invited=invite("AB", B=2), federation__max_subjects=100)

    def test_all_are_there_but_too_few_of_them_train(self, run, invite, keys) -> None:
        with pytest.raises(FederationError, match=r"1 site\(s\) joined \(A, B\), wanted at least 2"):
            run(keys=keys, federation__invited=invite("AB"), federation__held_out="B")

    def test_run_waits_for_all_who_are_invited(self, run, invite, keys) -> None:
        sites, polled = Sites("ABC"), 0

        class Slow(set):
            def __contains__(self, node: object) -> bool:
                nonlocal polled
                polled += node == 3
                return node == 3 and polled < 5

        run(
            sites,
            keys=keys,
            absent=Slow(),
            federation__invited=invite("ABC"),
            federation__join_deadline=30.0,
        )
        assert sites.trained[:3] == [("A", 0), ("B", 0), ("C", 0)]


def invite_all(invite: Callable[..., str], keys: dict[int, bytes]) -> str:
    """Invite A and B, with keys of nodes 1 and 3: node 2 has none."""
    keys[2] = keys[3]
    path = invite("AB")
    del keys[2], keys[3]
    return path


class TestComingAndGoing:
    def test_site_that_comes_late_joins(self, run) -> None:
        sites, absent = Sites("ABC"), {3}
        sites.on_train = lambda task: absent.clear() if task.round == 0 else None
        _, folder = run(sites, absent=absent)
        assert sites.trained == [("A", 0), ("B", 0), ("A", 1), ("B", 1), ("C", 1)]
        # 7, then (1 x 4 + 3 x 8 + 4 x -2) / 8 more.
        assert weight(folder / "last.safetensors") == 9.5

    def test_late_site_gets_the_standardisation_of_those_who_began(self, run) -> None:
        sites, absent = Sites("ABC"), {3}
        sites.on_train = lambda task: absent.clear() if task.round == 0 else None
        run(sites, absent=absent)
        assert len({task.standardisation for task in sites.tasks}) == 1
        assert sites.tasks[0].standardisation.mean[0] == 75.0

    def test_site_that_goes_is_missed_and_asked_again_when_it_is_back(self, run) -> None:
        sites, absent = Sites("ABC"), set()

        def come_and_go(task) -> None:
            absent.clear()
            if task.round == 0:
                absent.add(3)

        sites.on_train = come_and_go
        progress, _ = run(sites, absent=absent, federation__rounds=3)
        assert [site for site, number in sites.trained if number == 1] == ["A", "B"]
        assert [site for site, number in sites.trained if number == 2] == ["A", "B", "C"]
        assert progress.history[1].failures == {"C": "not connected"}
        assert progress.history[2].failures == {}

    def test_site_that_moved_to_another_node_is_found_there(self, run) -> None:
        sites, absent = Sites("ABB"), {3}

        def move(task) -> None:
            absent.clear()
            absent.add(2)

        sites.on_train = move
        _, folder = run(sites, absent=absent)
        assert weight(folder / "last.safetensors") == 14.0
        nodes = [m.metadata.dst_node_id for m in run.grid.asked if m.metadata.message_type == "train"]
        assert nodes == [1, 2, 1, 3]

    @pytest.mark.parametrize(("pause", "least", "most"), [(0.0, 3, 5), (3600.0, 1, 1)])
    def test_who_refused_is_asked_again_after_a_pause(
        self, run, caplog, monkeypatch: pytest.MonkeyPatch, pause: float, least: int, most: int
    ) -> None:
        monkeypatch.setattr(members, "ASK_AGAIN_SECONDS", pause)
        with caplog.at_level(logging.WARNING):
            run(Sites("ABC"), tamper=on_join("C", refusing))
        assert [m for m in caplog.messages if m.startswith("site C did not join")]
        joins = [m for m in run.grid.asked if m.metadata.message_type == "query.join"]
        assert least <= len([m for m in joins if parcel_of(m).values["site"] == "C"]) <= most
