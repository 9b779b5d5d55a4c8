# SPDX-License-Identifier: Apache-2.0
"""What the server keeps on its disk: one folder a round, the history, the best and the last model."""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from pasta_model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pasta_model.config import Settings
from pasta_model.data.clinical import Standardisation
from pasta_model.errors import CheckpointError
from pasta_model.files import atomic_directory, write_json, write_text

KEPT_ROUNDS = 2
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundRecord:
    """One line of the history; dictionaries are by site."""

    round: int
    loss: Mapping[str, float]
    valid_mae: Mapping[str, float]
    shares: Mapping[str, float]
    failures: Mapping[str, str]
    site_seconds: Mapping[str, float]
    seconds: float
    bytes: int


@dataclass
class Progress:
    """All that a resumed run needs: weights, moving average, history, best so far."""

    next_round: int
    state: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    standardisation: Standardisation
    history: list[RoundRecord] = field(default_factory=list)
    best_mae: float = float("inf")
    best_round: int = -1


class RunFolder:
    """The output folder of a run."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.path = Path(settings.run.output)
        self._board: SummaryWriter | None = None

    @property
    def board(self) -> SummaryWriter:
        """TensorBoard, opened when first needed."""
        if self._board is None:
            self._board = SummaryWriter(str(self.path / "tensorboard"))
        return self._board

    def start(self) -> None:
        """Begin a new run: move an earlier one aside, and write the settings."""
        if (self.path / "settings.json").is_file():
            number = 1
            while (aside := self.path.with_name(f"{self.path.name}-{number}")).exists():
                number += 1
            self.path.rename(aside)
            logger.warning("an earlier run is now in %s", aside)
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "settings.json", self.settings.flat())

    def save_round(self, progress: Progress) -> None:
        """Keep a completed round whole, with the history; older rounds than two go."""
        number = progress.next_round - 1
        with atomic_directory(self._round(number)) as work:
            save_checkpoint(work / "model.safetensors", self._checkpoint(progress, progress.state))
            save_checkpoint(work / "average.safetensors", self._checkpoint(progress, progress.average))
            state = {
                "next_round": progress.next_round,
                "best_mae": progress.best_mae if progress.best_round >= 0 else None,
                "best_round": progress.best_round,
                "history": [asdict(r) for r in progress.history],
                "digest": self.settings.digest(),
            }
            write_json(work / "state.json", state)
        shutil.rmtree(self._round(number - KEPT_ROUNDS), ignore_errors=True)
        self._write_history(progress)

    def save_best(self, progress: Progress, state: Mapping[str, Tensor], *, round_number: int) -> None:
        """Keep the weights that validated best so far as `model.safetensors`."""
        checkpoint = Checkpoint(state, self.settings, progress.standardisation, round_number)
        save_checkpoint(self.path / "model.safetensors", checkpoint)

    def save_last(self, progress: Progress) -> None:
        """Keep the last weights and their moving average, and close the history."""
        self._write_history(progress)
        save_checkpoint(self.path / "last.safetensors", self._checkpoint(progress, progress.state))
        save_checkpoint(self.path / "average.safetensors", self._checkpoint(progress, progress.average))
        self.board.close()

    def resume(self) -> Progress | None:
        """Return the last completed round, or None when there is none.

        Raises
        ------
        CheckpointError
            When it belongs to other settings.
        """
        rounds = sorted(self.path.glob("rounds/round-*"))
        if not rounds:
            return None
        try:
            state: dict[str, Any] = json.loads((rounds[-1] / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{rounds[-1]}: its state cannot be read ({error}); remove it") from error
        if state["digest"] != self.settings.digest():
            raise CheckpointError(
                f"{rounds[-1]}: made with other settings; use the same ones, another run.output, or"
                " run.resume=false to start again"
            )
        model = load_checkpoint(rounds[-1] / "model.safetensors")
        average = load_checkpoint(rounds[-1] / "average.safetensors")
        return Progress(
            next_round=state["next_round"],
            state=model.state,
            average=average.state,
            standardisation=model.standardisation,
            history=[RoundRecord(**r) for r in state["history"]],
            best_mae=float("inf") if state["best_mae"] is None else state["best_mae"],
            best_round=state["best_round"],
        )

    def log(self, record: RoundRecord) -> None:
        """Write a round's metrics to TensorBoard."""
        for site, loss in record.loss.items():
            self.board.add_scalar(f"loss/{site}", loss, record.round)
        for site, mae in record.valid_mae.items():
            self.board.add_scalar(f"valid_mae/{site}", mae, record.round)
        self.board.add_scalar("seconds", record.seconds, record.round)
        self.board.flush()

    def _write_history(self, progress: Progress) -> None:
        lines = [json.dumps(asdict(record), sort_keys=True) for record in progress.history]
        write_text(self.path / "history.jsonl", "\n".join(lines) + "\n")

    def _round(self, number: int) -> Path:
        return self.path / "rounds" / f"round-{number:05d}"

    def _checkpoint(self, progress: Progress, state: Mapping[str, Tensor]) -> Checkpoint:
        return Checkpoint(state, self.settings, progress.standardisation, progress.next_round)
