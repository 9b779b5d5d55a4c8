# SPDX-License-Identifier: Apache-2.0
"""What reaches a site's code: approved bundles, under settings that the policy allows, on every message."""

from pathlib import Path

import pytest
import tomli_w
from flwr.app import Context, RecordDict
from flwr.supercore.run import RunNotRunningException

from client.approvals import KEPT_BUNDLES, read_approved, withdraw
from client.bundles import digest_of
from pasta_model.errors import AuditError
from pasta_model.exchange.contents import Invitation, NodeReport
from tests.support.guarded import NODE, RUN, SERIES, Node, answers, build, write_policy

SITES = answers(NodeReport(("A",)).parcel())


def refused(node: Node, kind: str = "query.sites", **changes) -> str:
    """Send a request that is to be refused; return why, as the site's log tells it."""
    before = len(node.reached)
    sent = node.ask(kind, SITES, **changes)
    last = node.log[-1]
    assert last["event"] == "refused"
    assert last["direction"] == "in"
    assert sent.message.error.reason == f"{last['code']} (reference {last['reference']} in the site's log)"
    assert len(sent.contents) == 1  # the message itself, without content
    assert len(node.reached) == before, "it reached the site's code"
    return last["reason"]


def passes(node: Node, kind: str = "query.sites", **changes) -> None:
    """Send a request that is to be let in."""
    before = len(node.reached)
    assert node.ask(kind, SITES, **changes).message.has_content()
    assert len(node.reached) == before + 1


class TestBundles:
    def test_an_approved_one_runs(self, node: Node) -> None:
        passes(node)
        assert [entry["event"] for entry in node.log] == ["received", "sent"]

    def test_another_is_answered_with_error_7_and_kept(self, make_node, caplog) -> None:
        node = make_node(approved=False)
        assert "is not approved" in refused(node)
        assert node.sent[-1].message.error.code == 7
        name = digest_of(node.bundle)
        assert (node.kit.guard.quarantine / f"{name}.fab").read_bytes() == node.bundle
        assert f"pasta-client approve {node.kit.path} {name}" in caplog.text
        assert node.log[-1]["bundle"] == name

    def test_after_the_approval_the_same_run_goes_on_without_a_restart(self, make_node) -> None:
        node = make_node(approved=False)
        refused(node)
        node.approve()
        passes(node)

    def test_one_that_waits_is_not_fetched_again(self, make_node) -> None:
        node = make_node(approved=False)
        for _ in range(3):
            refused(node)
        assert node.fetched == [digest_of(node.bundle)]
        node.approve()
        passes(node)
        assert len(node.fetched) == 1

    def test_one_that_was_exchanged_in_the_quarantine_is_fetched_again(self, make_node) -> None:
        node = make_node(approved=False)
        refused(node)
        (file,) = node.kit.guard.quarantine.iterdir()
        file.write_bytes(b"other")
        refused(node)
        assert len(node.fetched) == 2

    def test_a_name_that_is_no_hash_is_never_looked_for_on_the_disk(self, node: Node) -> None:
        node.fab_hash = "../approved"
        assert "the server calls bundle" in refused(node)
        assert node.fetched == ["../approved"]

    def test_after_a_withdrawal_a_run_that_had_begun_is_refused(self, node: Node) -> None:
        passes(node)
        withdraw(node.kit.guard.approved, digest_of(node.bundle)[:8])
        assert "is not approved" in refused(node)

    def test_the_hash_is_that_of_the_content_not_the_servers_word(self, node: Node) -> None:
        good = digest_of(node.bundle)
        node.bundle = build(node.settings, evil=b"import os")
        node.fab_hash = good
        assert f"bundle {digest_of(node.bundle)} is not approved" in refused(node)
        assert node.sent[-1].message.error.code == 7

    def test_an_approved_one_under_another_hash_is_refused(self, node: Node) -> None:
        node.fab_hash = "0" * 64  # Flower would look for its folder by this
        assert "the server calls bundle" in refused(node)

    @pytest.mark.parametrize(
        "change",
        [{"fab_version": "1/../../x"}, {"fab_id": "pasta/other"}, {"primary_task_type": "flwr-agentapp"}],
    )
    def test_an_approved_one_under_another_name_is_refused(self, node: Node, change) -> None:
        node.run_changes = change
        assert next(iter(change.values())) in refused(node)

    def test_quarantine_does_not_fill_the_disk(self, make_node) -> None:
        node = make_node(approved=False)
        for number in range(KEPT_BUNDLES + 3):
            node.bundle = build(node.settings, number=str(number).encode())
            refused(node)
        kept = {path.stem for path in node.kit.guard.quarantine.iterdir()}
        assert len(kept) == KEPT_BUNDLES
        assert digest_of(node.bundle) in kept
        node.bundle = b"x" * (10 * 2**20 + 1)
        refused(node)
        assert digest_of(node.bundle) not in {path.stem for path in node.kit.guard.quarantine.iterdir()}

    def test_a_list_of_approvals_that_cannot_be_read_lets_nothing_in(self, node: Node) -> None:
        node.kit.guard.approved.write_text("bundles = 3", encoding="utf-8")
        assert "bundles" in refused(node)


