# SPDX-License-Identifier: Apache-2.0
"""Watching a run: events, status, TensorBoard and MLflow say what happened, and never end the run."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pasta_model.errors import FederationError
from server import watch
from server.watch import Watch
from tests.support.sites import Sites, make_settings, refusing, spoil, weight


def events(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_events_tell_the_run_in_order(run) -> None:
    _, folder = run(Sites("AB"), tamper=spoil("B", 0, refusing), federation__min_sites=1)
    told = [(e["event"], e.get("site")) for e in events(folder)]
    assert told[:3] == [("site joined", "A"), ("site joined", "B"), ("started", None)]
    assert told[3:8] == [
        ("site asked", "A"),
        ("site asked", "B"),
        ("site answered", "A"),
        ("site failed", "B"),
        ("round done", None),
    ]
    (failed,) = [e for e in events(folder) if e["event"] == "site failed"]
    assert (failed["round"], failed["why"]) == (0, "code 100: StoreError (reference x)")
    assert [e["sites"] for e in events(folder) if e["event"] == "round done"] == [["A"], ["A", "B"]]
    times = [e["time"] for e in events(folder)]
    assert times == sorted(times)


def test_events_of_a_resumed_run_follow_the_first_ones(run) -> None:
    _, folder = run()
    number = len(events(folder))
    run(run__resume=True)
    assert events(folder)[number]["event"] == "resumed"


def test_status_of_a_finished_run(run) -> None:
    _, folder = run(Sites("ABC"))
    found = status(folder)
    assert (found["run"], found["state"], found["round"], found["rounds"]) == ("pasta", "finished", 2, 2)
    assert found["pid"] == os.getpid()
    assert len(found["round_seconds"]) == 3  # the last measurement is one, too
    assert {name: site["state"] for name, site in found["sites"].items()} == dict.fromkeys("ABC", "answered")
    # Two rounds up; down only the second round's step.
    assert (found["sites"]["A"]["bytes_up"], found["sites"]["A"]["bytes_down"]) == (32, 16)
    assert found["sites"]["B"]["subjects"] == 3


def test_status_while_a_round_is_open(run, tmp_path: Path) -> None:
    seen: list[dict] = []
    sites = Sites("AB")
    sites.on_train = lambda task: seen.append(status(tmp_path / "run"))
    run(sites)
    assert [(s["state"], s["round"], s["asked"]) for s in seen[::2]] == [
        ("training", 0, ["A", "B"]),
        ("training", 1, ["A", "B"]),
    ]
    assert {name: site["state"] for name, site in seen[0]["sites"].items()} == dict.fromkeys("AB", "asked")


def test_run_that_fails_says_so(run, tmp_path: Path) -> None:
    with pytest.raises(FederationError) as error:
        run(tamper=spoil("B", 1, refusing))
    found = status(tmp_path / "run")
    assert (found["state"], found["why"]) == ("failed", str(error.value))
    assert found["waiting_for"] == ["B"]
    assert found["sites"]["B"]["state"] == "failed"


def test_status_is_whole_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    observer = Watch(tmp_path, make_settings(tmp_path, tmp_path))
    observer.stands("training", round=1)
    before = status(tmp_path)

    def torn(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "replace", torn)
    observer.stands("training", round=2)  # no error
    assert status(tmp_path) == before
    assert not list(tmp_path.glob(".partial-*"))


def test_full_disk_of_events_does_not_end_the_run(run, tmp_path: Path, caplog) -> None:
    (tmp_path / "run" / "events.jsonl").mkdir(parents=True)
    _, folder = run()
    assert weight(folder / "last.safetensors") == 14.0
    assert any("events.jsonl cannot be written" in text for text in caplog.messages)


class FakeMLflow(SimpleNamespace):
    """A module `mlflow` that notes what it is told."""

    def __init__(self, *, fails: str = "") -> None:
        self.told: list[tuple] = []
        for name in ("set_experiment", "start_run", "log_params", "log_metrics", "end_run"):
            setattr(self, name, self._note(name, fails=name == fails))

    def _note(self, name: str, *, fails: bool):
        def note(*arguments, **keywords):
            self.told.append((name, arguments, keywords))
            if fails:
                raise ConnectionError("no MLflow here")

        return note


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch):
    def install(**words: str) -> FakeMLflow:
        fake = FakeMLflow(**words)
        monkeypatch.setitem(sys.modules, "mlflow", fake)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        return fake

    return install


def test_mlflow_gets_settings_and_the_numbers_of_every_round(run, mlflow) -> None:
    fake = mlflow()
    run()
    names = [name for name, *_ in fake.told]
    assert names == ["set_experiment", "start_run", "log_params", *["log_metrics"] * 3, "end_run"]
    assert fake.told[1][2] == {"run_name": "pasta"}
    (params,) = fake.told[2][1]
    assert params["federation.rounds"] == 2
    assert "" not in params.values()
    (first,), step = fake.told[3][1], fake.told[3][2]
    assert step == {"step": 0}
    assert (first["loss/A"], first["valid_mae/B"]) == (1.5, 0.2)
    assert "MB" in first
    assert fake.told[5][2] == {"step": 2}


@pytest.mark.parametrize("fails", ["set_experiment", "log_params", "log_metrics", "end_run"])
def test_mlflow_that_fails_does_not_end_the_run(run, mlflow, fails: str) -> None:
    fake = mlflow(fails=fails)
    _, folder = run()
    assert weight(folder / "last.safetensors") == 14.0
    assert status(folder)["state"] == "finished"
    assert [name for name, *_ in fake.told].count(fails) == 1


def test_without_the_extra_the_run_says_so_and_goes_on(run, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    _, folder = run()
    assert weight(folder / "last.safetensors") == 14.0
    assert any("mlflow" in text for text in caplog.messages)


def test_nobody_is_told_who_was_not_asked_for(run, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run()
    assert fake.told == []


def test_tensorboard_has_the_numbers(run, tensorboard) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, folder = run()
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    assert [(e.step, round(e.value, 4)) for e in found.Scalars("valid_mae/A")] == [
        (0, 0.4),
        (1, 0.2),
        (2, 9.0),
    ]
    assert [e.step for e in found.Scalars("loss/B")] == [0, 1]


def test_tensorboard_on_a_full_disk_does_not_end_the_run(
    run, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    class Full:
        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def scalars(self, values, number) -> None:
            raise OSError("No space left on device")

        def close(self) -> None:
            raise OSError("No space left on device")

    monkeypatch.setattr(watch, "TensorBoard", Full)
    _, folder = run()
    assert weight(folder / "last.safetensors") == 14.0
    assert any("No space left" in text for text in caplog.messages)


def test_whom_it_waits_for_is_forgotten_when_it_goes_on(tmp_path: Path) -> None:
    told = Watch(tmp_path, make_settings(tmp_path, tmp_path / "run"))

    def waiting() -> list[str]:
        return json.loads((tmp_path / "status.json").read_text())["waiting_for"]

    told.stands("waiting for sites", waiting_for=["alder"])
    told.site("birch", "joined")
    assert waiting() == ["alder"]
    told.stands("training")
    assert waiting() == []
