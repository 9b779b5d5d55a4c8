# SPDX-License-Identifier: Apache-2.0
"""A rival's training: exact after a kill, the same from the same seed, the best kept, and when it stops."""

import json
import math
from pathlib import Path

import pytest
import torch

from pasta_model.errors import CheckpointError, ConfigError, TrainingError
from pasta_model.training import learning_rate
from simulation.rivals import training
from simulation.rivals.models import load_rival
from simulation.rivals.training import train_rival

FILES = ("model.safetensors", "last.safetensors", "average.safetensors")
EACH = pytest.mark.parametrize("name", ["U-Net", "concatenation", "pix2pix"])


class Killed(BaseException):
    """What no code catches."""


def killing(after: int):
    """A progress that ends the process, as it were, after so many steps."""

    def progress(done: int, total: int) -> None:
        if done == after:
            raise Killed

    return progress


def history(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@EACH
def test_goes_on_after_a_kill_as_if_nothing_had_been(name, trained, tmp_path) -> None:
    whole = trained(name, "whole", steps=5)
    for after in (1, 4):  # before anything is kept; then in the middle of a round
        with pytest.raises(Killed):
            trained(name, "killed", steps=5, checkpoint_steps=2, progress=killing(after))
    assert [path.name for path in (tmp_path / "killed" / "state").iterdir()] == ["after-0000002"]
    seen = []
    trained(name, "killed", steps=5, checkpoint_steps=2, progress=lambda done, total: seen.append(done))
    assert seen[0] == 3, "what was kept is not trained again"
    for file in FILES:
        assert (tmp_path / "killed" / file).read_bytes() == (whole / file).read_bytes()
    assert history(tmp_path / "killed") == history(whole)
    assert {p.name for p in whole.iterdir()} == {*FILES, "history.jsonl", "run.json"}


def test_seed_decides_and_nothing_else(trained, tmp_path) -> None:
    last = [trained("U-Net", folder, run__name=folder) for folder in ("one", "two")]
    states = [load_rival(folder / "last.safetensors").state for folder in last]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    other = load_rival(trained("U-Net", "other", run__seed=5) / "last.safetensors").state
    assert not all(torch.equal(states[0][name], other[name]) for name in other)


def test_finished_training_is_left_alone(trained, monkeypatch) -> None:
    folder = trained("U-Net")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(training, "_Training", None)  # a call would be a TypeError
    seen = []
    assert trained("U-Net", progress=lambda done, total: seen.append((done, total))) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert seen == [(3, 3)]


@pytest.mark.parametrize("changes", [{"run__seed": 4}, {"steps": 4}, {"name": "pix2pix"}])
def test_another_training_in_the_folder_is_refused(trained, changes) -> None:
    folder = trained("U-Net")
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="holds a training with other settings or other data"):
        trained(**{"name": "U-Net", **changes})
    assert (folder / "model.safetensors").read_bytes() == before


def test_best_is_what_the_compass_said(trained, stores, quick, monkeypatch) -> None:
    said = iter([(0.5, 0.9), (0.4, 0.2), (0.6, 0.3)])
    queue = []

    def compass(translator, loader, *, settings):
        if not queue:
            queue.extend(next(said))
        return queue.pop(0)

    monkeypatch.setattr(training, "validation_mae", compass)
    folder = trained("U-Net", steps=4)
    # Both sites train three persons: their errors weigh the same. Rounds are of two steps.
    assert [row["valid_mae"] for row in history(folder)] == [
        {"A": 0.5, "B": 0.9}, {"A": 0.4, "B": 0.2}, {"A": 0.6, "B": 0.3}
    ]  # fmt: skip
    assert [row["step"] for row in history(folder)] == [0, 2, 4]
    assert load_rival(folder / "model.safetensors").step == 2
    assert load_rival(folder / "last.safetensors").step == 4


def test_moving_average_by_hand(trained, monkeypatch) -> None:
    # Rounds of one step; decay 0 in the first, then the smaller of ema-decay and (1 + n) / (10 + n).
    kept = []
    follow = training._Training._follow

    def watched(self, number):
        follow(self, number)
        kept.append({n: v.clone() for n, v in self.translator.network.state_dict().items()})

    monkeypatch.setattr(training._Training, "_follow", watched)
    folder = trained("U-Net", training__local_steps=1, training__ema_decay=0.15)
    name = "unet.final_conv.weight"
    first, second, third = (weights[name] for weights in kept)
    decays = (0.15, 0.15)  # (1 + 1) / (10 + 1) = 0.18 and (1 + 2) / (10 + 2) = 0.25 are larger
    wanted = decays[0] * first + (1 - decays[0]) * second
    wanted = decays[1] * wanted + (1 - decays[1]) * third
    found = load_rival(folder / "average.safetensors").state[name]
    torch.testing.assert_close(found, wanted)


@EACH
def test_rates_are_those_of_pasta_over_these_steps(name, trained, quick, monkeypatch) -> None:
    rates = []
    take = torch.optim.AdamW.step

    def watched(self, *words, **more):
        rates.append({group["lr"] for group in self.param_groups})
        return take(self, *words, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    trained(name, steps=4, training__warmup_steps=1)
    settings = quick(training__warmup_steps=1).training
    wanted = [learning_rate(step, total_steps=4, settings=settings) for step in range(4)]
    turns = 2 if name == "pix2pix" else 1
    assert rates == [{rate} for rate in wanted for _ in range(turns)]


def test_accumulated_batches_count_as_one(trained) -> None:
    folders = [
        trained("U-Net", f"{size}x{parts}", training__batch_size=size, training__accumulation=parts)
        for size, parts in ((4, 1), (2, 2))
    ]
    # Not the same slabs in the same order, but as many: one round's loss is a mean of as many.
    large, parts = (history(folder)[0]["loss"]["network"] for folder in folders)
    assert large == pytest.approx(parts, rel=0.2)


@EACH
def test_stops_on_a_loss_that_is_not_finite(name, trained, tmp_path, monkeypatch) -> None:
    batches = training.Pool.batches

    def spoiled(self, size, *, rng):
        for number, batch in enumerate(batches(self, size, rng=rng)):
            if number == 1 and self.settings.run.seed == 13:
                batch.pet[:] = math.nan
            yield batch

    monkeypatch.setattr(training.Pool, "batches", spoiled)
    who = "critic" if name == "pix2pix" else "network"
    words = rf"loss of the {who} is nan: rival {name}, sites A\+B, step 1; lower training.learning-rate"
    with pytest.raises(TrainingError, match=words):
        trained(name, run__seed=13)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_nothing_to_do_is_refused(stores, quick, tmp_path) -> None:
    for words in ({"steps": 0}, {"steps": 3, "checkpoint_steps": 0}):
        with pytest.raises(ConfigError, match="wanted both at least 1"):
            train_rival("U-Net", stores, quick(), tmp_path / "out", **words)
    with pytest.raises(ConfigError, match="no rival is called 'u-net'"):
        train_rival("u-net", stores, quick(), tmp_path / "out", steps=1)
    assert not (tmp_path / "out").exists()


def test_damaged_state_is_one_message(trained, tmp_path) -> None:
    with pytest.raises(Killed):
        trained("U-Net", steps=5, checkpoint_steps=2, progress=killing(4))
    (tmp_path / "out" / "state" / "after-0000002" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        trained("U-Net", steps=5, checkpoint_steps=2)
    (tmp_path / "out" / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"run.json is damaged"):
        trained("U-Net", steps=5)
