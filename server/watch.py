# SPDX-License-Identifier: Apache-2.0
"""Watching a run: `events.jsonl` (what happened), `status.json` (how it stands now), TensorBoard, MLflow.

All of it is for people. Nothing is ever read back by the run, and a full disk here does not end it.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from pasta_model.config import Settings
from pasta_model.federated_sections import PrivacySettings
from pasta_model.files import write_json

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Where the numbers of a round go."""

    def scalars(self, values: Mapping[str, float], number: int) -> None:
        """Take the numbers of a round, by name."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class TensorBoard:
    """Writes TensorBoard's event files."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def scalars(self, values: Mapping[str, float], number: int) -> None:
        """Take the numbers of a round, by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def close(self) -> None:
        """Finish."""
        self._writer.close()


class MLflow:
    """Sends to the MLflow server that `MLFLOW_TRACKING_URI` names; needs the extra `mlflow`."""

    def __init__(self, settings: Settings) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment("pasta")
        mlflow.start_run(run_name=settings.run.name)
        mlflow.log_params({name: value for name, value in settings.flat().items() if value != ""})

    def scalars(self, values: Mapping[str, float], number: int) -> None:
        """Take the numbers of a round, by name."""
        self._mlflow.log_metrics(dict(values), step=number)

    def close(self) -> None:
        """Finish."""
        self._mlflow.end_run()


class Watch:
    """Tells people how a run stands.

    Parameters
    ----------
    folder
        Of the run.
    settings
        Of the run.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self._settings = settings
        self._sinks: list[Sink] | None = None
        self._status: dict[str, Any] = {
            "run": settings.run.name,
            "state": "starting",
            "round": 0,
            "rounds": settings.federation.rounds,
            "sites": {},
            "waiting_for": [],
            "round_seconds": [],
            "pid": os.getpid(),
        }

    def event(self, what: str, **facts: Any) -> None:
        """Note what happened, as a line."""
        line = json.dumps({"time": time.time(), "event": what, **facts}, sort_keys=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "events.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            logger.warning("events.jsonl cannot be written: %s", error)

    def stands(self, state: str, **facts: Any) -> None:
        """Say how the run stands: `status.json`. Whom it waits for is said anew, or why it failed."""
        if state != "failed":
            self._status["waiting_for"] = []
        self._status |= {"state": state, **facts}
        self._write()

    def _write(self) -> None:
        self._status["time"] = time.time()
        try:
            write_json(self.folder / "status.json", self._status)
        except Exception as error:  # noqa: BLE001 - what is for watching never ends a run
            logger.warning("status.json cannot be written: %s", error)

    def site(self, name: str, state: str, **facts: Any) -> None:
        """Say how a site stands."""
        self._status["sites"].setdefault(name, {}).update({"state": state, "since": time.time(), **facts})
        self.event(f"site {state}", site=name, **facts)
        self._write()

    def spent(self, epsilon: float, settings: PrivacySettings) -> None:
        """Say what the run has spent, where the server adds the noise; each site knows its own otherwise."""
        budget = {"epsilon": settings.epsilon, "delta": settings.delta}
        self._status["privacy"] = {"unit": settings.unit, "spent": epsilon, **budget}
        self._write()

    def reference(self, what: str, **facts: Any) -> None:
        """Say which sites' sums are in the norms, or in what is familiar, and which are not and why."""
        self._status.setdefault("references", {})[what] = facts
        self.event("sums", of=what, **facts)
        self._write()

    def answered(self, name: str, received: int, sent: int) -> None:
        """Count a site's bytes."""
        total = self._status["sites"].setdefault(name, {})
        total["bytes_up"] = total.get("bytes_up", 0) + received
        total["bytes_down"] = total.get("bytes_down", 0) + sent

    def round(self, number: int, seconds: float, values: Mapping[str, float]) -> None:
        """Pass the numbers of a round on."""
        self._status["round_seconds"] = [*self._status["round_seconds"], seconds][-10:]
        for sink in list(self._open()):
            try:
                sink.scalars(values, number)
            except Exception as error:  # noqa: BLE001 - what is for watching never ends a run
                logger.warning("%s is no longer told: %s", type(sink).__name__, error)
                self._open().remove(sink)

    def close(self) -> None:
        """Finish TensorBoard and MLflow."""
        for sink in self._sinks or ():
            with suppress(Exception):
                sink.close()
        self._sinks = None

    def _open(self) -> list[Sink]:
        if self._sinks is None:
            makers: list[Callable[[], Sink]] = [lambda: TensorBoard(self.folder / "tensorboard")]
            if os.environ.get("MLFLOW_TRACKING_URI"):
                makers.append(lambda: MLflow(self._settings))
            self._sinks = []
            for make in makers:
                try:
                    self._sinks.append(make())
                except Exception as error:  # noqa: BLE001 - the run matters more than who watches it
                    logger.warning("a watcher of the run is not told: %s", error)
        return self._sinks
