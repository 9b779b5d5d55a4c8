# SPDX-License-Identifier: Apache-2.0
"""A federation that goes on from a model: what travels, what is kept where, and what becomes of it."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import client.site
from client.memory import combined_model, run_folder
from client.site import Site
from client.weights import START
from pasta_model.checkpoint import (
    Checkpoint,
    exchanged_layout,
    kept_layout,
    load_checkpoint,
    new_network,
    save_checkpoint,
)
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.errors import CheckpointError
from pasta_model.network.parts import members
from server.rounds import Federation
from simulation.direct import DirectPost
from tests.unit.conftest import SMALLEST

ALL = {"partition-id": 0, "num-partitions": 1}
OWN = Standardisation((70.0, 0.4, 15.0, 26.0, 18.0, 0.5), (8.0, 0.5, 3.0, 3.0, 9.0, 0.6))
SMALL = {"network__shape": SMALLEST, "sampling__hop": 4, "training__local_steps": 1}
MODELS = ("model", "last", "average")

Run = Callable[..., Path]
Make = Callable[..., Settings]


def write_model(path: Path, settings: Settings, *, seed: int = 3) -> dict[str, Tensor]:
    """A model in which nothing is zero, as after training."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: value + 0.05 * torch.randn(value.shape, generator=generator)
        for name, value in new_network(settings).state_dict().items()
    }
    save_checkpoint(path, Checkpoint(state, settings, OWN, 7))
    return state


@pytest.fixture
def settings_of(tmp_path: Path, make_settings: Make, make_store) -> Make:
    """Settings of a run of two prepared sites that starts from `initial.safetensors`."""
    for name in ("alder", "birch"):
        make_store(name)

    def make(name: str = "run", **changes: object) -> Settings:
        places = {
            "run__name": name,
            "run__output": str(tmp_path / name),
            "run__initial": str(tmp_path / "initial.safetensors"),
            "data__sites": str(tmp_path / "sites"),
        }
        return make_settings(**(SMALL | places | changes))

    return make


@pytest.fixture
def initial(tmp_path: Path, make_settings: Make) -> dict[str, Tensor]:
    return write_model(tmp_path / "initial.safetensors", make_settings(run__seed=9, **SMALL))


@pytest.fixture
def run(settings_of: Make) -> Run:
    def start(name: str = "run", **changes: object) -> Path:
        settings = settings_of(name, **changes)
        Federation(DirectPost(settings, ALL), settings).run()
        return Path(settings.run.output)

    return start


def history(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]


def state(output: Path, name: str = "last") -> dict[str, Tensor]:
    return dict(load_checkpoint(output / f"{name}.safetensors").state)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def site_folders(settings: Settings) -> Iterator[Path]:
    for name in ("alder", "birch"):
        yield run_folder(Path(settings.data.sites) / name, settings)


def floats(*names: str, of: dict[str, Tensor]) -> int:
    return sum(of[name].numel() for name in names)


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


PRIVATE = {
    "privacy__unit": "subject",
    "privacy__epsilon": 50.0,
    "privacy__noise_multiplier": 2.0,  # nothing to calibrate
    "privacy__accountant": "rdp",
    "privacy__delta": 0.1,
    "privacy__subjects_per_step": 2,
    "privacy__slabs_per_subject": 1,
    "training__learning_rate": 1e-4,
}


def test_private_run_trains_the_norms_of_a_model_alone(run: Run, initial) -> None:
    output = run(exchange__trained="norms", **PRIVATE)
    norms, found = members(initial, ["norms"]), state(output)
    assert all(torch.equal(found[n], initial[n]) for n in initial.keys() - norms)
    assert not any(torch.equal(found[n], initial[n]) for n in norms if n.startswith("pet_arm"))
    assert load_checkpoint(output / "last.safetensors").standardisation == OWN


def test_private_run_without_a_model_takes_the_public_reference(run: Run) -> None:
    output = run(run__initial="", federation__rounds=1, **PRIVATE)
    assert load_checkpoint(output / "last.safetensors").standardisation == SCHEMES["adni"].reference


@pytest.mark.slow
def test_the_same_again_gives_the_same(run: Run, initial) -> None:
    codecs = {"exchange__uplink": "int8", "exchange__downlink": "int8"}
    one, other = (run(name, exchange__trained="norms, heads", **codecs) for name in "ab")
    assert same(state(one), state(other))


