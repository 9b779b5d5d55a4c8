# SPDX-License-Identifier: Apache-2.0
"""`pasta diagnose`: what MRIs, synthetic PETs and real PETs tell of the diagnosis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from pasta_model.data.manifest import Session
    from pasta_model.diagnosis.results import DiagnosisRow

BY_SPLITS = "those in train and valid were left out"
BY_WORD = "the user says that no method was trained on anybody of the manifest (--all-unseen)"

Manifest = Annotated[Path, Argument(help="participants.tsv or .csv: MRIs, real PETs, diagnoses.")]
Methods = Annotated[
    list[str] | None,
    Argument(metavar="[NAME=FOLDER]...", help="A method and its PETs, as 'pasta synthesize' wrote them."),
]
Output = Annotated[
    Path, Option(help="Folder of predictions and tables; what is there already is not made again.")
]
Splits = Annotated[
    Path | None,
    Option(help="Table made by 'pasta split': those in train and valid are left out; or a column 'split'."),
]
Unseen = Annotated[
    bool, Option("--all-unseen", help="No method was trained on anybody of this manifest; I am sure.")
]
Tasks = Annotated[list[str] | None, Option("--task", help="'CN / Dementia', 'CN / MCI / Dementia'; both.")]
Readers = Annotated[list[str] | None, Option("--reader", help="network, regions; both.")]
Clinical = Annotated[
    list[str] | None, Option(help="A clinical value beside the MRI; age, sex, education, apoe4.")
]
Folds = Annotated[int, Option(min=2, help="Of persons; each is read by a reader trained on the others.")]
Steps = Annotated[int | None, Option(min=1, help="Training steps of the network, the same for every input.")]
Device = Annotated[str, Option(help="cpu, cuda.")]
Workers = Annotated[int, Option(min=1, help="Processes, of one thread each.")]
Seed = Annotated[int, Option(min=0, help="The same seed gives the same result.")]


def diagnose(
    manifest: Manifest,
    methods: Methods = None,
    *,
    output: Output,
    splits: Splits = None,
    all_unseen: Unseen = False,
    task: Tasks = None,
    reader: Readers = None,
    clinical: Clinical = None,
    folds: Folds = 5,
    steps: Steps = None,
    device: Device = "cpu",
    workers: Workers = 1,
    seed: Seed = 2026,
) -> None:
    """Train readers on each kind of scan, with the same folds and budget, and compare them.

    Inputs: MRI, MRI + clinical, each method's synthetic PETs, real PET; readers of real PETs are applied to
    the synthetic ones too. Readers: a 3D network, and a logistic regression on regional means.
    """
    changes = {"tasks": task, "readers": reader, "clinical": clinical, "steps": steps}
    given = {name: value for name, value in changes.items() if value}
    _diagnose(
        manifest,
        methods or [],
        splits=splits,
        sure=all_unseen,
        changes={"folds": folds, "device": device, **given},
        output=output,
        workers=workers,
        seed=seed,
    )


def _diagnose(
    manifest: Path,
    methods: Sequence[str],
    *,
    splits: Path | None,
    sure: bool,
    changes: Mapping[str, Any],
    output: Path,
    **job: Any,
) -> None:
    from rich.console import Console

    from pasta_model.console import progress_bar
    from pasta_model.data.manifest import read_manifest, read_splits
    from pasta_model.data.splits import apply_splits
    from pasta_model.diagnosis.cases import cases_of
    from pasta_model.diagnosis.inputs import default_inputs
    from pasta_model.diagnosis.run import diagnose as run
    from pasta_model.diagnosis.settings import diagnosis_settings

    settings, folders = diagnosis_settings(**changes), _folders(methods)
    sessions = read_manifest(manifest)
    if splits:
        sessions = apply_splits(sessions, read_splits(splits))
    held = _held_out(sessions, sure=sure) if folders else list(sessions)
    pairs = list(zip(sessions, cases_of(sessions, folders), strict=True))
    cases = [case for session, case in pairs if session in held]
    seen = {case.person for session, case in pairs if session not in held}
    left = len(sessions) - len(held)
    console = Console()
    with progress_bar(console, "diagnosis") as progress:
        result = run(
            cases,
            default_inputs(folders),
            seen=seen,
            settings=settings,
            output=output,
            progress=progress,
            **job,
        )
    about = {"left_out": left, "settings": settings.model_dump(mode="json"), "seed": job["seed"]}
    _record(output / "diagnosis.json", manifest, held, folders, about)
    console.print(_table(result.rows))
    why = f"; {left} left out, as methods were trained or chosen on them" if left else ""
    console.print(f"{output}: {len(held)} sessions read{why}", markup=False)


def _record(
    target: Path,
    manifest: Path,
    held: Sequence[Session],
    folders: Mapping[str, Path],
    about: Mapping[str, Any],
) -> None:
    """Write what was asked, and whose word it is that no method was trained on these people."""
    from pasta_model.checkpoint import file_digest
    from pasta_model.files import write_json

    word = BY_WORD if any(session.split is None for session in held) else BY_SPLITS
    content = {
        "manifest": {"name": manifest.name, "sha256": file_digest(manifest)},
        "methods": {name: str(folder) for name, folder in folders.items()},
        "unseen": word if folders else "no synthetic PETs",
        "sessions": len(held),
    }
    write_json(target, {**content, **about})


def _folders(words: Sequence[str]) -> dict[str, Path]:
    """Read NAME=FOLDER, all mistakes at once."""
    from pasta_model.diagnosis.inputs import MRI, REAL_PET, WITH_CLINICAL
    from pasta_model.errors import ConfigError, Problems

    problems = Problems("methods that cannot be used")
    found: dict[str, Path] = {}
    for word in words:
        name, given, folder = word.partition("=")
        if not (name and given and folder):
            problems.add(f"{word!r}, wanted NAME=FOLDER")
        elif name in (MRI, REAL_PET) or name.endswith(WITH_CLINICAL):
            problems.add(f"{name!r} is the name of another input; choose another")
        elif name in found:
            problems.add(f"{name!r}: given twice, wanted once")
        elif not Path(folder).is_dir():
            problems.add(f"{name}: no folder {folder}; run 'pasta synthesize' first")
        else:
            found[name] = Path(folder)
    problems.raise_if_any(ConfigError)
    return found


def _held_out(sessions: Sequence[Session], *, sure: bool) -> list[Session]:
    """Return the sessions that no method was trained or chosen on."""
    from pasta_model.errors import SplitError

    if not sure and any(s.split is None for s in sessions):
        raise SplitError(
            "nothing says whom the methods were trained on; give the table of splits (--splits, or a column"
            " 'split'), or --all-unseen if it was nobody of these"
        )
    return [s for s in sessions if s.split in (None, "test")]


def _table(rows: Sequence[DiagnosisRow]) -> Table:
    from rich.table import Table

    table = Table(
        "task", "reader", "trained on", "applied to", "persons", "balanced accuracy", "F1", "AUC", "why"
    )
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: DiagnosisRow) -> tuple[str, ...]:
    scores = (row.balanced_accuracy, row.f1, row.auc)
    why = "; ".join(dict.fromkeys(each.why for each in scores if each.why))
    what = (row.task, row.reader, row.trained_on, row.applied_to, str(row.subjects))
    return (*what, *(each.text(2) for each in scores), why)
