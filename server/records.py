# SPDX-License-Identifier: Apache-2.0
"""What the server keeps on its disk, and from which it goes on after any crash.

`rounds/after-00003/` is the run after three rounds, whole: the global weights (`master`), what the sites know
of them (`reference`, which compression keeps a little behind), their moving average, the server optimizer's
vectors, and `state.json`. Vectors are read and written a buffer at a time.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import save_file

from pasta_model.checkpoint import (
    Checkpoint,
    description,
    exchanged_layout,
    load_checkpoint,
    network_layout,
    save_checkpoint,
)
from pasta_model.config import Settings
from pasta_model.data.clinical import Standardisation
from pasta_model.errors import CheckpointError
from pasta_model.exchange.steps import Step
from pasta_model.exchange.vectors import Vector, float_buffers
from pasta_model.files import (
    atomic_directory,
    atomic_path,
    clear_partial,
    remove_folder,
    write_json,
    write_text,
)
from server.start import KeptParts

KEPT_ROUNDS = 2
KEPT_STEPS = 4  # a site that missed fewer rounds gets the steps instead of all weights
MASTER, REFERENCE, AVERAGE = (f"{n}.safetensors" for n in ("master", "reference", "average"))
BEST = "model.safetensors"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundRecord:
    """One line of the history; dictionaries are by site, and hold no site that kept a number back.

    Attributes
    ----------
    epsilon
        What the run has spent up to here, where the server adds the noise.
    references
        With the last measurement: the sites whose sums are in the norms, and in what is familiar.
    """

    round: int
    loss: Mapping[str, float]
    valid_mae: Mapping[str, float]
    shares: Mapping[str, float]
    norms: Mapping[str, float]
    failures: Mapping[str, str]
    site_seconds: Mapping[str, float]
    seconds: float
    bytes_down: Mapping[str, int]
    bytes_up: Mapping[str, int]
    epsilon: float | None = None
    references: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """All that was sent, both ways."""
        return sum(self.bytes_down.values()) + sum(self.bytes_up.values())


@dataclass
class Progress:
    """How far a run is; the weights are in its folder."""

    next_round: int
    standardisation: Standardisation
    target: str
    history: list[RoundRecord] = field(default_factory=list)
    best_mae: float = float("inf")
    best_round: int = -1
    best_values: dict[str, float] = field(default_factory=dict)  # best_mae by site


@dataclass(frozen=True)
class StoredStep:
    """The step that led from one round's reference to the next's."""

    base: str
    target: str
    step: Step


class RunFolder:
    """The output folder of a run."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.path = Path(settings.run.output)
        self.layout = exchanged_layout(settings)
        self.sizes = float_buffers(self.layout)
        self.kept = KeptParts(self.path, settings)

    @property
    def from_seed(self) -> bool:
        """Whether every site can make the weights that the run starts from."""
        return not self.settings.run.initial

    def set_aside(self) -> None:
        """Move an earlier run out of the way; nothing finished is overwritten."""
        if (self.path / "settings.json").is_file():
            number = 1
            while (aside := self.path.with_name(f"{self.path.name}-{number}")).exists():
                number += 1
            self.path.rename(aside)
            logger.warning("an earlier run is now in %s", aside)

    def start(self) -> None:
        """Begin a new run: write its settings."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "settings.json", self.settings.flat())

    def vector(self, number: int, name: str) -> Vector:
        """Open one of the vectors of the run after so many rounds."""
        return Vector(self._after(number) / name, self.layout)

    def reference(self, number: int) -> Vector:
        """Open what the sites know of the global weights."""
        return self.vector(number, REFERENCE)

    def metadata(self, progress: Progress, number: int) -> dict[str, str]:
        """Return the description that the files of a round carry."""
        return description(self.settings, progress.standardisation, number)

    @contextmanager
    def completing(self, progress: Progress, number: int) -> Iterator[Path]:
        """Yield a folder for the run after `number` rounds; whole when the block succeeds.

        The block brings `progress` up to date; older rounds than two go.
        """
        with atomic_directory(self._after(number)) as work:
            yield work
            write_json(work / "state.json", asdict(progress) | {"digest": self.settings.digest()})
        for old in sorted(self.path.glob("rounds/after-*"))[:-KEPT_ROUNDS]:
            remove_folder(old)
        for old in sorted(self.path.glob("rounds/step-*"))[:-KEPT_STEPS]:
            old.unlink()
        self.write_history(progress)

    def save_step(self, number: int, stored: StoredStep) -> None:
        """Keep the step that leads to the reference after `number` rounds."""
        about = {"base": stored.base, "target": stored.target, "codec": stored.step.codec}
        with atomic_path(self._step(number)) as temporary:
            save_file(stored.step.arrays, temporary, metadata=about)

    def step(self, number: int) -> StoredStep | None:
        """Return the step that led to the reference after `number` rounds, if it is still kept."""
        path = self._step(number)
        if not path.is_file():
            return None
        with safe_open(path, framework="numpy") as file:
            about = file.metadata()
            arrays = {name: file.get_tensor(name) for name in self.sizes}
        return StoredStep(about["base"], about["target"], Step(about["codec"], arrays))

    def answers(self, number: int) -> Path:
        """Return the folder of the sites' answers to a round; those of earlier rounds go."""
        wanted = self.path / "rounds" / f"answers-{number:05d}"
        for old in self.path.glob("rounds/answers-*"):
            if old != wanted:
                shutil.rmtree(old)
        return wanted

    def publish_best(self, progress: Progress) -> None:
        """Make `model.safetensors` of the round that measured best, unless it is that already.

        A run may have been killed between the two.
        """
        path = self.path / BEST
        if progress.best_round < 0 or not self._after(progress.best_round).is_dir():
            return
        if not path.is_file() or load_checkpoint(path).round != progress.best_round:
            self.publish(progress, REFERENCE, BEST, number=progress.best_round)

    def publish(self, progress: Progress, source: str, target: str, *, number: int) -> None:
        """Make a file of weights of a round's vector: the whole network, with the parts nobody shares."""
        path = self._after(number) / source
        if self.layout == network_layout(self.settings):
            with atomic_path(self.path / target) as temporary:
                shutil.copyfile(path, temporary)
            return
        whole = {**self.kept.state(), **load_checkpoint(path).state}
        checkpoint = Checkpoint(whole, self.settings, progress.standardisation, number)
        save_checkpoint(self.path / target, checkpoint)

    def finish(self, progress: Progress) -> None:
        """Close the history, and keep the moving average and the last weights; those say that all is done."""
        self.write_history(progress)
        self.publish(progress, AVERAGE, "average.safetensors", number=progress.next_round)
        shutil.rmtree(self.answers(progress.next_round), ignore_errors=True)
        self.publish(progress, REFERENCE, "last.safetensors", number=progress.next_round)

    def resume(self) -> Progress | None:
        """Return the last completed round, or None when there is none.

        Raises
        ------
        CheckpointError
            When it cannot be read, or belongs to other settings.
        """
        clear_partial(self.path)
        clear_partial(self.path / "rounds")
        rounds = sorted(self.path.glob("rounds/after-*"))
        if not rounds:
            return None
        try:
            state: dict[str, Any] = json.loads((rounds[-1] / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{rounds[-1]}: its state cannot be read ({error}); remove it") from error
        if state.pop("digest") != self.settings.digest():
            raise CheckpointError(
                f"{rounds[-1]}: made with other settings; use the same ones, another run.output, or"
                " run.resume=false to start again"
            )
        mean, spread = state["standardisation"]["mean"], state["standardisation"]["spread"]
        state["standardisation"] = Standardisation(tuple(mean), tuple(spread))
        state["history"] = [RoundRecord(**record) for record in state["history"]]
        return Progress(**state)

    def write_history(self, progress: Progress) -> None:
        """Write the history, a line a round."""
        lines = [json.dumps(asdict(r) | {"bytes": r.bytes}, sort_keys=True) for r in progress.history]
        write_text(self.path / "history.jsonl", "".join(f"{line}\n" for line in lines))

    def _after(self, number: int) -> Path:
        return self.path / "rounds" / f"after-{number:05d}"

    def _step(self, number: int) -> Path:
        return self.path / "rounds" / f"step-{number:05d}.safetensors"
