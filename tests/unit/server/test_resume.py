# SPDX-License-Identifier: Apache-2.0
"""Nothing is lost: a server that dies anywhere goes on from the last completed round, to the same weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message

from pasta_model import files
from pasta_model.checkpoint import load_checkpoint
from pasta_model.errors import CheckpointError
from pasta_model.exchange import packing
from pasta_model.exchange.contents import TrainTask
from server import questions, records, update
from server.records import RunFolder
from server.spool import Spool
from tests.support.sites import Sites, parcel_of, weight

LOSSY = {
    "federation__rounds": 4,
    "exchange__uplink": "int8",
    "exchange__downlink": "int4",
    "aggregation__rule": "fedadam",
    "aggregation__learning_rate": 0.5,
}


class Killed(BaseException):
    """The process is gone: nothing catches this."""


def kill_at(monkeypatch: pytest.MonkeyPatch, place: object, name: str, call: int, *, before: bool) -> None:
    """Die at the given call of a function, before or after its work."""
    real = getattr(place, name)
    calls = 0

    def dying(*arguments, **keywords):
        nonlocal calls
        calls += 1
        if calls == call and before:
            raise Killed
        result = real(*arguments, **keywords)
        if calls == call:
            raise Killed
        return result

    monkeypatch.setattr(place, name, dying)


def final(folder: Path) -> dict[str, list]:
    """All that a run leaves for good."""
    found = {}
    for name in ("model", "last", "average"):
        checkpoint = load_checkpoint(folder / f"{name}.safetensors")
        found[name] = [
            checkpoint.round,
            checkpoint.standardisation,
            *checkpoint.state["weight"].flatten().tolist(),
        ]
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    kept = ("round", "loss", "valid_mae", "shares", "norms", "failures")
    found["history"] = [{name: line[name] for name in kept} for line in lines]
    number = len(lines) - 1
    for name in ("master", "reference", "momentum", "second"):
        path = folder / "rounds" / f"after-{number:05d}" / f"{name}.safetensors"
        found[name] = np.fromfile(path, np.uint8)[-16:].tolist() if path.is_file() else []
    return found


PLACES: dict[str, tuple[object, str, int, bool]] = {
    "before the first folder is whole": (records, "write_json", 2, True),
    "a round's answers begin to come": (Spool, "add", 3, True),
    "one of a round's answers is there": (Spool, "add", 5, False),
    "all of a round's answers are there": (Spool, "far_out", 2, False),
    "before the best model is kept": (RunFolder, "publish", 2, True),
    "after the best model is kept": (RunFolder, "publish", 2, False),
    "in the middle of closing": (update, "combined", 4, False),
    "in the middle of the server's step": (update, "server_step", 3, False),
    "before the step is kept": (RunFolder, "save_step", 2, True),
    "after the step is kept": (RunFolder, "save_step", 2, False),
    "before a round's state is written": (records, "write_json", 4, True),
    "before old rounds go": (records, "remove_folder", 1, True),
    "in the middle of an old round's going": (files.shutil, "rmtree", 9, True),
    "after old rounds went": (records, "remove_folder", 2, False),
    "after a round": (RunFolder, "write_history", 3, False),
    "before the last measurement": (questions.Questions, "measure", 1, True),
    "after the last measurement": (questions.Questions, "measure", 1, False),
    "at the very end": (RunFolder, "finish", 1, True),
    "after the end": (RunFolder, "finish", 1, False),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("times", [1, 2])
def test_killed_anywhere_and_resumed_it_ends_with_the_same(
    run, monkeypatch: pytest.MonkeyPatch, place: str, times: int
) -> None:
    monkeypatch.setattr(packing, "BUFFER_BYTES", 8)  # two buffers a vector
    _, there = run(Remembering("ABC"), output="undisturbed", **LOSSY)
    sites = Remembering("ABC")
    where, name, call, before = PLACES[place]
    killed = 0
    for _ in range(times):
        with monkeypatch.context() as patch:
            kill_at(patch, where, name, call, before=before)
            try:
                run(sites, run__resume=True, **LOSSY)
            except Killed:
                killed += 1
    assert killed
    _, here = run(sites, run__resume=True, **LOSSY)
    assert final(here) == final(there)


class Remembering(Sites):
    """Sites that give the answer again that they gave, as real ones do."""

    def __init__(self, names: str = "AB") -> None:
        super().__init__(names, codec="int8")
        self.answers: dict[tuple[str, int, str], object] = {}

    def train(self, message: Message, context: Context) -> Message:
        """Answer, or answer the same once more."""
        task = TrainTask.of(parcel_of(message))
        key = (task.site, task.round, task.target)
        if key not in self.answers:
            self.answers[key] = super().train(message, context).content
        return Message(self.answers[key], reply_to=message)


@pytest.mark.parametrize("interrupted", [1, 2])
def test_completed_rounds_are_not_trained_again(run, interrupted: int) -> None:
    undisturbed, there = run(output="undisturbed", federation__rounds=3)
    sites = Sites()

    def stop(task) -> None:
        if task.round == interrupted:
            raise KeyboardInterrupt

    sites.on_train = stop
    with pytest.raises(KeyboardInterrupt):
        run(sites, federation__rounds=3)
    sites.on_train = lambda task: None
    sites.trained.clear()
    resumed, here = run(sites, run__resume=True, federation__rounds=3)
    assert sites.trained == [(site, n) for n in range(interrupted, 3) for site in "AB"]
    for name in ("model", "last", "average"):
        assert weight(here / f"{name}.safetensors") == weight(there / f"{name}.safetensors")
    assert (resumed.best_round, resumed.best_mae) == (undisturbed.best_round, undisturbed.best_mae)
    assert resumed.standardisation == undisturbed.standardisation
    for one, other in zip(resumed.history, undisturbed.history, strict=True):
        assert (one.round, one.loss, one.valid_mae, one.shares) == (
            other.round, other.loss, other.valid_mae, other.shares
        )  # fmt: skip


def test_what_a_killed_process_left_half_written_goes(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL runs no cleanup: the folder of an open round stays, as large as the round."""
    sites = Sites()
    run(sites, federation__rounds=1)
    _, folder = run(sites, output="other", federation__rounds=1)
    for name in (".partial-round", ".partial-file.safetensors"):
        (folder / "rounds" / name).mkdir()
    (folder / ".partial-x.json").write_text("{")
    run(sites, output="other", run__resume=True, federation__rounds=1)
    assert not list(folder.rglob(".partial-*"))


