# SPDX-License-Identifier: Apache-2.0
"""A private step against an ordinary one over the same slabs: processor time as a ratio, and peak memory.

python -m benchmarks.private_step --sizes tiny small

Ordinary is measured twice: accumulated over the same small batches as the subjects are, and as one large
batch. All ways take turns in one process, so that a busy machine slows them alike; ratios are of medians.
Memory is that of a process for each number of subjects.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.hardware import Rows, describe, wait
from benchmarks.training_step import random_batch
from pasta_model.checkpoint import new_translator
from pasta_model.config import Settings, settings_from_flat
from pasta_model.data.slabs import Batch
from pasta_model.diffusion.cycle import Translator, step_loss
from pasta_model.placement import has_bfloat16
from pasta_model.privacy.mechanism import Mechanism
from pasta_model.training import make_optimizer

PRIVATE, ACCUMULATED, LARGE = "private", "accumulated", "one large batch"


class Steps:
    """The three ways to take a step over the same subjects' slabs, with a network of their own."""

    def __init__(self, settings: Settings, *, subjects: int, slabs: int) -> None:
        layout = {"channels_last": settings.training.channels_last}
        made = [random_batch(settings, slabs) for _ in range(subjects)]
        self.batches = [batch.to(settings.training.device, **layout) for batch in made]
        self.large = joined(made).to(settings.training.device, **layout)
        self.settings = settings
        self.generator = torch.Generator(settings.training.device).manual_seed(0)
        self.translator: Translator = new_translator(settings)
        self.translator.network.train()
        self.optimizer = make_optimizer(self.translator.network, settings.training)
        self.mechanism = Mechanism(
            make_optimizer(self.translator.network, settings.training),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            expected_subjects=subjects,
        )

    def ways(self) -> dict[str, Callable[[], None]]:
        """Return each way as a function that takes one step."""
        return {
            PRIVATE: self.private,
            ACCUMULATED: lambda: self._ordinary(self.batches),
            LARGE: lambda: self._ordinary([self.large]),
        }

    def private(self) -> None:
        """Clip, sum, add noise and step, as `private_steps` does it."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.settings.training.device)
        for batch in self.batches:
            loss = self._loss(batch)
            loss.backward()
            total += loss.detach()
            self.mechanism.add()
        total.item()
        self.mechanism.step()

    def _ordinary(self, batches: Sequence[Batch]) -> None:
        """Accumulate, clip once and step, as `train_steps` does it."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.settings.training.device)
        for batch in batches:
            loss = self._loss(batch) / len(batches)
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(self.translator.network.parameters(), 1.0).item()
        total.item()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _loss(self, batch: Batch) -> torch.Tensor:
        return step_loss(self.translator, batch, settings=self.settings.loss, generator=self.generator)


def joined(batches: Sequence[Batch]) -> Batch:
    """Return all slabs as one batch."""
    mri, pet, metaroi = (torch.cat([getattr(b, n) for b in batches]) for n in ("mri", "pet", "metaroi"))
    known = [b.clinical for b in batches if b.clinical is not None]
    return Batch(mri, pet, metaroi, torch.cat(known) if known else None)


def settings_of(size: str, dtype: str, device: str = "cpu") -> Settings:
    """Return the settings of a size on the grid of 3 mm."""
    return settings_from_flat(
        {"network.size": size, "training.dtype": dtype, "training.device": device, "training.threads": 1}
    )


def timed(settings: Settings, *, subjects: int, slabs: int, repeats: int) -> dict[str, float]:
    """Median seconds of each way, taken in turns after one step of each to warm up.

    Of the processor on a CPU, which does not count what runs beside it.
    """
    device = settings.training.device
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    ways = Steps(settings, subjects=subjects, slabs=slabs).ways()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, step in ways.items():
            wait(device)
            start = clock()
            step()
            wait(device)
            if turn:
                found[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in found.items()}


def memory(settings: Settings, way: str, subjects: int) -> dict[str, float]:
    """Peak bytes of this process above what it had before its first step, which is of one way only."""
    steps = Steps(settings, subjects=subjects, slabs=1)
    before = status("VmRSS")
    for _ in range(2):
        steps.ways()[way]()
    return {"growth": status("VmHWM") - before, "peak": status("VmHWM")}


def status(name: str) -> int:
    """Bytes, as Linux says them of this process."""
    (line,) = (s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def table(found: dict[str, Any]) -> str:
    """Return the rows as Markdown."""
    lines = [
        found["hardware"],
        "",
        "| network | dtype | subjects x slabs | private, s | to accumulated | to one large batch |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        if "private" in row:
            over = [row["private"] / row[other] for other in (ACCUMULATED, LARGE)]
            lines.append(
                f"| `{row['size']}` | {row['dtype']} | {row['subjects']} x {row['slabs']}"
                f" | {row['private']:.2f} | **{over[0]:.2f}** | {over[1]:.2f} |"
            )
    lines += ["", "| `tiny`, subjects of one slab | way | growth, MB | peak, MB |", "|---|---|---|---|"]
    for row in found["rows"]:
        if "growth" in row:
            cells = (row["way"], f"{row['growth'] / 1e6:.0f}", f"{row['peak'] / 1e6:.0f}")
            lines.append(f"| {row['subjects']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small"])
    parser.add_argument("--subjects", type=int, default=8)
    parser.add_argument("--slabs", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    words = parser.parse_args()
    torch.set_num_threads(1)
    if words.child:
        way, subjects = words.child[0], int(words.child[1])
        print(json.dumps(memory(settings_of("tiny", "float32"), way, subjects)))
        return
    rows = Rows(words.output, {"hardware": describe(words.device)})
    dtypes = ["float32", *(["bfloat16"] if has_bfloat16(words.device) else [])]
    for size, dtype, slabs in ((s, d, n) for s in words.sizes for d in dtypes for n in words.slabs):
        name = f"{size} {dtype} {slabs}"
        if name not in rows:
            told = {"size": size, "dtype": dtype, "subjects": words.subjects, "slabs": slabs}
            own = settings_of(size, dtype, words.device)
            rows.add(name, **told, **timed(own, subjects=words.subjects, slabs=slabs, repeats=words.repeats))
    for way, count in ((PRIVATE, 4), (PRIVATE, 16), (PRIVATE, 64), (LARGE, 4), (LARGE, 16)):
        name = f"memory {way} {count}"
        if name not in rows:
            command = [sys.executable, "-m", "benchmarks.private_step", "--child", way, str(count)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows.add(name, way=way, subjects=count, **json.loads(said.splitlines()[-1]))
    print(table(rows.found))


if __name__ == "__main__":
    main()