class TestPolicy:
    @pytest.mark.parametrize("kind", ["query.sites", "query.join", "train", "evaluate"])
    def test_it_is_asked_about_every_type_of_message(self, make_node, kind: str) -> None:
        assert "wants at least 4" in refused(make_node(policy={"min_subjects": 4}), kind)

    def test_a_forbidden_aggregation(self, make_node) -> None:
        assert "aggregation.rule is 'fedadam'" in refused(make_node(aggregation__rule="fedadam"))

    def test_a_run_may_not_loosen_it(self, node: Node) -> None:
        node.override = {"aggregation.rule": "fedadam", "federation.rounds": 4}
        why = refused(node)
        assert "aggregation.rule is 'fedadam'; the policy allows fedavg, median" in why
        assert "federation.rounds is 4; the policy allows 3" in why

    def test_too_few_subjects(self, make_node) -> None:
        why = refused(make_node(policy={"min_subjects": 4}))
        assert "3 subjects train here; the policy wants at least 4" in why

    def test_settings_that_cannot_be_used(self, node: Node) -> None:
        node.override = {"federation.rounds": 0}
        assert "federation.rounds: found 0" in refused(node)

    def test_settings_that_the_bundle_does_not_have(self, node: Node) -> None:
        node.override = {"federation.round": 1}
        assert "do not fit its bundle" in refused(node)

    def test_an_edit_holds_from_the_next_message_of_a_run_that_has_begun(self, node: Node) -> None:
        passes(node)
        write_policy(node.kit.path.parent, aggregations=["median"])
        assert "the policy allows median" in refused(node)
        write_policy(node.kit.path.parent)
        passes(node)

    @pytest.mark.parametrize("text", [None, "", "[policy]\nmax-rounds = 3\n", "\x00"])
    def test_one_that_cannot_be_read_refuses(self, node: Node, text: str | None) -> None:
        passes(node)
        policy = node.kit.guard.policy
        policy.unlink()
        if text is not None:
            policy.write_text(text, encoding="utf-8")
        assert "policy.toml" in refused(node)

    def test_rounds_are_counted_here_whatever_the_run_says(self, node: Node, update) -> None:
        for number in range(3):
            assert node.ask("train", answers(update(node, number))).message.has_content()
        assert "got 3 updates from here already; the policy allows 3" in refused(node, "train")
        passes(node)  # no update leaves with this
        node.restart()
        assert "got 3 updates from here already" in refused(node, "train")

    def test_answer_that_is_given_again_is_one_update(self, node: Node, update) -> None:
        """A round below its quorum is repeated, and the site gives the answer that it gave."""
        for number in (0, 0, 1, 1, 2):
            assert node.ask("train", answers(update(node, number))).message.has_content()
        assert "got 3 updates from here already" in refused(node, "train")
        node.restart()
        assert "got 3 updates from here already" in refused(node, "train")


class TestWhatFlowerHandsOver:
    """The code gets the settings that were judged."""

    @pytest.mark.parametrize("change", [{"run_config": {}}, {"node_config": {"site-store": "/elsewhere"}}])
    def test_other_settings_in_flowers_context_are_refused(self, node: Node, change) -> None:
        passes(node)
        now = node.state.get_run_series_context(SERIES)
        words = {"run_config": now.run_config, "node_config": now.node_config, **change}
        context = Context(run_id=RUN, node_id=NODE, state=RecordDict(), series_id=SERIES, **words)
        node.state.set_run_series_context(SERIES, context)
        assert "are not the run's and the site's" in refused(node)

    def test_the_code_is_told_the_sites_own_store_and_policy(self, node: Node) -> None:
        node.override = {"data.sites": "/somewhere/else"}
        passes(node)
        told = node.state.get_run_series_context(SERIES).node_config
        assert told == node.kit.node_config
        assert told["site-store"] == str(node.kit.site.store)


class TestMessages:
    @pytest.mark.parametrize("kind", ["query", "train.other", "evaluate.x", "system", "get_parameters"])
    def test_of_another_type_are_refused(self, node: Node, kind: str) -> None:
        assert f"a message of type {kind!r} came" in refused(node, message_type=kind)

    def test_that_are_answers_are_refused(self, node: Node) -> None:
        assert "an answer or an error came" in refused(node, reply_to_message_id="0" * 64)

    def test_what_came_is_in_the_log(self, node: Node) -> None:
        node.ask("query.join", SITES, Invitation("A").parcel())
        entry = node.log[0]
        assert entry["event"] == "received"
        assert (entry["direction"], entry["run"], entry["kind"]) == ("in", str(RUN), "query.join")
        assert (entry["arrays"], entry["bundle"]) == (0, digest_of(node.bundle))
        assert entry["bytes"] > 100
        assert len(entry["content"]) == len(entry["policy"]) == 64

    def test_of_a_run_that_has_ended_are_passed_over(self, node: Node, monkeypatch) -> None:
        def ended(_: int) -> None:
            raise RunNotRunningException

        monkeypatch.setattr(Node, "run_record", ended)
        assert node.take_in("query.sites") is None
        assert node.log == []


def test_without_a_log_nothing_passes(node: Node) -> None:
    passes(node)
    node.gate.log.path.write_bytes(b"")
    with pytest.raises(AuditError, match="somebody changed the log"):
        node.ask("query.sites", SITES)
    assert isinstance(node.gate.failure, AuditError)
    assert len(node.sent) == 1


def test_a_store_that_is_gone_refuses(node: Node, tmp_path: Path) -> None:
    passes(node)
    (node.kit.site.store / "index.json").unlink()
    assert "no prepared site here" in refused(node)


def test_approvals_survive_in_a_file_that_a_person_can_read(node: Node) -> None:
    (approval,) = read_approved(node.kit.guard.approved).values()
    assert approval.name == "pasta/pasta-federated 0.1.0"
    assert tomli_w.dumps({"by": approval.by}).strip() in node.kit.guard.approved.read_text(encoding="utf-8")
