# SPDX-License-Identifier: Apache-2.0
"""Sites whose privacy budget is spent: they train no more, are measured all the same, and nobody waits."""

import json
import logging
import time
from pathlib import Path

import pytest
from flwr.app import Error, Message

from pasta_model.data.clinical import SCHEMES
from pasta_model.errors import FederationError
from server.questions import SPENT
from tests.support.sites import Sites, parcel_of, weight

PRIVATE = {"privacy__unit": "subject", "federation__patience": 60.0, "federation__rounds": 4}


class Budgets:
    """Sites refuse to train from a round on, as a real one does whose ledger allows no more."""

    def __init__(self, **rounds: int) -> None:
        self.rounds = rounds
        self.asked: list[tuple[str, int]] = []

    def __call__(self, message: Message, reply: Message) -> Message:
        if message.metadata.message_type != "train":
            return reply
        values = parcel_of(message).values
        site, number = str(values["site"]), int(values["round"])
        self.asked.append((site, number))
        if number < self.rounds.get(site, 99):
            return reply
        return Message(Error(100, "BudgetError (reference 1a2b in the site's log)"), reply_to=message)

    def last_asked(self) -> dict[str, int]:
        return {site: max(n for s, n in self.asked if s == site) for site, _ in self.asked}


def told(folder: Path) -> tuple[dict, list[dict]]:
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return json.loads((folder / "status.json").read_text()), lines


def test_site_without_budget_is_asked_once_more_only_to_measure(run) -> None:
    sites, budgets = Sites("ABC"), Budgets(B=1)
    progress, folder = run(sites, tamper=budgets, **PRIVATE)
    assert budgets.last_asked() == {"A": 3, "B": 1, "C": 3}
    assert budgets.asked.count(("B", 1)) == 1
    assert [sorted(record.shares) for record in progress.history] == [
        ["A", "B", "C"],
        ["A", "C"],
        ["A", "C"],
        ["A", "C"],
        ["A", "B", "C"],
    ]
    assert [record.failures for record in progress.history[:4]] == [{}, *[{"B": SPENT}] * 3]
    assert {site for site, _ in sites.measured} == {"A", "B", "C"}
    status, events = told(folder)
    assert (status["state"], status["why"], status["sites"]["B"]["state"]) == ("finished", "", "budget spent")
    (event,) = [e for e in events if e["event"] == "site budget spent"]
    assert (event["site"], event["round"]) == ("B", 1)
    assert [e["attempts"] for e in events if e["event"] == "round done"] == [1] * 4


def test_nobody_waits_for_a_site_without_budget(run, tmp_path: Path) -> None:
    """C is awaited, B is not: its budget will not come back."""
    absent: set[int] = set()
    sites = Sites("ABC")
    sites.on_train = lambda task: absent.add(3) if task.round == 2 else None
    with pytest.raises(FederationError) as error:
        run(sites, absent=absent, tamper=Budgets(B=1), **{**PRIVATE, "federation__patience": 0.05})
    assert "round 3: 1 usable answer(s), wanted at least 2; C: not connected" in str(error.value)
    assert told(tmp_path / "run")[0]["waiting_for"] == ["C"]


@pytest.mark.parametrize("in_one_round", [True, False])
def test_run_ends_by_itself_when_too_few_can_train(run, caplog, in_one_round: bool) -> None:
    sites, budgets = Sites("ABC"), Budgets(A=2, B=2 if in_one_round else 1)
    start = time.monotonic()
    with caplog.at_level(logging.INFO):
        progress, folder = run(sites, tamper=budgets, **PRIVATE)
    assert time.monotonic() - start < 30, "it did not wait for its patience"
    # C may train, and is not asked to in vain: its budget is worth something.
    assert budgets.last_asked()["C"] == 2
    assert progress.next_round == 2
    assert weight(folder / "last.safetensors") == sites.measured[0][1]
    assert {site for site, _ in sites.measured} == {"A", "B", "C"}
    assert [record.round for record in progress.history] == [0, 1, 2]
    said = "ended after round 2: the privacy budgets of A, B are spent"
    assert said in caplog.messages
    status, events = told(folder)
    assert (status["state"], status["round"], status["why"]) == ("finished", 2, said)
    (event,) = [e for e in events if e["event"] == "ended early"]
    assert (event["round"], event["spent"], event["why"]) == (2, ["A", "B"], said)


