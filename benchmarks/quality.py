# SPDX-License-Identifier: Apache-2.0
"""What each way of sampling costs in quality: steps x hop x fusion x solver, on held-out twins.

Run: python -m benchmarks.quality MODEL FOLDER --subjects 0-3        (may be stopped, and goes on)
     python -m benchmarks.quality MODEL FOLDER --subjects 4-11 --few (few steps and the reference alone)
     python -m benchmarks.quality MODEL FOLDER --show                (the table, from what is there)
Every cell is compared with the published procedure (hop 1, 100 DDIM steps, float32, own noise per slab,
slabs fused at the end; with the right timesteps, which the published code did not show) on the very same
subjects. Real PETs are the twins'. One line of cells.jsonl is one subject in one cell.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from benchmarks.train import pooled_sessions
from pasta_model.checkpoint import load_checkpoint
from pasta_model.config import settings_from_flat
from pasta_model.console import run_command
from pasta_model.data.grid import template
from pasta_model.data.manifest import Session
from pasta_model.data.volume import Volume, read_volume
from pasta_model.diffusion.fusion import fuse, fusion_weights, slab_starts
from pasta_model.diffusion.samplers import SOLVERS
from pasta_model.diffusion.source import SourceSlabs
from pasta_model.metrics.regions import composite, metaroi_suvr
from pasta_model.metrics.similarity import SUVR_RANGE, brain_mask, mae, ssim
from pasta_model.metrics.texture import roughness, spectrum_distance
from pasta_model.network.dual_arm import Direction
from pasta_model.sections import SamplingSettings
from pasta_model.seeding import torch_generator
from pasta_model.synthesis import Synthesiser

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
STEPS, HOPS, SOLVER_NAMES = (3, 5, 10, 20, 50, 100), (1, 2, 3, 5, 7), ("ddim", "dpm++2m")


@dataclass(frozen=True, order=True)
class Cell:
    """A way of sampling.

    Attributes
    ----------
    shown
        'published' where the network is told the number of the step.
    pair
        Whether the sample is the mean of an antithetic pair.
    """

    fusion: str
    solver: str
    steps: int
    hop: int
    shown: str = "trained"
    samples: int = 1
    pair: bool = False

    def sampling(self) -> SamplingSettings:
        """The settings of this cell."""
        flat = {
            "sampling.fusion": self.fusion,
            "sampling.noise": "slab" if self.fusion == "end" else "volume",
            "sampling.solver": self.solver,
            "sampling.steps": self.steps,
            "sampling.hop": self.hop,
            "sampling.samples": self.samples,
            "sampling.antithetic": self.pair,
            "sampling.published-timesteps": self.shown == "published",
        }
        return settings_from_flat(flat).sampling


REFERENCE = Cell("end", "ddim", 100, 1)
FAULTY = Cell("end", "ddim", 100, 1, "published")
PREVIEW = Cell("preview", "", 0, SamplingSettings().hop)


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read what was measured so far; a line that was being written when the power went does not count."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


class Bench:
    """A model, its held-out subjects, and the scores that are on the disk."""

    def __init__(self, model: Path, folder: Path, *, device: str = "cpu") -> None:
        self.device = device
        self.checkpoint = load_checkpoint(model)
        settings = self.checkpoint.settings
        self.file = folder / "cells.jsonl"
        sessions = pooled_sessions(folder, spacing=settings.data.spacing, seed=settings.run.seed)
        self.sessions = sorted((s for s in sessions if s.split == "test"), key=lambda s: s.name)
        np.random.default_rng(0).shuffle(self.sessions)  # type: ignore[arg-type]  # mixes sites and diagnoses

    def keep(self, session: Session, made: Mapping[Cell, Volume]) -> None:
        """Score volumes and append their lines together."""
        lines = [json.dumps(self.score(session, cell, volume)) + "\n" for cell, volume in made.items()]
        with self.file.open("a", encoding="utf-8") as file:
            file.write("".join(lines))

    def score(self, session: Session, cell: Cell, made: Volume) -> dict[str, Any]:
        """Compare a volume with the real PET."""
        real, mri = read_volume(session.pet, unit="SUVR"), read_volume(session.mri)
        mask = brain_mask(mri.data)
        grid = template(self.checkpoint.settings.data.spacing).head
        wanted, found = (composite(metaroi_suvr(v.data, grid=grid)) for v in (real, made))
        return {
            **asdict(cell),
            "subject": session.name,
            "mae": mae(real.data, made.data, mask=mask),
            "ssim": ssim(real.data, made.data, mask=mask, data_range=SUVR_RANGE),
            "metaroi": abs(found - wanted),
            "roughness": roughness(made.data, mask=mask) / roughness(real.data, mask=mask),
            "spectrum": spectrum_distance(real.data, made.data, mask=mask),
        }

    def synthesiser(self, cell: Cell) -> Synthesiser:
        """The model, sampling as in a cell."""
        sampling = SamplingSettings() if cell == PREVIEW else cell.sampling()
        dtype = "float32" if cell.fusion == "end" else "auto"  # as published, and as ours by default
        settings = settings_from_flat({**self.checkpoint.settings.flat(), "training.dtype": dtype})
        checkpoint = replace(self.checkpoint, settings=settings)
        return Synthesiser(checkpoint, sampling=sampling, device=self.device)


def volume_of(bench: Bench, session: Session, cell: Cell) -> Volume:
    """Synthesise a session as a user would."""
    maker, mri = bench.synthesiser(cell), read_volume(session.mri)
    if cell == PREVIEW:
        return maker.preview(mri)
    return maker.synthesise(mri, session.clinical, seed=1, name=session.name)


def independent_slabs(bench: Bench, session: Session, cell: Cell) -> dict[int, Volume]:
    """Walk every slab's own chain once; a volume of each hop, from the slabs that the hop would take."""
    maker, mri = bench.synthesiser(cell), read_volume(session.mri)
    translator = maker._volumes.translator  # noqa: SLF001
    source, clinical, grid = maker._read(mri, session.clinical)  # noqa: SLF001
    with torch.inference_mode():
        slabs = SourceSlabs(
            translator,
            source,
            plane="axial",
            direction=Direction.MRI_TO_PET,
            settings=cell.sampling(),
            budget=2e9,
        )
        timesteps = translator.schedule.sampling_timesteps(
            cell.steps, even_in="time" if cell.solver == "ddim" else "log-snr"
        )

        def predict(x: Tensor, timestep: int) -> Tensor:
            return slabs.denoise(x, timestep, clinical)

        generator = torch_generator(1, "slabs", session.name, device=bench.device)
        length = bench.checkpoint.settings.network.slab_slices
        shape = (len(slabs.starts), length, *source.shape[1:])
        noise = torch.randn(shape, generator=generator, device=bench.device)
        ends = SOLVERS[cell.solver](predict, noise, timesteps, schedule=translator.schedule)
    volumes = {}
    for hop in HOPS:
        starts = slab_starts(len(source), length, hop)
        weights = torch.from_numpy(fusion_weights(len(source), length, starts)).to(bench.device)
        fused = fuse(ends[[slabs.starts.index(s) for s in starts]], starts, weights)
        volumes[hop] = Volume(maker._suvr(fused, grid), mri.affine, "SUVR")  # noqa: SLF001
    return volumes


