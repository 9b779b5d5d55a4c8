# SPDX-License-Identifier: Apache-2.0
"""The demo's hold on its folder, and its stages that are there already."""

import json
from collections.abc import Callable
from concurrent.futures import Future
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pasta_model.config import Settings
from pasta_model.data.manifest import read_splits
from pasta_model.errors import ConfigError, FederationError, VolumeError
from simulation import demo as demo_module
from simulation.demo import Demo
from simulation.demo_settings import demo_cohort, demo_settings
from simulation.twins.cohort import CohortSettings, SiteSettings

COHORT = CohortSettings(seed=3, sites=(SiteSettings(name="alder", subjects=4),))


@pytest.fixture
def make_demo(tmp_path: Path) -> Callable[..., Demo]:
    def make(cohort: CohortSettings = COHORT, seed: int = 3) -> Demo:
        output = tmp_path / "demo"
        settings = demo_settings(output, seed=seed)
        return Demo(Path("/app"), output, settings, cohort, Console(file=StringIO()), workers=1)

    return make


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("made", [False, True], ids=["new", "empty"])
def test_new_or_empty_folder_is_claimed(made: bool, make_demo: Callable[..., Demo]) -> None:
    demo = make_demo()
    if made:
        demo.output.mkdir()
    demo._claim_folder()
    assert names(demo.output) == ["demo.json"]
    marker = json.loads((demo.output / "demo.json").read_text())
    assert marker["settings"] == demo.settings.flat()
    assert marker["cohort"]["sites"][0]["subjects"] == 4


def test_folder_of_other_files_is_refused_and_left_alone(make_demo: Callable[..., Demo]) -> None:
    demo = make_demo()
    demo.output.mkdir()
    (demo.output / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="holds other files; choose an empty or new folder"):
        demo.run()
    assert names(demo.output) == ["thesis.tex"]


def test_folder_of_the_same_demo_is_kept(make_demo: Callable[..., Demo]) -> None:
    make_demo()._claim_folder()
    (make_demo().output / "cohort").mkdir()
    make_demo()._claim_folder()
    assert names(make_demo().output) == ["cohort", "demo.json"]


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"cohort": COHORT.model_copy(update={"seed": 4})}], ids=["settings", "cohort"]
)
def test_demo_of_other_settings_is_refused_and_kept(change: dict, make_demo: Callable[..., Demo]) -> None:
    make_demo()._claim_folder()
    (make_demo().output / "cohort").mkdir()
    with pytest.raises(ConfigError, match=r"demo of other settings.*--fresh"):
        make_demo(**change)._claim_folder()
    assert names(make_demo().output) == ["cohort", "demo.json"]


def test_damaged_marker_is_refused(make_demo: Callable[..., Demo]) -> None:
    demo = make_demo()
    demo.output.mkdir()
    (demo.output / "demo.json").write_text("{")
    with pytest.raises(ConfigError, match=r"demo\.json"):
        demo._claim_folder()


def test_finished_federation_is_not_started_again(
    make_demo: Callable[..., Demo], monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = make_demo()
    (demo.output / "federated").mkdir(parents=True)
    (demo.output / "federated" / "last.safetensors").touch()
    monkeypatch.setattr(demo_module, "run_simulation", None)  # a call would be a TypeError
    demo._federate(1)


def test_federation_is_started_with_the_settings_of_the_demo(
    make_demo: Callable[..., Demo], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def record(app: Path, *, on_line: Callable[[str], None], **keywords: object) -> None:
        on_line("2026-11-23 INFO round 3 of 10 done")
        (demo.output / "federated").mkdir(parents=True)
        (demo.output / "federated" / "last.safetensors").touch()
        calls.append((app, keywords))

    demo = make_demo()
    monkeypatch.setattr(demo_module, "run_simulation", record)
    demo._federate(4)
    state = demo.output / "flower"
    wanted = {
        "run_config": demo.settings.flat(),
        "nodes": 4,
        "state": state,
        "cpus_per_node": 1,
        "gpus_per_node": 0.0,
    }
    assert calls == [(Path("/app"), wanted)]
    assert "federated rounds: 3 of 10" in demo.console.file.getvalue()


def test_federation_that_left_no_last_model_has_failed(
    make_demo: Callable[..., Demo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module, "run_simulation", lambda *_, **__: None)
    with pytest.raises(FederationError):
        make_demo()._federate(4)


def test_what_fails_in_a_worker_ends_the_demo(make_demo: Callable[..., Demo]) -> None:
    good: Future[None] = Future()
    good.set_result(None)
    bad: Future[None] = Future()
    bad.set_exception(VolumeError("the scanner is on fire"))
    with pytest.raises(VolumeError, match="on fire"):
        make_demo()._watch([good, bad], "work", lambda: 0, 2)


@pytest.mark.slow
def test_cohort_is_made_once_and_split_by_subject(
    make_demo: Callable[..., Demo], monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = make_demo()
    sessions = demo._cohort()
    assert sorted(s.split or "" for s in sessions) == ["test", "train", "train", "valid"]
    assert read_splits(demo.output / "splits.tsv") == {s.subject: s.split for s in sessions}
    monkeypatch.setattr(demo_module, "build_cohort", None)  # a call would be a TypeError
    assert demo._cohort() == sessions


def test_demo_keeps_its_files_together_and_goes_on(tmp_path: Path) -> None:
    config = tmp_path / "quick.toml"
    config.write_text("[federation]\nrounds = 3\n")
    settings = demo_settings(tmp_path / "demo", seed=5, config=config)
    own = {
        "run.name": "demo",
        "run.seed": 5,
        "run.output": str(tmp_path / "demo" / "federated"),
        "run.resume": True,
        "data.sites": str(tmp_path / "demo" / "sites"),
        "federation.rounds": 3,
    }
    assert settings.flat() == Settings().flat() | own


def test_cohort_of_another_spacing_is_refused() -> None:
    assert demo_cohort(seed=1, spacing=1.5).spacing == 1.5
    with pytest.raises(ConfigError, match=r"spacing: found 2\.0, wanted 1\.5 or 3\.0 mm"):
        demo_cohort(seed=1, spacing=2.0)
