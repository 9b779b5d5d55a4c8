# SPDX-License-Identifier: Apache-2.0
"""Personal parts are trained at a site and never leave it; frozen parts are trained by nobody."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from client import weights as weights_module
from client.site import Site
from pasta_model.checkpoint import new_network
from pasta_model.data.clinical import Standardisation
from pasta_model.exchange.contents import TrainReport
from pasta_model.network.parts import members
from tests.support.tasks import SMALL, Leader


@pytest.fixture
def settings(tmp_path: Path, make_settings, make_store):
    for name in "AB":
        make_store(name)
    return make_settings(data__sites=str(tmp_path / "sites"), exchange__personal="norms, clinical", **SMALL)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The weights of every network that is put together."""
    states: list[dict[str, Tensor]] = []
    real = weights_module.new_translator

    def note(settings, state):
        states.append({name: value.clone() for name, value in state.items()})
        return real(settings, state)

    monkeypatch.setattr(weights_module, "new_translator", note)
    return states


def site(settings, name: str = "A") -> Site:
    return Site(Path(settings.data.sites) / name, settings)


def personal(settings, state: Mapping[str, Tensor]) -> set[str]:
    return members(state, settings.exchange.personal_parts)


def kept(settings, name: str = "A") -> dict[str, Tensor]:
    return load_file(sorted(site(settings, name).memory.folder.glob("round-*/personal.safetensors"))[-1])


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_they_are_in_no_message(settings) -> None:
    initial = new_network(settings).state_dict()
    names = personal(settings, initial)
    leader = Leader(settings)
    shared = sum(t.numel() for n, t in initial.items() if n not in names)
    assert 0 < shared < sum(t.numel() for t in initial.values())
    task, answer = leader.task(0), site(settings).train(leader.task(0))
    assert TrainReport.of(answer).update.check(leader.sizes) > 0
    assert sum(array.size for array in answer.arrays.values()) == shared
    assert sum(a.size for a in leader.whole(0).parcel().arrays.values()) == shared
    assert task.steps == ()


def test_they_are_trained_kept_at_the_site_and_differ_between_sites(settings) -> None:
    initial = new_network(settings).state_dict()
    for name in "AB":
        leader = Leader(settings, name)
        for number in range(2):  # Adam's first step is as long for all
            leader.follow(site(settings, name).train(leader.task(number)))
    names = personal(settings, initial)
    assert kept(settings, "A").keys() == kept(settings, "B").keys() == names
    assert not equal(kept(settings, "A"), {n: initial[n] for n in names})
    assert not equal(kept(settings, "A"), kept(settings, "B"))


def test_they_come_back_in_the_next_round_and_in_measurements(settings, used) -> None:
    leader = Leader(settings)
    leader.follow(site(settings).train(leader.task(0)))
    first = kept(settings)
    used.clear()
    leader.follow(site(settings).train(leader.task(1)))
    assert equal({n: used[0][n] for n in first}, first)
    second = kept(settings)
    assert not equal(first, second)
    used.clear()
    site(settings).evaluate(leader.task(2))
    assert equal({n: used[0][n] for n in second}, second)


def test_what_is_shared_comes_from_the_server_all_the_same(settings, used) -> None:
    leader = Leader(settings)
    leader.follow(site(settings).train(leader.task(0)))
    leader.weights = {n: np.full_like(v, 0.25) for n, v in leader.weights.items()}
    site(settings).train(leader.whole(1))
    names = personal(settings, used[-1])
    assert all((value == 0.25).all() for name, value in used[-1].items() if name not in names)


def test_after_missed_rounds_they_are_those_of_the_last_round_that_the_site_trained(settings, used) -> None:
    leader = Leader(settings)
    leader.follow(site(settings).train(leader.task(0)))
    first = kept(settings)
    used.clear()
    site(settings).train(leader.task(7))
    assert equal({n: used[0][n] for n in first}, first)


def test_new_run_begins_with_new_ones(settings, used) -> None:
    site(settings).train(Leader(settings).task(0))
    used.clear()
    leader = Leader(settings)
    leader.weights = {n: v + np.float32(1e-3) for n, v in leader.weights.items()}
    site(settings).train(leader.whole(0))
    initial = new_network(settings).state_dict()
    names = personal(settings, initial)
    assert equal({n: used[0][n] for n in names}, {n: initial[n] for n in names})


def test_part_without_a_tensor_in_this_network_is_no_obstacle(make_settings, settings) -> None:
    none = make_settings(
        data__sites=settings.data.sites, data__clinical="none", exchange__personal="clinical", **SMALL
    )
    assert not members(new_network(none).state_dict(), ["clinical"])
    leader = Leader(none)
    for number in range(2):
        leader.follow(site(none).train(leader.task(number, Standardisation((), ()))))


def test_frozen_parts_do_not_change_and_are_in_no_message(make_settings, settings, used) -> None:
    frozen = make_settings(
        data__sites=settings.data.sites, exchange__frozen="mri-arm", exchange__personal="norms", **SMALL
    )
    initial = new_network(frozen).state_dict()
    names = members(initial, ["mri-arm"])
    leader = Leader(frozen)
    assert not names & {slot.name for slot in leader.layout.slots}
    for number in range(2):
        leader.follow(site(frozen).train(leader.task(number)))
    site(frozen).evaluate(leader.task(2))
    own_norms = members(initial, ["norms"])
    for state in used:
        assert equal({n: state[n] for n in names - own_norms}, {n: initial[n] for n in names - own_norms})
    # A part that is frozen and personal by its name is not trained either.
    assert equal({n: used[-1][n] for n in names & own_norms}, {n: initial[n] for n in names & own_norms})
