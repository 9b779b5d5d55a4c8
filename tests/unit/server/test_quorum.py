# SPDX-License-Identifier: Apache-2.0
"""k of n: a round closes with enough answers; below that it is repeated and not averaged, not for ever."""

import json
from pathlib import Path

import numpy as np
import pytest

from pasta_model.errors import FederationError
from tests.support.sites import Sites, after, message_of, refusing, spoil, weight, with_arrays


class Faulty:
    """Refuses a site's first answers to the training of a round."""

    def __init__(self, site: str, number: int, times: int) -> None:
        self.times = times
        self.tamper = spoil(site, number, self)

    def __call__(self, message, parcel):
        self.times -= 1
        if self.times >= 0:
            return refusing(message, parcel)
        return message_of(parcel, message)


def test_round_closes_with_k_of_n(run) -> None:
    sites = Sites("ABC")
    progress, _ = run(sites, tamper=Faulty("B", 0, 99).tamper, federation__rounds=1)
    assert sites.trained == [("A", 0), ("B", 0), ("C", 0)], "nobody is asked twice"
    assert progress.history[0].shares == pytest.approx({"A": 0.2, "C": 0.8})


def test_round_below_k_is_repeated_and_not_averaged(run) -> None:
    sites = Sites("AB")
    progress, folder = run(sites, tamper=Faulty("B", 0, 2).tamper, federation__patience=30.0)
    assert sites.trained[:6] == [("A", 0), ("B", 0)] * 3
    # Every attempt begins from the same weights, and A's answers before B came count for nothing.
    assert [value for _, number, value in sites.received if number == 0] == [0.0] * 6
    assert weight(folder / "last.safetensors") == 14.0
    assert progress.history[0].failures == {}
    assert len(progress.history) == 3
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [e["attempts"] for e in events if e["event"] == "round done"] == [3, 1]


def test_what_was_answered_to_an_earlier_attempt_is_not_used(run) -> None:
    # First B refuses, then A: no attempt has both, though each has answered once.
    b, a = Faulty("B", 0, 1), Faulty("A", 0, 99)
    first = b.tamper

    def tamper(message, reply):
        return first(message, reply) if b.times > 0 else a.tamper(message, reply)

    with pytest.raises(
        FederationError, match=r"round 0: 1 usable answer\(s\), wanted at least 2; A: code 100"
    ):
        run(tamper=tamper, federation__patience=0.05)


def test_patience_ends_and_the_message_names_whom_the_run_waits_for(run, tmp_path: Path) -> None:
    sites, absent = Sites("ABCD"), {4}

    def leave(task) -> None:
        if task.round == 1:
            absent.add(2)

    sites.on_train = leave
    with pytest.raises(FederationError) as error:
        run(
            sites,
            absent=absent,
            tamper=spoil("C", 1, refusing),
            federation__min_sites=3,
            federation__patience=0.05,
        )
    said = str(error.value)
    assert said.startswith("round 1: ")
    assert "wanted at least 3; B: not connected; C: code 100" in said
    assert "D: has not joined" in said
    assert "A: " not in said
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["waiting_for"]) == ("failed", ["B", "C", "D"])
    assert status["why"] == said
    assert not (tmp_path / "run" / "rounds" / "after-00002").exists()


def test_run_goes_on_when_the_missing_site_is_back(run) -> None:
    sites, asked = Sites("AB"), 0

    def leave(task) -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            absent.add(2)

    class Returning(set):
        looked = 0

        def __contains__(self, node: object) -> bool:
            self.looked += super().__contains__(node)
            if self.looked > 6:
                self.clear()
            return super().__contains__(node)

    absent = Returning()
    sites.on_train = leave
    progress, folder = run(sites, absent=absent, federation__patience=30.0)
    assert absent.looked > 6, "the site was away"
    assert weight(folder / "last.safetensors") == 14.0
    assert progress.history[1].shares == {"A": 0.25, "B": 0.75}


def test_far_out_update_does_not_count_for_the_quorum(run) -> None:
    far = with_arrays(float32_000=np.full(4, 1e6, np.float32))
    with pytest.raises(FederationError, match="round 0: 1 usable"):
        run(tamper=spoil("B", 0, far))


def test_last_completed_round_stays_when_a_run_gives_up(run, tmp_path: Path) -> None:
    with pytest.raises(FederationError):
        run(tamper=spoil("A", 1, refusing))
    assert after(tmp_path / "run", 1) == 7.0
    progress, folder = run(run__resume=True)
    assert weight(folder / "last.safetensors") == 14.0
    assert [record.round for record in progress.history] == [0, 1, 2]
