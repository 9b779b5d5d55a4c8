# SPDX-License-Identifier: Apache-2.0
"""Trains a rival: PASTA's slabs, steps, rates, clipping, moving average and choice of the best, another loss.

Everything random follows from (seed, sites, round), as at a site that trains PASTA.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from pasta_model.config import Settings
from pasta_model.data.slabs import Batch, read_ahead
from pasta_model.diffusion.cycle import Translator
from pasta_model.errors import ConfigError, TrainingError
from pasta_model.seeding import numpy_generator, torch_generator
from pasta_model.training import learning_rate, make_optimizer
from pasta_model.validation import validation_mae
from simulation.rivals.kinds import Rival, Turn, new_translator, rival_of
from simulation.rivals.models import RivalModel, rival_width, save_rival
from simulation.rivals.pool import Pool
from simulation.rivals.standing import AVERAGE, LAST, MODEL, Learner, RunFolder, Standing, Weights, run_digest

logger = logging.getLogger(__name__)


def train_rival(
    name: str,
    stores: Sequence[Path],
    settings: Settings,
    output: Path,
    *,
    steps: int,
    checkpoint_steps: int = 200,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Train a rival on pooled stores, going on where it was stopped; return the best model.

    Writes into `output` what a federation writes: `model.safetensors` (lowest error of the compass),
    `average.safetensors` (moving average), `last.safetensors` and `history.jsonl`.

    Parameters
    ----------
    name
        One of `RIVALS`.
    steps
        Optimizer steps, each of `training.batch_size` x `training.accumulation` slabs; the learning rate
        falls over them.
    checkpoint_steps
        At most so many steps are lost to a kill, and the rest of a round.
    progress
        Is told steps done and to do, after each.

    Raises
    ------
    ConfigError
        When there is no such rival, or nothing to do.
    StoreError
        When stores cannot be pooled.
    CheckpointError
        When `output` holds another training.
    TrainingError
        When a loss or gradient is not finite; what was kept before stays.
    """
    rival = rival_of(name)
    if min(steps, checkpoint_steps) < 1:
        raise ConfigError(f"found {steps} steps, kept every {checkpoint_steps}; wanted both at least 1")
    pool = Pool(stores, settings)
    folder = RunFolder(output, run_digest(name, pool, settings, steps))
    if not folder.finished():
        if settings.training.threads:
            torch.set_num_threads(settings.training.threads)
        folder.mark(finished=False)
        _Training(rival, pool, settings, folder, steps=steps).run(checkpoint_steps, progress)
    progress(steps, steps)
    return output / MODEL


