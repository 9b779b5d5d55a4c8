# SPDX-License-Identifier: Apache-2.0
"""`pasta-sim study`: a study's file in, its table and report out."""

import time
from pathlib import Path

import torch
from rich.console import Console

from pasta_model.errors import ConfigError
from pasta_model.locks import only_one
from pasta_model.report.table import scores_table
from simulation.study.measures import measure
from simulation.study.report import write_study_report
from simulation.study.run import Study
from simulation.study.settings import read_study


def run_study(file: Path, output: Path, *, workers: int, device: str, console: Console) -> Study:
    """Run a study to its report, from where it was stopped.

    Raises
    ------
    PastaError
        When the file, the folder, a table or a scan cannot be used.
    """
    start = time.monotonic()
    study = Study(read_study(file), output.resolve(), console, workers=workers, device=chosen_device(device))
    with only_one(study.folder):
        found = study.run()
        told = measure(study, found)
        report = write_study_report(study, found, told)
    shown = [row for row in told.groups if row.kind == "all"]
    console.print(scores_table(shown, title=study.settings.name, intervals=True))
    for what, why in told.left_out.items():
        console.print(f"{what}: not available, {why}", markup=False, highlight=False)
    minutes = (time.monotonic() - start) / 60
    console.print(f"\nreport: {report}   ({minutes:.1f} minutes)", soft_wrap=True)
    return study


def chosen_device(word: str) -> str:
    """Return the device of a word; "auto" is a GPU where there is one.

    Raises
    ------
    ConfigError
        When a GPU is asked for and there is none.
    """
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if word == "auto":
        return "cuda" if has_cuda else "mps" if has_mps else "cpu"
    if (word.startswith("cuda") and not has_cuda) or (word == "mps" and not has_mps):
        raise ConfigError(f"--device {word}: found no such device here; use --device cpu or auto")
    return word
