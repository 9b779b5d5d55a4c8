# SPDX-License-Identifier: Apache-2.0
"""Train one network on all sites' twins pooled, for the tables of quality; goes on where it was stopped.

Run: python -m benchmarks.train FOLDER --size small --rounds 40
Held-out subjects are those of the demo's splits. The model is FOLDER/model/model.safetensors.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from pasta_model.config import settings_from_flat
from pasta_model.console import log_to_console, run_command
from pasta_model.data.manifest import Session, read_manifest
from pasta_model.data.splits import apply_splits, assign_splits
from pasta_model.data.store import prepare_store
from simulation.baselines import train_alone
from simulation.twins.cohort import CohortSettings, build_cohort

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


def pooled_sessions(folder: Path, *, spacing: float, seed: int) -> list[Session]:
    """Return the twins of all sites with their splits, as one site; made where they are not there yet."""
    cohort = folder / f"cohort-{spacing:g}mm-seed{seed}"
    if not (cohort / "dataset_description.json").is_file():
        build_cohort(CohortSettings(seed=seed, spacing=spacing), cohort, workers=os.cpu_count() or 1)
    sessions = [s for table in sorted(cohort.glob("*/participants.tsv")) for s in read_manifest(table)]
    split = apply_splits(sessions, assign_splits(sessions, seed=seed))
    return [replace(session, site="pooled") for session in split]


@app.command()
def main(
    folder: Path,
    *,
    size: str = "small",
    spacing: float = 3.0,
    rounds: int = 40,
    local_steps: int = 50,
    batch_size: int = 4,
    learning_rate: float = 2e-3,
    cycle: Annotated[bool, typer.Option(help="CycleEx: four passes a step instead of one.")] = False,
    dtype: str = "float32",
    device: str = "cpu",
    threads: int = 0,
    seed: int = 2026,
    prepare_only: Annotated[bool, typer.Option("--prepare-only", help="Make twins and store only.")] = False,
) -> None:
    """Train, or go on with training."""
    log_to_console(verbose=False)
    if threads:
        torch.set_num_threads(threads)
    sessions = pooled_sessions(folder, spacing=spacing, seed=seed)
    store = folder / f"store-{spacing:g}mm-seed{seed}"
    if not (store / "index.json").is_file():
        prepare_store(store, sessions, spacing=spacing)
    if prepare_only:
        return
    settings = settings_from_flat(
        {
            "run.name": f"bench-{size}",
            "run.seed": seed,
            "data.spacing": spacing,
            "network.size": size,
            "loss.cycle": cycle,
            "training.local-steps": local_steps,
            "training.batch-size": batch_size,
            "training.learning-rate": learning_rate,
            "training.warmup-steps": 50,
            "training.dtype": dtype,
            "training.device": device,
            "training.threads": threads,
            "federation.rounds": rounds,
        }
    )
    train_alone(store, settings, folder / "model")


if __name__ == "__main__":
    run_command(app)