class _Training:
    """One training, in rounds of `training.local_steps` steps: measure, train, follow, keep."""

    def __init__(
        self, rival: Rival, pool: Pool, settings: Settings, folder: RunFolder, *, steps: int
    ) -> None:
        self.rival, self.pool, self.settings, self.folder, self.steps = rival, pool, settings, folder, steps
        self.width = rival_width(rival, settings)
        self.translator: Translator = new_translator(rival, settings, width=self.width)
        self.turns = rival.turns(self.translator, settings)
        self.learners = {turn.name: _learner(turn, settings) for turn in self.turns}
        kept = folder.resume(self.learners)
        here = _copy(self.translator.network.state_dict())
        self.standing, self.average, self.best = kept or (Standing(), here, here)

    def run(self, checkpoint_steps: int, progress: Callable[[int, int], None]) -> None:
        """Train to the end."""
        due = self.standing.step + checkpoint_steps
        while self.standing.step < self.steps:
            start = time.monotonic()
            mae = self._measure()
            number = min(self.settings.training.local_steps, self.steps - self.standing.step)
            loss = self._round(number, progress)
            self._note(mae, loss, start)
            self.standing.step += number
            self._follow(number)
            self.standing.round += 1
            if self.standing.step >= due and self.standing.step < self.steps:
                self.folder.keep(self.standing, self.learners, self.average, self.best)
                due = self.standing.step + checkpoint_steps
        start = time.monotonic()
        self._note(self._measure(), {}, start)
        self._publish()

    def _measure(self) -> dict[str, float]:
        """Measure the compass at each site; keep the weights when they are the best so far."""
        errors = {
            loader.store.site: validation_mae(self.translator, loader, settings=self.settings)
            for loader in self.pool.validating()
        }
        shares = self.pool.shares()
        mean = sum(shares[site] * error for site, error in errors.items()) / sum(
            map(shares.__getitem__, errors)
        )
        self._finite(mean, "validation error", self.standing.step)
        if self.standing.best_mae is None or mean < self.standing.best_mae:
            self.standing.best_mae, self.standing.best_step = mean, self.standing.step
            self.best = _copy(self.translator.network.state_dict())
        return errors

    def _round(self, number: int, progress: Callable[[int, int], None]) -> dict[str, float]:
        """Train so many steps; return the mean loss of each turn."""
        training, seed, place = self.settings.training, self.settings.run.seed, self._place()
        generator = torch_generator(seed, "train", *place, device=training.device)
        drawn = self.pool.batches(training.batch_size, rng=numpy_generator(seed, "slabs", *place))
        batches = read_ahead(drawn, pin=training.device.startswith("cuda"))
        self.translator.network.train()
        total = dict.fromkeys(self.learners, 0.0)
        for step in range(self.standing.step, self.standing.step + number):
            moved = [
                batch.to(training.device, channels_last=training.channels_last)
                for batch in islice(batches, training.accumulation)
            ]
            for turn in self.turns:
                total[turn.name] += self._take(turn, moved, generator, step)
            progress(step + 1, self.steps)
        return {name: value / number for name, value in total.items()}

    def _take(self, turn: Turn, batches: Sequence[Batch], generator: torch.Generator, step: int) -> float:
        """Take one optimizer step of one turn; return its loss."""
        training, optimizer = self.settings.training, self.learners[turn.name].optimizer
        optimizer.zero_grad(set_to_none=True)
        mean_loss = torch.zeros((), device=training.device)
        for batch in batches:
            loss = turn.loss(batch, generator) / len(batches)
            loss.backward()
            mean_loss += loss.detach()
        norm = nn.utils.clip_grad_norm_(turn.network.parameters(), training.max_grad_norm)
        value = mean_loss.item()
        self._finite(value, f"loss of the {turn.name}", step)
        self._finite(norm.item(), f"gradient norm of the {turn.name}", step)
        for group in optimizer.param_groups:
            group["lr"] = turn.rate * learning_rate(step, total_steps=self.steps, settings=training)
        optimizer.step()
        return value

    def _follow(self, number: int) -> None:
        """Let the moving average follow, with the warm-up that the federation's has."""
        done, decay = self.standing.round, self.settings.training.ema_decay**number
        decay = min(decay, (1 + done) / (10 + done)) if done else 0.0
        for name, value in self.translator.network.state_dict().items():
            kept = self.average[name].to(value.device)
            self.average[name] = decay * kept + (1 - decay) * value

    def _note(self, mae: dict[str, float], loss: dict[str, float], start: float) -> None:
        """Add a record of the round: what was measured before it, and what it trained."""
        self.standing.history.append(
            {
                "round": self.standing.round,
                "step": self.standing.step,
                "loss": loss,
                "valid_mae": mae,
                "seconds": time.monotonic() - start,
            }
        )

    def _publish(self) -> None:
        """Write the models; the best is written last of them."""
        last = self.translator.network.state_dict()
        self.folder.write_history(self.standing)
        for file, state, step in (
            (LAST, last, self.steps),
            (AVERAGE, self.average, self.steps),
            (MODEL, self.best, self.standing.best_step),
        ):
            model = RivalModel(self.rival, state, self.settings, self.pool.standardisation, self.width, step)
            save_rival(self.folder.path / file, model)
        self.folder.finish()
        logger.info(
            "%s: best after %d steps, SUVR error %.4f",
            self.rival.name,
            self.standing.best_step,
            self.standing.best_mae,
        )

    def _place(self) -> tuple[str, int]:
        return self.pool.name, self.standing.round

    def _finite(self, value: float, name: str, step: int) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"{name} is {value}: rival {self.rival.name}, sites {self.pool.name}, step {step};"
                " lower training.learning-rate or check the sites' scans"
            )


def _learner(turn: Turn, settings: Settings) -> Learner:
    optimizer = make_optimizer(turn.network, settings.training)
    for group in optimizer.param_groups:
        group["betas"] = turn.betas
    return Learner(turn.name, turn.network, optimizer)


def _copy(state: dict[str, Tensor]) -> Weights:
    return {name: value.detach().clone() for name, value in state.items()}
