# SPDX-License-Identifier: Apache-2.0
"""Runs as the coordinator starts them, with scripts in the place of Flower's commands."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pasta_model.config import Settings, settings_from_flat
from pasta_model.errors import BusyError, CheckpointError, ConfigError, FederationError, PrivacyError
from server.deployment.control import Run
from server.deployment.folder import Deployment
from server.deployment.launcher import app_folder, deployed_settings, launch
from tests.support.deployed import FakeControl


class TestRun:
    def test_settings_as_they_are_deployed(
        self, deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        settings = settings_from_flat({"run.output": "runs/first", "federation.rounds": 7})
        deployed = deployed_settings(settings, deployment)
        assert deployed.run.output == str(tmp_path / "runs" / "first")
        assert deployed.run.resume
        assert deployed.federation.invited == str(deployment.invited)
        assert deployed.federation.rounds == 7
        assert deployed.run.initial == ""
        started = settings_from_flat({"run.initial": "models/twins.safetensors"})
        deployed = deployed_settings(started, deployment)
        assert deployed.run.initial == str(tmp_path / "models" / "twins.safetensors")

    def test_model_that_is_not_there_is_told_before_anything_else(
        self, deployment: Deployment, tmp_path: Path
    ) -> None:
        started = settings_from_flat({"run.initial": str(tmp_path / "gone.safetensors")})
        with pytest.raises(CheckpointError, match=r"gone\.safetensors: no such file"):
            launch(deployment, started, app=tmp_path)

    def test_privacy_that_cannot_be_kept_is_told_before_anything_else(
        self, deployment: Deployment, tmp_path: Path
    ) -> None:
        private = {"privacy.unit": "site", "aggregation.shares": "equal", "privacy.noise-multiplier": 1.0}
        deployed = deployed_settings(settings_from_flat({**private, "privacy.delta": 0.5}), deployment)
        with pytest.raises(
            PrivacyError, match=r"(?s)2 problem.*less than 1 / sites = 0\.5.*32 rounds at noise"
        ):
            launch(deployment, deployed, app=tmp_path)

    def test_lines_are_told_and_the_settings_reach_flower(
        self, live: Deployment, control: FakeControl, tmp_path: Path
    ) -> None:
        lines: list[str] = []
        launch(live, settings(tmp_path), app=tmp_path, tell=lines.append)
        assert lines[0].startswith(f"the bundle is {'0' * 64}")
        assert "Successfully started run 42" in lines
        assert f'run.output = "{tmp_path / "run"}"' in lines
        assert control.done == []

    def test_without_superlink_it_says_how_to_start_it(
        self, deployment: Deployment, flower: Callable[..., None], control: FakeControl, tmp_path: Path
    ) -> None:
        with pytest.raises(FederationError, match=f"pasta-server superlink {deployment.folder}"):
            launch(deployment, settings(tmp_path), app=tmp_path)

    def test_run_that_failed_is_an_error_though_flower_exits_with_0(
        self, live: Deployment, flower: Callable[..., None], control: FakeControl, tmp_path: Path
    ) -> None:
        flower(status="finished:failed")
        with pytest.raises(FederationError, match="'finished:failed': why it ended"):
            launch(live, settings(tmp_path), app=tmp_path)

    def test_earlier_run_of_the_same_output_is_stopped_and_no_other(
        self, live: Deployment, control: FakeControl, tmp_path: Path
    ) -> None:
        control.runs = [Run(1, "/elsewhere", "running"), Run(2, str(tmp_path / "run"), "running")]
        launch(live, settings(tmp_path), app=tmp_path)
        assert control.done == [("stop", 2)]

    def test_interruption_stops_the_run(
        self, live: Deployment, flower: Callable[..., None], control: FakeControl, tmp_path: Path
    ) -> None:
        flower(seconds=600.0)

        def interrupt(line: str) -> None:
            if "started run" in line:
                control.runs = [Run(42, str(tmp_path / "run"), "running")]
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            launch(live, settings(tmp_path), app=tmp_path, tell=interrupt)
        assert control.done == [("stop", 42)]

    def test_two_commands_for_one_output_are_refused(
        self, live: Deployment, control: FakeControl, tmp_path: Path
    ) -> None:
        def second(line: str) -> None:
            if "started run" in line:
                with pytest.raises(BusyError, match="another process is at work"):
                    launch(live, settings(tmp_path), app=tmp_path)

        launch(live, settings(tmp_path), app=tmp_path, tell=second)

    def test_app_is_this_checkout_unless_one_is_given(self, tmp_path: Path) -> None:
        assert (app_folder(None) / "server" / "server_app.py").is_file()
        with pytest.raises(ConfigError, match=r"no pyproject\.toml of an app"):
            app_folder(tmp_path)


def settings(tmp_path: Path) -> Settings:
    return settings_from_flat({"run.output": str(tmp_path / "run")})