class TestResumed:
    def test_after_a_kill_it_ends_with_the_same_although_the_model_is_gone(
        self, run: Run, initial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there = run("undisturbed", exchange__trained="norms, clinical")
        train = client.site.Site.train

        def stop(self: Site, task) -> object:
            if (task.site, task.round) == ("birch", 1):
                raise KeyboardInterrupt
            return train(self, task)

        with monkeypatch.context() as patch:
            patch.setattr(client.site.Site, "train", stop)
            with pytest.raises(KeyboardInterrupt):
                run("killed", exchange__trained="norms, clinical")
        (tmp_path / "initial.safetensors").unlink()
        here = run("killed", exchange__trained="norms, clinical", run__resume=True)
        for name in MODELS:
            assert same(state(here, name), state(there, name))

    def test_without_the_kept_parts_it_is_one_clear_message(self, run: Run, initial) -> None:
        output = run(exchange__trained="norms", federation__rounds=1)
        (output / "last.safetensors").unlink()
        (output / "rounds" / "start.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"start\.safetensors: not a readable"):
            run(exchange__trained="norms", federation__rounds=1, run__resume=True)


@pytest.mark.slow
class TestForgetfulSite:
    @pytest.fixture
    def disturbed(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
        """Do something to a site's folder before it is asked to train its second round."""

        def start(name: str, disturb: Callable[[Path], None], **changes: object) -> Path:
            train, done = client.site.Site.train, []

            def first(self: Site, task) -> object:
                if (task.site, task.round) == ("birch", 1) and not done:
                    done.append(task)
                    disturb(self.memory.folder)
                return train(self, task)

            monkeypatch.setattr(client.site.Site, "train", first)
            output = run(name, **changes)
            assert done
            return output

        return start

    @pytest.mark.parametrize("damage", ["removed", "torn", "other values"])
    def test_is_sent_again_what_the_model_says_of_the_rest(
        self, run: Run, disturbed, initial, damage: str
    ) -> None:
        def spoil(folder: Path) -> None:
            path = folder / START
            content = path.read_bytes()
            path.unlink()
            if damage != "removed":
                path.write_bytes(content[:-4] + (b"" if damage == "torn" else b"\0\0\0\1"))

        there = run("undisturbed", exchange__trained="norms")
        here = disturbed("disturbed", spoil, exchange__trained="norms")
        assert same(state(here), state(there)), "its moments were still there"
        whole, norms = (4 * floats(*n, of=initial) for n in (initial, members(initial, ["norms"])))
        assert history(here)[1]["bytes_down"] == {"alder": norms, "birch": norms + whole}
        assert history(here)[1]["failures"] == {}

    def test_that_lost_everything_is_sent_everything(self, disturbed, initial) -> None:
        output = disturbed("disturbed", shutil.rmtree, exchange__trained="norms")
        whole, norms = (4 * floats(*n, of=initial) for n in (initial, members(initial, ["norms"])))
        assert [r["bytes_down"]["birch"] for r in history(output)] == [whole, norms + whole, norms]
        assert all(r["failures"] == {} for r in history(output))

    def test_the_parts_outlive_old_rounds(self, run: Run, initial, settings_of: Make) -> None:
        output = run(exchange__trained="norms", federation__rounds=4)
        assert [r["bytes_down"]["alder"] for r in history(output)][1:] == [
            4 * floats(*members(initial, ["norms"]), of=initial)
        ] * 4
        for folder in site_folders(settings_of(exchange__trained="norms", federation__rounds=4)):
            assert len(list(folder.glob("round-*"))) == 2
            assert (folder / START).is_file()


@pytest.mark.slow
def test_another_model_under_the_same_name_is_not_answered_with_the_old_answer(
    run: Run, initial, tmp_path: Path, make_settings: Make
) -> None:
    """Fresh adapters are the same for every model, so what is exchanged does not tell them apart."""
    chosen = {"exchange__trained": "adapters", "network__adapter_rank": 2, "federation__rounds": 1}
    one = state(run(**chosen))
    other = write_model(tmp_path / "initial.safetensors", make_settings(run__seed=9, **SMALL), seed=8)
    two = state(run(**chosen))
    assert all(torch.equal(two[name], other[name]) for name in other)
    adapters = members(one, ["adapters"])
    assert not same({n: one[n] for n in adapters}, {n: two[n] for n in adapters})
    fresh = state(run("elsewhere", **chosen))
    assert same(two, fresh)


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


class TestRefused:
    def test_before_any_site_is_asked_and_before_anything_is_written(
        self, settings_of: Make, initial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = settings_of()
        output = Path(settings.run.output)
        output.mkdir()
        (output / "settings.json").write_text("{}")  # of an earlier run, which would be set aside
        monkeypatch.setattr(DirectPost, "ask", None)
        monkeypatch.setattr(DirectPost, "nodes", None)
        (tmp_path / "initial.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"initial\.safetensors: no such file"):
            Federation(DirectPost(settings, ALL), settings).run()
        assert (output / "settings.json").is_file()
        assert not output.with_name("run-1").exists()

    def test_a_site_without_the_parts_is_not_silently_served_from_the_seed(
        self, run: Run, initial, settings_of: Make
    ) -> None:
        """A server that says nothing of the start is refused."""
        from pasta_model.errors import ExchangeError
        from tests.support.tasks import Leader

        settings = settings_of(exchange__trained="norms")
        leader = Leader(settings, "alder")
        with pytest.raises(ExchangeError, match="where it starts from"):
            Site(Path(settings.data.sites) / "alder", settings).train(leader.whole(0, OWN))
