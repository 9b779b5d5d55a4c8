# SPDX-License-Identifier: Apache-2.0
"""`pasta-sim`: what it hands to the demo, with the demo itself left out."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import simulation.cli
from simulation.demo import Demo

QUICK = "[federation]\nrounds = 2\n"


class Reached(Exception):  # noqa: N818 - no fault, a way out
    """The demo would run now."""

    def __init__(self, demo: Demo) -> None:
        super().__init__()
        self.demo = demo


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Demo]:
    """Run a command line as far as the demo, and return that."""

    def stop(demo: Demo) -> None:
        raise Reached(demo)

    monkeypatch.setattr("pasta_model.console.log_to_console", lambda *, verbose: None)
    monkeypatch.setattr(Demo, "run", stop)

    def run(*words: str | Path) -> Demo:
        monkeypatch.setattr(sys, "argv", ["pasta-sim", *map(str, words)])
        with pytest.raises(Reached) as reached:
            simulation.cli.main()
        return reached.value.demo

    return run


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of an earlier demo."""
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "demo.json").write_text("{}")
    (folder / "report.html").write_text("<html>")
    return folder


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return path


def test_words_reach_the_demo(call: Callable[..., Demo], tmp_path: Path) -> None:
    words = ("--output", tmp_path / "demo", "--seed", 7, "--workers", 3)
    demo = call("demo", *words, "--config", config(tmp_path, QUICK))
    assert demo.output == tmp_path / "demo"
    assert (demo.settings.run.seed, demo.cohort.seed) == (7, 7)
    assert demo.settings.federation.rounds == 2
    assert demo.workers == 3
    assert (demo.app / "pyproject.toml").is_file()


def test_relative_output_is_made_absolute_for_the_processes_of_flower(
    call: Callable[..., Demo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    demo = call("demo", "--output", "here")
    assert demo.output == tmp_path / "here"
    assert demo.settings.run.output == str(tmp_path / "here" / "federated")


def test_earlier_demo_is_kept_unless_a_fresh_one_is_asked_for(call: Callable[..., Demo], old: Path) -> None:
    call("demo", "--output", old)
    assert (old / "report.html").is_file()
    call("demo", "--output", old, "--fresh")
    assert not old.exists()


def test_fresh_demo_never_removes_a_folder_of_other_files(call: Callable[..., Demo], old: Path) -> None:
    (old / "demo.json").unlink()
    call("demo", "--output", old, "--fresh")
    assert (old / "report.html").is_file()


def test_fresh_demo_with_a_typo_in_its_settings_removes_nothing(
    old: Path, tmp_path: Path, call: Callable[..., Demo], monkeypatch: pytest.MonkeyPatch
) -> None:
    typo = config(tmp_path, "[federation]\nround = 2\n")
    words = ("pasta-sim", "demo", "--output", old, "--fresh", "--config", typo)
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(SystemExit) as stop:
        simulation.cli.main()
    assert stop.value.code == 2
    assert (old / "report.html").is_file()


def test_cohort_has_the_spacing_of_the_settings(call: Callable[..., Demo], tmp_path: Path) -> None:
    settings = config(tmp_path, "[data]\nspacing = 1.5\n")
    demo = call("demo", "--output", tmp_path / "demo", "--config", settings)
    assert demo.cohort.spacing == demo.settings.data.spacing


def test_seed_of_the_settings_is_used_where_no_other_is_given(
    call: Callable[..., Demo], tmp_path: Path
) -> None:
    settings = config(tmp_path, "[run]\nseed = 7\n")
    assert call("demo", "--output", tmp_path / "demo", "--config", settings).settings.run.seed == 7


def test_ctrl_c_is_answered_with_a_word_and_status_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: Demo) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pasta_model.console.log_to_console", lambda *, verbose: None)
    monkeypatch.setattr(Demo, "run", interrupt)
    monkeypatch.setattr(sys, "argv", ["pasta-sim", "demo", "--output", str(tmp_path / "demo")])
    with pytest.raises(SystemExit) as stop:
        simulation.cli.main()
    assert stop.value.code == 130
    assert "the same command goes on from here" in capsys.readouterr().err
