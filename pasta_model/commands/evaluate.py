# SPDX-License-Identifier: Apache-2.0
"""`pasta evaluate`: synthetic PETs of any methods beside the real ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

if TYPE_CHECKING:
    from rich.console import Console

    from pasta_model.evaluation.comparison import EvaluationResult
    from pasta_model.evaluation.unseen import Measured

Manifest = Annotated[Path, Argument(help="participants.tsv or .csv with the real PETs.")]
Folders = Annotated[
    list[str],
    Argument(
        metavar="[NAME=]FOLDER...",
        help="Synthetic PETs in SUVR, written by 'pasta synthesize' or named after subject and session.",
    ),
]
Output = Annotated[Path, Option(help="Folder of the tables: scores, groups, regions.")]
Mask = Annotated[
    Path | None,
    Option(help="Where voxels count: a NIfTI, or a folder with one a session; default: the MRI's."),
]
Partial = Annotated[bool, Option("--partial", help="Leave out sessions without a synthetic PET.")]
Smallest = Annotated[int, Option(min=0, help="Show no group of fewer subjects than this.")]
Workers = Annotated[int | None, Option(min=1, help="Processes; default: one a core.")]
NormsFile = Annotated[
    Path | None, Option(help="norms.safetensors of a run, or of 'pasta norms build': adds abnormality maps.")
]
Diagnosis = Annotated[
    Path | None, Option(help="Folder that 'pasta diagnose' wrote: its table goes into the report.")
]
Method = Annotated[str | None, Option(help="The method that is shown and compared; default: the first.")]
Splits = Annotated[
    Path | None,
    Option(help="Table made by 'pasta split': those in train and valid are left out; or a column 'split'."),
]
Unseen = Annotated[
    bool,
    Option(
        "--all-unseen",
        help="No method was trained on anybody without a split; the report calls it your word.",
    ),
]
RunFolder = Annotated[
    Path | None,
    Option("--run", help="Folder of the run that made the shown method's PETs: completes its MODEL_CARD.md."),
]
Report = Annotated[bool, Option("--report/--no-report", help="With report.html, or the tables alone.")]
Seed = Annotated[int, Option(min=0, help="Of the intervals: the same seed gives the same result.")]


def evaluate(
    manifest: Manifest,
    folders: Folders,
    *,
    output: Output = Path("evaluation"),
    splits: Splits = None,
    all_unseen: Unseen = False,
    mask: Mask = None,
    partial: Partial = False,
    smallest: Smallest = 0,
    norms: NormsFile = None,
    diagnosis: Diagnosis = None,
    method: Method = None,
    run: RunFolder = None,
    report: Report = True,
    workers: Workers = None,
    seed: Seed = 0,
) -> None:
    """Compare synthetic with real PETs: tables by group with intervals, and a report with a viewer.

    A FOLDER holds one method's PETs in SUVR on the grid of the real ones: written by 'pasta synthesize', or
    one NIfTI a session of any other method, with subject and session in its name. Persons in train or valid
    are left out; where nothing says who is, the report says so.
    """
    from rich.console import Console

    from pasta_model.assessment.run import Extras, assess
    from pasta_model.console import progress_bar
    from pasta_model.data.manifest import read_manifest
    from pasta_model.evaluation.comparison import evaluate, named_folders
    from pasta_model.evaluation.records import refuse_other_folder
    from pasta_model.evaluation.unseen import measured

    refuse_other_folder(output)
    methods, console = named_folders(folders), Console()
    extras = Extras.read(methods, method=method, norms=norms, diagnosis=diagnosis, run=run)
    who = measured(read_manifest(manifest), splits=splits, sure=all_unseen)
    if extras.run:
        extras.run.refuse_others(who.sessions, methods[extras.method], method=extras.method)
    settings: dict[str, Any] = {"mask": mask, "partial": partial, "smallest": smallest, "seed": seed}
    count = workers or os.cpu_count() or 1
    with progress_bar(console, "evaluation") as progress:
        result = evaluate(who.sessions, methods, workers=count, progress=progress, **settings)
    with progress_bar(console, "report") as progress:
        assess(
            output, result, extras, who=who, manifest=manifest, folders=methods, settings=settings,
            workers=count, report=report, progress=progress,
        )  # fmt: skip
    _tell(console, result, who)
    console.print(f"{output}: {', '.join(sorted(path.name for path in output.iterdir()))}", markup=False)


def _tell(console: Console, result: EvaluationResult, who: Measured) -> None:
    from pasta_model.report.table import scores_table

    shown = [row for row in result.groups if row.kind in {"site", "all", "sites"}]
    console.print(scores_table(shown, intervals=True))
    console.print(who.sentence, markup=False)
    for name, left in result.missing.items():
        console.print(f"{name}: {len(left)} sessions without a PET left out", markup=False)
