# SPDX-License-Identifier: Apache-2.0
"""What a run may start from, and what is refused before any site is asked."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pasta_model.checkpoint import Checkpoint, new_network, save_checkpoint
from pasta_model.config import Settings, settings_from_flat
from pasta_model.data.clinical import SCHEMES, Moments, Standardisation, clinical_table
from pasta_model.errors import CheckpointError
from pasta_model.network.parts import members
from server import start
from server.start import KeptParts, Start, refuse_bad_start, standardisation_of, start_of

SHAPE = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"
OWN = Standardisation((70.0, 0.4, 15.0, 26.0, 18.0, 0.5), (8.0, 0.5, 3.0, 3.0, 9.0, 0.6))


@pytest.fixture(autouse=True)
def real_network(monkeypatch: pytest.MonkeyPatch, small_model: None) -> None:
    """The starts here are of the real network."""
    monkeypatch.setattr(start, "new_network", new_network)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Settings]:
    def make(**changes: bool | float | str) -> Settings:
        values = {"network.shape": SHAPE, "sampling.hop": 4, "run.output": str(tmp_path / "run")}
        return settings_from_flat(
            values | {k.replace("__", ".").replace("_", "-"): v for k, v in changes.items()}
        )

    return make


@pytest.fixture
def saved(tmp_path: Path, make) -> Callable[..., dict[str, Tensor]]:
    """Save a model with some settings of its own; return its weights."""

    def save(
        change: Callable[[dict[str, Tensor]], None] = lambda state: None, **changes: bool | float | str
    ) -> dict[str, Tensor]:
        settings = make(run__seed=5, **changes)
        state = {name: value + 0.01 for name, value in new_network(settings).state_dict().items()}
        change(state)
        columns = len(SCHEMES[settings.data.clinical].columns)
        own = Standardisation(OWN.mean[:columns], OWN.spread[:columns])
        save_checkpoint(tmp_path / "initial.safetensors", Checkpoint(state, settings, own, 3))
        return state

    return save


@pytest.fixture
def run(tmp_path: Path, make) -> Callable[..., Settings]:
    return lambda **changes: make(run__initial=str(tmp_path / "initial.safetensors"), **changes)


def test_without_a_model_it_is_the_seeds_weights(make) -> None:
    found = start_of(make(run__seed=4))
    wanted = new_network(make(run__seed=4)).state_dict()
    assert found.standardisation is None
    assert all(torch.equal(found.state[name], wanted[name]) for name in wanted)


def test_with_a_model_it_is_its_weights_and_its_standardisation(saved, run) -> None:
    state = saved()
    found = start_of(run(run__seed=4))
    assert found.standardisation == OWN
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[name], state[name]) for name in state)


def test_imported_model_has_no_standardisation_and_the_run_takes_its_own(saved, run, make, tmp_path) -> None:
    state, path = saved(), tmp_path / "initial.safetensors"
    unscaled = Standardisation((0.0,) * 6, (1.0,) * 6)  # as `import_published` writes it
    save_checkpoint(path, Checkpoint(state, make(), unscaled, 0))
    assert start_of(run()).standardisation is None
    saved(data__clinical="none")
    assert start_of(run(data__clinical="none")).standardisation == Standardisation((), ())


def test_settings_that_the_weights_do_not_depend_on_may_differ(saved, run) -> None:
    saved(training__learning_rate=0.1, federation__rounds=3, network__size="small")
    start_of(run())


def test_other_spacing_or_schedule_is_said_not_refused(saved, run, caplog) -> None:
    saved(data__spacing=1.5, diffusion__timestep_stride=5)
    with caplog.at_level(logging.WARNING):
        start_of(run())
    assert "data.spacing 1.5, the run has 3.0" in caplog.text
    assert "diffusion.timestep-stride 5, the run has 10" in caplog.text


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"network__shape": SHAPE.replace("width 8", "width 16")}, "network.shape: found"),
        ({"network__shape": SHAPE.replace("groups 4", "groups 2")}, "network.shape: found"),
        ({"network__shape": SHAPE.replace("heads 1", "heads 2")}, "network.shape: found"),
        ({"network__clinical_both_directions": True}, "clinical-both-directions: found True, wanted False"),
        ({"data__clinical": "demographics"}, "data.clinical: found 'demographics', wanted 'adni'"),
        ({"network__adapter_rank": 3}, "network.adapter-rank: found 3, wanted 0"),
    ],
)
def test_another_network_is_refused(saved, run, own: dict, said: str) -> None:
    saved(**own)
    with pytest.raises(CheckpointError) as error:
        start_of(run())
    assert said in str(error.value)
    assert str(error.value).count("initial.safetensors: run.initial cannot be the start of this run") == 1


def test_all_differences_are_told_at_once(saved, run) -> None:
    saved(network__shape=SHAPE.replace("groups 4", "groups 2"), data__clinical="none")
    with pytest.raises(CheckpointError, match=r"2 problem\(s\)"):
        start_of(run())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("pet_arm.stem.weight"), "1 missing (as pet_arm.stem.weight)"),
        (lambda state: state.update(extra=torch.zeros(2)), "1 unknown (as extra)"),
        (
            lambda state: state["mri_arm.stem.bias"].fill_(float("nan")),
            "NaN or infinity, as mri_arm.stem.bias",
        ),
    ],
    ids=["missing", "unknown", "nan"],
)
def test_damaged_weights_are_refused(saved, run, change, said: str) -> None:
    saved(change)
    with pytest.raises(CheckpointError) as error:
        start_of(run())
    assert said in str(error.value)
    assert "initial.safetensors: " in str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x08\0\0\0\0\0\0\0{}      "])
def test_missing_or_unreadable_file_is_one_clear_message(run, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "initial.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"initial\.safetensors: (no such|not a readable|format None)"):
        refuse_bad_start(run())


def test_folder_is_no_model(run, tmp_path: Path) -> None:
    (tmp_path / "initial.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="no such file"):
        refuse_bad_start(run())


def test_run_that_goes_on_needs_its_model_no_more(run, tmp_path: Path) -> None:
    (tmp_path / "run" / "rounds" / "after-00002").mkdir(parents=True)
    refuse_bad_start(run(run__resume=True))
    with pytest.raises(CheckpointError):
        refuse_bad_start(run(run__resume=False))


def test_model_without_adapters_gets_fresh_ones(saved, run) -> None:
    state = saved()
    found = start_of(run(network__adapter_rank=2, run__seed=4)).state
    fresh = new_network(run(network__adapter_rank=2, run__seed=4)).state_dict()
    adapters = members(found, ["adapters"])
    assert found.keys() == fresh.keys()
    assert adapters
    assert all(torch.equal(found[name], fresh[name]) for name in adapters)
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_model_with_adapters_of_another_rank(saved, run) -> None:
    saved(network__adapter_rank=2)
    start_of(run(network__adapter_rank=2))
    with pytest.raises(CheckpointError, match="adapter-rank: found 2, wanted 4"):
        start_of(run(network__adapter_rank=4))


def test_weights_of_half_precision_are_widened(saved, run, tmp_path: Path) -> None:
    saved(lambda state: state.update({name: value.bfloat16() for name, value in state.items()}))
    assert {value.dtype for value in start_of(run()).state.values()} == {torch.float32}


class TestStandardisation:
    moments = Moments.of(clinical_table([{"age": 60.0}, {"age": 80.0}], SCHEMES["adni"]))

    def test_of_all_sites_together(self, make) -> None:
        found = standardisation_of(Start({}, None), make(), [self.moments, self.moments])
        assert (found.mean[0], found.spread[0]) == (70.0, 10.0)

    def test_of_the_model(self, make) -> None:
        for unit in ("none", "subject"):
            assert standardisation_of(Start({}, OWN), make(privacy__unit=unit), [self.moments]) == OWN

    @pytest.mark.parametrize("unit", ["subject", "site"])
    def test_public_in_a_private_run(self, make, unit: str) -> None:
        for scheme in SCHEMES:
            private = make(privacy__unit=unit, aggregation__shares="equal", data__clinical=scheme)
            assert standardisation_of(Start({}, None), private, []) == SCHEMES[scheme].reference


class TestKeptParts:
    def test_from_the_seed_nothing_is_kept_or_sent(self, make, tmp_path: Path) -> None:
        settings = make(exchange__frozen="norms")
        kept = KeptParts(tmp_path, settings)
        kept.write(start_of(settings))
        assert not any(tmp_path.rglob("*.safetensors"))
        assert kept.offer()("") == ("", None)
        assert kept.state().keys() == new_network(settings).state_dict().keys()

    def test_where_all_is_exchanged_nothing_is_kept_or_sent(self, saved, run, tmp_path: Path) -> None:
        saved()
        kept = KeptParts(tmp_path / "run", run())
        kept.write(start_of(run()))
        assert not (tmp_path / "run").exists()
        assert kept.offer()("") == ("", None)
        assert kept.state() == {}

    def test_only_who_has_nothing_is_sent_it_all_the_same_arrays(self, saved, run, tmp_path: Path) -> None:
        state, settings = saved(), run(exchange__trained="norms")
        kept = KeptParts(tmp_path / "run", settings)
        kept.write(start_of(settings))
        offer = KeptParts(tmp_path / "run", settings).offer()
        (digest, rest), (again, nothing) = offer(""), offer("f" * 64)
        assert rest is offer("")[1]
        assert (again, nothing) == (digest, None)
        frozen = state.keys() - members(state, ["norms"])
        assert rest.nbytes == 4 * sum(state[name].numel() for name in frozen)
        assert kept.state().keys() == frozen
        assert all(torch.equal(kept.state()[name], state[name]) for name in frozen)


def test_command_refuses_a_missing_model_with_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it looks for a SuperLink, and with nothing written."""
    import server.cli
    from server.provision.steps import provision

    plan = tmp_path / "plan.toml"
    plan.write_text('[consortium]\nname = "x"\nnames = ["localhost"]\n[[sites]]\nname = "alder"\n')
    provision(plan, tmp_path / "house")
    (tmp_path / "run.toml").write_text('[run]\noutput = "out"\ninitial = "gone.safetensors"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    words = ["run", "run.toml", "--consortium", "house"]
    monkeypatch.setattr(sys, "argv", ["pasta-server", *words])
    with pytest.raises(SystemExit) as stop:
        server.cli.main()
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert (
        said.strip()
        == f"error: {tmp_path / 'gone.safetensors'}: no such file; train first, or check the path"
    )
    assert not (tmp_path / "out").exists()