def test_round_that_closes_as_the_budgets_end_is_kept_and_no_other_is_begun(run) -> None:
    # C refuses round 1, which A and B close; B refuses round 2, which A alone does not close.
    budgets = Budgets(C=1, B=2)
    progress, _ = run(Sites("ABC"), tamper=budgets, **PRIVATE)
    assert progress.next_round == 2
    assert budgets.last_asked() == {"A": 2, "B": 2, "C": 1}


@pytest.mark.parametrize(("enough", "rounds"), [(1, 4), (2, 1), (3, 1)])
def test_how_many_are_too_few_is_the_quorum(run, enough: int, rounds: int) -> None:
    budgets = Budgets(A=1, B=1)
    progress, _ = run(Sites("ABC"), tamper=budgets, federation__min_sites=enough, **PRIVATE)
    assert progress.next_round == rounds
    assert ("C", rounds + 1) not in budgets.asked


def test_nothing_was_trained(run, tmp_path: Path) -> None:
    with pytest.raises(FederationError) as error:
        run(tamper=Budgets(A=0, B=0), **PRIVATE)
    said = str(error.value)
    assert said.startswith(
        "nothing was trained: the privacy budgets of A, B are spent, and 0 site(s) can train"
    )
    assert "wanted at least 2; 'pasta-client budget' shows a site what is left" in said
    assert told(tmp_path / "run")[0]["state"] == "failed"
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_the_same_command_again_ends_the_same(run) -> None:
    sites, budgets = Sites("AB"), Budgets(A=2)
    _, folder = run(sites, tamper=budgets, **PRIVATE)
    before = weight(folder / "last.safetensors")
    progress, _ = run(sites, tamper=budgets, run__resume=True, **PRIVATE)
    assert (progress.next_round, weight(folder / "last.safetensors")) == (2, before)
    assert told(folder)[0]["state"] == "finished"


def test_site_whose_budget_was_raised_goes_on_when_the_run_does(run) -> None:
    sites = Sites("AB")
    run(sites, tamper=Budgets(A=2), **PRIVATE)
    progress, folder = run(sites, run__resume=True, **PRIVATE)
    assert progress.next_round == 4
    assert weight(folder / "last.safetensors") == 28.0


def test_site_that_comes_late_saves_the_run(run) -> None:
    sites, absent = Sites("ABC"), {3}
    budgets = Budgets(A=2)
    sites.on_train = lambda task: absent.clear() if (task.site, task.round) == ("B", 1) else None
    progress, _ = run(sites, absent=absent, tamper=budgets, **PRIVATE)
    assert progress.next_round == 4
    assert sorted(progress.history[3].shares) == ["B", "C"]


def test_without_privacy_the_word_is_a_failure_like_any_other(run) -> None:
    budgets = Budgets(B=1)
    progress, folder = run(Sites("ABC"), tamper=budgets, federation__rounds=3)
    assert budgets.last_asked()["B"] == 2
    assert "BudgetError" in progress.history[1].failures["B"]
    assert told(folder)[0]["sites"]["B"]["state"] == "failed"


def test_stale_weights_are_not_taken_for_a_spent_budget(run) -> None:
    sites = Sites("AB")
    sites.on_train = lambda task: (
        sites.held.update({"B": {}}) if (task.site, task.round) == ("A", 2) else None
    )
    progress, _ = run(sites, **PRIVATE)
    assert progress.next_round == 4
    assert progress.history[2].failures == {}


def test_where_subjects_or_sites_are_protected_the_standardisation_is_a_public_one(run) -> None:
    """The pooled mean and spread go to every site, and into the model: no noise covers them."""
    for private in ({"privacy__unit": "subject"}, {"privacy__unit": "site", "aggregation__shares": "equal"}):
        sites = Sites("AB")
        run(sites, output=private["privacy__unit"], **private)
        assert {task.standardisation for task in sites.tasks} == {SCHEMES["demographics"].reference}


def test_last_model_is_kept_as_the_best_where_no_error_is_told(run) -> None:
    class Silent(Sites):
        def error(self, task, weights: float) -> None:
            return None

    progress, folder = run(Silent("AB"), tamper=Budgets(A=2), **PRIVATE)
    assert progress.best_round == -1
    assert weight(folder / "model.safetensors") == weight(folder / "last.safetensors") == 14.0
