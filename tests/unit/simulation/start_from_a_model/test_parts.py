# SPDX-License-Identifier: Apache-2.0
"""A federation that goes on from a model: which parts travel and are trained, and which stay the model's."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from client.memory import combined_model
from client.site import Site
from client.weights import START
from pasta_model.checkpoint import exchanged_layout, kept_layout, load_checkpoint
from pasta_model.network.parts import members
from tests.support.starts import MODELS, OWN, Make, Run, floats, history, same, site_folders, state


def test_only_the_norms_are_trained_and_all_else_is_the_models_bit_for_bit(run: Run, initial) -> None:
    output = run(exchange__trained="norms")
    norms = members(initial, ["norms"])
    for name in MODELS:
        found = state(output, name)
        assert found.keys() == initial.keys()
        assert all(torch.equal(found[n], initial[n]) for n in initial.keys() - norms), name
    moved = [n for n in norms if not torch.equal(state(output)[n], initial[n])]
    assert len(moved) > len(norms) / 2


def test_the_exchange_is_the_norms_and_the_rest_once(run: Run, initial) -> None:
    output = run(exchange__trained="norms", federation__rounds=3)
    norms = 4 * floats(*members(initial, ["norms"]), of=initial)
    whole = 4 * floats(*initial, of=initial)
    assert norms < whole / 20
    rounds = history(output)
    for number in range(3):
        assert rounds[number]["bytes_up"] == {"alder": norms, "birch": norms}
    for number, down in enumerate((whole, norms, norms, norms)):
        assert rounds[number]["bytes_down"] == {"alder": down, "birch": down}, number


def test_without_chosen_parts_all_is_sent_once_and_trained(run: Run, initial, settings_of: Make) -> None:
    output = run()
    whole = 4 * floats(*initial, of=initial)
    assert [r["bytes_down"]["alder"] for r in history(output)] == [whole] * 3
    assert not (output / "rounds" / "start.safetensors").exists()
    assert not any((folder / START).exists() for folder in site_folders(settings_of()))
    found = state(output)
    assert not any(torch.equal(found[name], initial[name]) for name in members(initial, ["stems", "heads"]))
    assert max((found[n] - initial[n]).abs().max() for n in initial) < 0.01, "two small steps from there"


@pytest.mark.slow
def test_first_measurement_is_that_of_the_model(run: Run, initial, settings_of: Make, make_settings) -> None:
    from pasta_model.checkpoint import new_translator
    from pasta_model.validation import validation_mae

    first = history(run(exchange__trained="norms", federation__rounds=1))[0]["valid_mae"]
    settings = settings_of()
    for name, found in first.items():
        site = Site(Path(settings.data.sites) / name, settings)
        wanted = validation_mae(
            new_translator(settings, initial), site._loader("valid", OWN), settings=settings
        )
        assert found == pytest.approx(wanted, rel=1e-6)


def test_standardisation_is_the_models(run: Run, initial) -> None:
    output = run()
    for name in MODELS:
        assert load_checkpoint(output / f"{name}.safetensors").standardisation == OWN


@pytest.mark.slow
def test_the_same_again_gives_the_same(run: Run, initial) -> None:
    codecs = {"exchange__uplink": "int8", "exchange__downlink": "int8"}
    one, other = (run(name, exchange__trained="norms, heads", **codecs) for name in "ab")
    assert same(state(one), state(other))


@pytest.mark.slow
class TestAdapters:
    chosen = {"exchange__trained": "norms, adapters", "network__adapter_rank": 2}  # noqa: RUF012

    def test_they_start_fresh_on_a_model_without_them(self, run: Run, initial, settings_of: Make) -> None:
        found = state(run(**self.chosen))
        adapters = members(found, ["adapters"])
        assert found.keys() - initial.keys() == adapters
        frozen = initial.keys() - members(initial, ["norms"])
        assert all(torch.equal(found[name], initial[name]) for name in frozen)
        assert any(found[n].any() for n in adapters if ".adapter.1." in n), "B has left zero"

    def test_a_model_with_them_goes_on_with_them(self, run: Run, initial, tmp_path: Path) -> None:
        first = run("first", **self.chosen)
        shutil.copy(first / "last.safetensors", tmp_path / "initial.safetensors")
        before = state(first)
        after = state(run("second", **self.chosen))
        trained = members(before, ["norms", "adapters"])
        assert all(torch.equal(after[n], before[n]) for n in before.keys() - trained)
        assert any(before[n].any() for n in trained if ".adapter.1." in n)


def test_personal_parts_start_as_the_models_and_the_published_model_has_those(
    run: Run, initial, settings_of: Make
) -> None:
    changes = {"exchange__personal": "norms", "exchange__frozen": "time"}
    output = run(**changes)
    model = load_checkpoint(output / "last.safetensors")
    kept = {slot.name for slot in kept_layout(model.settings).slots}
    assert kept == members(initial, ["norms", "time"])
    assert all(torch.equal(model.state[name], initial[name]) for name in kept)
    shared = {slot.name for slot in exchanged_layout(model.settings).slots}
    assert not all(torch.equal(model.state[name], initial[name]) for name in shared)
    combined, own = combined_model(model, Path(model.settings.data.sites) / "alder")
    norms = members(initial, ["norms"])
    assert set(own) == norms
    assert any(not torch.equal(combined.state[name], initial[name]) for name in norms)
    moved = max((combined.state[name] - initial[name]).abs().max() for name in norms)
    assert moved < 0.01, "two small steps from the model, not from fresh weights"


def test_held_out_site_measures_with_the_models_parts(run: Run, initial, make_store) -> None:
    make_store("cedar")
    output = run(exchange__trained="norms", federation__held_out="cedar")
    last = history(output)[-1]
    assert sorted(last["valid_mae"]) == ["alder", "birch", "cedar"]
    assert last["failures"] == {}


@pytest.mark.slow
def test_cross_evaluation_finds_the_parts_too(run: Run, initial) -> None:
    output = run(exchange__trained="norms", federation__cross_evaluation=True)
    table = json.loads((output / "cross-evaluation.json").read_text())
    assert {site: sorted(row) for site, row in table.items()} == {
        site: ["alder", "birch"] for site in ("alder", "birch")
    }