def cells(*, few: bool) -> Iterator[Cell]:
    """All cells, cheap ones first; or those of few steps and the reference."""
    yield PREVIEW
    steps = [s for s in STEPS if s <= 10] if few else STEPS
    for count in steps:
        for solver in SOLVER_NAMES:
            yield from (Cell("every-step", solver, count, hop) for hop in HOPS)
            if not few:
                yield Cell("end", solver, count, 1)
    for solver in SOLVER_NAMES:
        yield from (Cell("every-step", solver, count, 7, pair=True) for count in (3, 5, 10))
        yield from (Cell("every-step", solver, count, 7, samples=4) for count in (3, 5))
        yield Cell("every-step", solver, 5, 5, samples=4)
    yield REFERENCE if few else FAULTY


def measure(bench: Bench, numbers: Iterable[int], *, few: bool, steps: Container[int]) -> None:
    """Fill in what is missing for these subjects, of cells with these numbers of steps."""
    for number in numbers:
        session = bench.sessions[number]
        done = {_cell(row) for row in read_rows(bench.file) if row["subject"] == session.name}
        for cell in cells(few=few):
            if cell in done or cell.steps not in steps:
                continue
            if cell.fusion == "end" and cell != FAULTY:
                by_hop = independent_slabs(bench, session, cell)
                bench.keep(session, {replace(cell, hop=hop): volume for hop, volume in by_hop.items()})
            else:
                bench.keep(session, {cell: volume_of(bench, session, cell)})
        print(f"subject {number}: done", flush=True)


