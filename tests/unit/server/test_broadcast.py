# SPDX-License-Identifier: Apache-2.0
"""Nothing is sent that a site has: steps to those that missed rounds, all weights only where it must be."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from pasta_model.exchange.steps import encode_step, walk
from pasta_model.exchange.vectors import digest
from server.broadcast import Broadcast
from server.records import StoredStep
from tests.support.sites import SIZES, START, Sites, message_of, parcel_of, refusing, weight


def sent(sites: Sites, site: str) -> list[tuple[int, str, int]]:
    """Of each task of a site: round, from where ("" is nowhere, "start" the first weights), steps."""
    start = digest(START.values())
    return [
        (t.round, {"": "", start: "start", t.target: "there"}.get(t.base, "some"), len(t.steps))
        for t in sites.tasks
        if t.site == site
    ]


def test_nothing_in_the_first_round_and_one_step_in_each_that_follows(run) -> None:
    sites = Sites()
    run(sites, federation__rounds=3)
    assert sent(sites, "A") == [(0, "there", 0), (1, "start", 1), (2, "some", 1)]


class Away:
    """Takes the third node away for some rounds."""

    def __init__(self, sites: Sites, first: int, last: int) -> None:
        self.absent: set[int] = set()
        self.rounds = range(first - 1, last)
        sites.on_train = self

    def __call__(self, task) -> None:
        self.absent.clear()
        self.absent.update({3} if task.round in self.rounds else ())


@pytest.mark.parametrize(("codec", "wanted"), [("bfloat16", (2, "start", 2)), ("float32", (2, "", 1))])
def test_site_that_missed_a_round_gets_two_steps_where_they_are_no_longer_than_the_weights(
    run, codec: str, wanted: tuple[int, str, int]
) -> None:
    sites = Sites("ABC")
    away = Away(sites, 1, 1)
    run(sites, absent=away.absent, federation__rounds=3, exchange__downlink=codec)
    assert sent(sites, "C") == [(0, "there", 0), wanted]
    at = {site: value for site, number, value in sites.received if number == 2}
    assert at["C"] == at["A"] == at["B"], "the same weights, whatever the way"


UNIT = 127 / 128  # exact in every codec


class Kept:
    """The folder of a run after seven rounds: each step adds UNIT to every weight."""

    sizes: ClassVar = {"float32.000": 600, "float32.001": 400}
    from_seed = True

    def __init__(self, first: int = 4, codec: str = "int8") -> None:
        self.first = first
        self.codec = codec
        self.vectors = [
            {n: np.full(s, i * UNIT, np.float32) for n, s in self.sizes.items()} for i in range(8)
        ]
        self.digests = [digest(v.values()) for v in self.vectors]

    def step(self, number: int) -> StoredStep | None:
        if number < self.first:
            return None
        ones = [(name, np.full(size, UNIT, np.float32)) for name, size in self.sizes.items()]
        step, _ = encode_step(self.codec, ones)
        return StoredStep(self.digests[number - 1], self.digests[number], step)

    def reference(self, number: int) -> SimpleNamespace:
        return SimpleNamespace(pieces=self.vectors[number].items)


@pytest.mark.parametrize(("holds", "steps"), [(7, 0), (6, 1), (5, 2), (4, 3), (3, 4), (2, None), (0, None)])
def test_chain_leads_from_what_is_held_to_the_last_weights(holds: int, steps: int | None) -> None:
    folder = Kept()
    base, found = Broadcast(folder, 7, folder.digests[7]).for_holder(folder.digests[holds])
    assert (base, len(found)) == ((folder.digests[holds], steps) if steps is not None else ("", 1))
    start = folder.vectors[holds].items() if base else None
    assert digest(walk(start, found, Kept.sizes)) == folder.digests[7]


def test_chain_longer_than_the_weights_is_not_sent() -> None:
    folder = Kept(codec="bfloat16")
    broadcast = Broadcast(folder, 7, folder.digests[7])
    assert [len(broadcast.for_holder(folder.digests[n])[1]) for n in (5, 4)] == [2, 1]
    assert broadcast.for_holder(folder.digests[4])[0] == ""


def test_sites_that_hold_the_same_get_the_same_arrays() -> None:
    folder = Kept()
    broadcast = Broadcast(folder, 7, folder.digests[7])
    assert broadcast.for_holder(folder.digests[5]) is broadcast.for_holder(folder.digests[5])
    assert broadcast.for_holder("")[1][0] is broadcast.for_holder("f" * 64)[1][0]


def test_steps_of_another_run_are_no_way() -> None:
    folder = Kept()
    assert Broadcast(folder, 7, "f" * 64).for_holder(folder.digests[6])[0] == ""


def test_site_that_missed_too_many_rounds_gets_all_weights(run) -> None:
    sites = Sites("ABC")
    away = Away(sites, 1, 5)
    run(sites, absent=away.absent, federation__rounds=8, exchange__downlink="bfloat16")
    assert sent(sites, "C")[:2] == [(0, "there", 0), (6, "", 1)]
    assert sent(sites, "C")[2] == (7, "some", 1)
    at = {site: value for site, number, value in sites.received if number == 6}
    assert at["C"] == at["A"]


def test_site_that_lost_its_weights_is_asked_again_in_the_same_round(run) -> None:
    sites = Sites("ABC")

    def forget(task) -> None:
        if (task.site, task.round) == ("B", 1) and len(sites.held["B"]) == 1 and task.base:
            sites.held["B"] = {"0" * 64: START}
            task.__dict__["base"] = "0" * 63 + "1"

    sites.on_train = forget
    progress, _ = run(sites)
    assert [task for task in sent(sites, "B") if task[0] == 1][1:] == [(1, "", 1)]
    assert progress.history[1].failures == {}
    assert set(progress.history[1].shares) == {"A", "B", "C"}
    # What was sent in vain is counted, too: the step and then the weights.
    assert progress.history[1].bytes_down == {"A": 16, "B": 32, "C": 16}


def test_site_that_says_stale_of_whole_weights_is_a_failure_not_a_loop(run) -> None:
    sites = Sites("ABC")
    asked = []

    def always(message, reply):
        if message.metadata.message_type == "train" and parcel_of(message).values["site"] == "B":
            asked.append(1)
            error = refusing(message, None)
            error.error.__dict__["_reason"] = "StaleWeightsError (reference x)"
            return error
        return reply

    progress, _ = run(sites, tamper=always, federation__rounds=1)
    assert "StaleWeightsError" in progress.history[0].failures["B"]
    assert len(asked) == 2


def test_restarted_server_asks_what_the_sites_hold_and_sends_steps(run, tmp_path) -> None:
    sites = Sites()

    def stop(task) -> None:
        if task.round == 2:
            raise KeyboardInterrupt

    sites.on_train = stop
    with pytest.raises(KeyboardInterrupt):
        run(sites, federation__rounds=3)
    sites.on_train = lambda task: None
    sites.tasks.clear()
    run(sites, federation__rounds=3, run__resume=True)
    assert sent(sites, "A") == [(2, "some", 1)]


def test_site_that_holds_the_weights_of_another_run_makes_the_initial_ones_itself(run) -> None:
    sites = Sites()
    sites.held["A"] = {"f" * 64: START, "e" * 64: START}
    run(sites)
    assert sent(sites, "A")[:2] == [(0, "there", 0), (1, "start", 1)]
    assert sent(sites, "B")[0] == (0, "there", 0)


def test_a_site_that_lies_about_what_it_holds_gets_all_when_it_notices(run) -> None:
    sites = Sites("AB")
    other = {name: np.full(size, 3, np.float32) for name, size in SIZES.items()}

    def boast(message, reply):
        if message.metadata.message_type != "query.join":
            return reply
        parcel = parcel_of(reply)
        if parcel.values["site"] == "A":
            parcel.values["holds"] = digest(START.values())
            sites.held["A"] = {digest(START.values()): other}  # its disk rotted
        return message_of(parcel, message)

    _, folder = run(sites, tamper=boast, federation__rounds=1)
    assert sent(sites, "A") == [(0, "there", 0), (0, "", 1)]
    assert weight(folder / "last.safetensors") == 7.0


def test_last_measurement_of_a_site_that_forgot_is_repeated_with_all_weights(run) -> None:
    sites = Sites("AB")

    def forget(message, reply):
        if message.metadata.message_type == "train" and parcel_of(message).values["site"] == "B":
            sites.held["B"] = {}
        return reply

    progress, _ = run(sites, tamper=forget, federation__rounds=2)
    assert set(progress.history[2].valid_mae) == {"A", "B"}
    assert progress.history[2].failures == {}
    assert sorted(sites.measured) == [("A", 14.0), ("B", 14.0)]


@pytest.mark.parametrize("holds", ["same", "other", "nothing"])
@pytest.mark.parametrize("from_seed", [True, False])
def test_the_first_round_of_a_run_from_a_model_sends_its_weights(holds: str, from_seed: bool) -> None:
    """From the seed a site needs nothing sent, whatever it holds: it makes the weights itself."""
    folder = Kept()
    folder.from_seed = from_seed
    digests = {"same": folder.digests[0], "other": "f" * 64, "nothing": ""}
    base, steps = Broadcast(folder, 0, folder.digests[0]).for_holder(digests[holds])
    needs_nothing = holds == "same" or (holds == "other" and from_seed)
    assert (base, len(steps)) == ((folder.digests[0], 0) if needs_nothing else ("", 1))