def test_without_resume_a_run_starts_again_and_the_earlier_one_is_kept(run) -> None:
    run()
    sites = Sites()
    _, folder = run(sites)
    assert len(sites.trained) == 4
    assert weight(folder / "last.safetensors") == 14.0
    assert len((folder / "history.jsonl").read_text().splitlines()) == 3
    assert weight(folder.with_name("run-1") / "last.safetensors") == 14.0


@pytest.mark.parametrize(
    "change",
    [
        {"training__learning_rate": 0.5},
        {"exchange__downlink": "int8"},
        {"exchange__personal": "norms"},
        {"aggregation__rule": "median"},
        {"federation__held_out": "C"},
        {"run__seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_refuse(run, change: dict) -> None:
    run(Sites("ABC"))
    with pytest.raises(CheckpointError, match=r"made with other settings.*run\.resume=false"):
        run(Sites("ABC"), run__resume=True, **change)


@pytest.mark.parametrize(
    "change",
    [{"federation__patience": 1.0}, {"federation__min_sites": 1}, {"federation__join_deadline": 0.02}],
)
def test_what_does_not_shape_the_weights_may_change(run, change: dict) -> None:
    run()
    run(run__resume=True, **change)


def test_where_there_is_nothing_yet_a_run_begins(run) -> None:
    _, folder = run(run__resume=True)
    assert weight(folder / "last.safetensors") == 14.0


def test_finished_run_only_measures_again(run) -> None:
    run()
    sites = Sites()
    progress, folder = run(sites, run__resume=True)
    assert sites.trained == []
    assert weight(folder / "last.safetensors") == 14.0
    assert [record.round for record in progress.history] == [0, 1, 2]


def test_damaged_state_is_named(run) -> None:
    _, folder = run()
    (folder / "rounds" / "after-00002" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"after-00002: its state cannot be read.*remove it"):
        run(run__resume=True)


@pytest.mark.parametrize("name", ["master", "reference", "average", "second"])
def test_torn_vector_is_refused_not_continued(run, tmp_path: Path, name: str) -> None:
    sites = Sites()

    def stop(task) -> None:
        if task.round == 1:
            raise KeyboardInterrupt

    sites.on_train = stop
    with pytest.raises(KeyboardInterrupt):
        run(sites, aggregation__rule="fedyogi")
    sites.on_train = lambda task: None
    path = tmp_path / "run" / "rounds" / "after-00001" / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"{name}\.safetensors: not the tensors"):
        run(sites, run__resume=True, aggregation__rule="fedyogi")