def _cell(row: Mapping[str, Any]) -> Cell:
    return Cell(**{field.name: row.get(field.name, field.default) for field in fields(Cell)})


# Of each: how a row's value is taken, and digits. Roughness is told as |ln(synthetic / real)|, 0 at best.
METRICS: dict[str, tuple[Callable[[float], float], int]] = {
    "mae": (float, 4),
    "ssim": (float, 4),
    "metaroi": (float, 4),
    "roughness": (lambda ratio: abs(math.log(ratio)), 3),
    "spectrum": (float, 2),
}


def table(rows: list[dict[str, Any]]) -> str:
    """Each cell against the reference on the same subjects, as Markdown."""
    by_cell: dict[Cell, dict[str, dict[str, float]]] = defaultdict(dict)
    for row in rows:
        by_cell[_cell(row)][row["subject"]] = row
    reference = by_cell[REFERENCE]
    lines = [
        "| fusion | solver | steps | hop | passes | n | MAE | SSIM | MetaROI | roughness | spectrum |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in sorted(by_cell):
        subjects = sorted(by_cell[cell].keys() & reference.keys())
        if not subjects:
            continue
        lines.append(_line(cell, [by_cell[cell][s] for s in subjects], [reference[s] for s in subjects]))
    return "\n".join(lines)


def _line(cell: Cell, own: list[dict[str, float]], reference: list[dict[str, float]]) -> str:
    notes = {"published": ", published timesteps"}.get(cell.shown, "")
    notes += f", mean of {cell.samples}" if cell.samples > 1 else ""
    notes += ", mean of a pair" if cell.pair else ""
    shown = []
    for metric, (value, digits) in METRICS.items():
        mean, base = (float(np.mean([value(row[metric]) for row in rows])) for rows in (own, reference))
        shown.append(f"{mean:.{digits}f} ({mean / base - 1:+.1%})")
    about = f"{cell.fusion}{notes} | {cell.solver} | {cell.steps} | {cell.hop} | {_passes(cell)} | {len(own)}"
    return f"| {about} | {' | '.join(shown)} |"


def _passes(cell: Cell, *, slices: int = 96, length: int = 15) -> int:
    """Slab passes of a full-size volume: the conditioner once, the denoiser at every step."""
    return len(slab_starts(slices, length, cell.hop)) * (1 + cell.steps * cell.samples * (1 + cell.pair))


@app.command()
def main(
    model: Path,
    folder: Path,
    *,
    subjects: Annotated[str, typer.Option(help="Numbers of held-out subjects, as 0-3.")] = "0-1",
    steps: Annotated[str, typer.Option(help="Only cells of so many steps, as 20,50.")] = "",
    few: Annotated[bool, typer.Option(help="Few steps and the reference only.")] = False,
    show: Annotated[bool, typer.Option(help="Print the table.")] = False,
    threads: int = 0,
    device: str = "cpu",
) -> None:
    """Measure what is missing, or show the table."""
    if threads:
        torch.set_num_threads(threads)
    bench = Bench(model, folder, device=device)
    if show:
        print(table(read_rows(bench.file)))
        return
    first, _, last = subjects.partition("-")
    wanted = [int(word) for word in steps.split(",")] if steps else (PREVIEW.steps, *STEPS)
    measure(bench, range(int(first), int(last or first) + 1), few=few, steps=wanted)


if __name__ == "__main__":
    run_command(app)
