# SPDX-License-Identifier: Apache-2.0
"""Diagnosis from each kind of scan: the same folds and budget for all, in several processes, resumable.

Every reader is trained on the persons of all folds but one and reads those of the one: each session gets
one prediction, by a reader that never saw the person. Which persons a generator has seen is the caller's to
say; they are refused.
"""

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pasta_model.diagnosis.cases import Case, absent, refuse_unusable
from pasta_model.diagnosis.files import write_predictions, write_rows
from pasta_model.diagnosis.folds import person_folds, untrainable
from pasta_model.diagnosis.inputs import Input, applied_inputs, input_of
from pasta_model.diagnosis.jobs import Job, digest_of, file_name, kept, run_job, scan_digests
from pasta_model.diagnosis.results import DiagnosisResult, DiagnosisRow, Prediction
from pasta_model.diagnosis.scans import Reading, gather
from pasta_model.diagnosis.scores import by_kind, row_of, unavailable_row
from pasta_model.diagnosis.settings import DiagnosisSettings
from pasta_model.diagnosis.tasks import TASKS
from pasta_model.errors import Problems, VolumeError
from pasta_model.files import clear_partial, refuse_unwritable
from pasta_model.locks import only_one
from pasta_model.placement import check_device
from pasta_model.workers import process_pool

Progress = Callable[[int, int], None]
Each = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]


def diagnose(
    cases: Sequence[Case],
    inputs: Sequence[str],
    *,
    seen: Collection[str],
    settings: DiagnosisSettings | None = None,
    seed: int = 0,
    output: Path | None = None,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> DiagnosisResult:
    """Train and apply every reader on every input, and score the predictions.

    Parameters
    ----------
    inputs
        "MRI", "real PET", or the name of a method among the cases' PETs, each also with " + clinical".
        `inputs.default_inputs` makes the usual list. Where "real PET" is among them, readers of real PETs
        are applied to each synthetic one too.
    seen
        Persons that any generator was trained on (train or valid split).
    output
        Where predictions are kept, one file a task, reader, input and fold; those that depend on the same
        scans, people, settings and seed are not made again. Tables of all predictions and rows lie there
        at the end. None keeps nothing.
    workers
        Processes, of one thread each; 1 computes in this one.
    progress
        Called with steps done and steps in all: a kind of scan read, a fold predicted.

    Raises
    ------
    SplitError, ManifestError
        When the cases cannot, or must not, be diagnosed: see `cases.refuse_unusable`.
    ConfigError
        When the device or the folder for outputs cannot be used.
    VolumeError
        With a line for every scan that cannot be read.
    BusyError
        When another process writes to the same folder.
    """
    settings = settings or DiagnosisSettings()
    given = [input_of(name) for name in inputs]
    refuse_unusable(cases, given, seen=seen, tasks=settings.tasks, folds=settings.folds)
    check_device(settings.device)
    if not output:
        return _result(cases, given, settings=settings, seed=seed, workers=workers, progress=progress)
    refuse_unwritable(output)
    with only_one(output, inside=True):
        result = _result(cases, given, settings=settings, seed=seed, output=output, workers=workers,
                         progress=progress)  # fmt: skip
        write_predictions(output / "predictions.tsv", result.predictions)
        write_rows(output / "diagnosis.tsv", result.rows)
    return result


def _result(
    cases: Sequence[Case],
    inputs: Sequence[Input],
    *,
    settings: DiagnosisSettings,
    seed: int,
    output: Path | None = None,
    workers: int,
    progress: Progress,
) -> DiagnosisResult:
    jobs, unavailable = _plan(tuple(cases), inputs, settings=settings, seed=seed, output=output)
    with _several(workers) as each:
        predictions = _predict(jobs, output, each, _Steps(progress, len(jobs)))
    scored = [row_of(own, seed=seed, resamples=settings.resamples) for own in by_kind(predictions).values()]
    rows = _in_order([*unavailable, *scored], settings, inputs)
    return DiagnosisResult(tuple(rows), tuple(predictions))


def _plan(
    cases: tuple[Case, ...],
    inputs: Sequence[Input],
    *,
    settings: DiagnosisSettings,
    seed: int,
    output: Path | None,
) -> tuple[list[Job], list[DiagnosisRow]]:
    """Return the folds to predict, and rows of the tasks that cannot be set."""
    jobs: list[Job] = []
    rows: list[DiagnosisRow] = []
    kinds = list(dict.fromkeys(given.scan for given in inputs))
    scans = scan_digests(cases, kinds) if output else {}
    for name in settings.tasks:
        task = TASKS[name]
        own = tuple(row for row, case in enumerate(cases) if case.diagnosis in task.classes)
        people = [cases[row].person for row in own]
        labels = [task.label(cases[row].diagnosis) for row in own]
        why, held = absent(cases, task), np.zeros(0, dtype=np.intp)
        if not why:
            held = person_folds(people, labels, folds=settings.folds, seed=seed)
            why = untrainable(task, np.array(labels), held)
        for reader, given in ((reader, given) for reader in settings.readers for given in inputs):
            applied = applied_inputs(given, inputs)
            if why:
                kind = ((name, reader, given.name, other.name) for other in applied)
                rows += [unavailable_row(each, subjects=len(set(people)), why=why) for each in kind]
                continue
            whole = Job(name, reader, given, applied, 0, cases, own, held, settings, seed)
            folds = (replace(whole, fold=fold) for fold in range(settings.folds))
            jobs += [_kept_at(output, job, scans) for job in folds] if output else folds
    return jobs, rows


def _kept_at(output: Path, job: Job, scans: Mapping[str, str]) -> Job:
    target = output / "folds" / file_name(job.task, job.reader, job.trained_on.name, job.fold)
    return replace(job, target=target, digest=digest_of(job, scans))


def _predict(jobs: Sequence[Job], output: Path | None, each: Each, steps: "_Steps") -> list[Prediction]:
    """Return all predictions in the order of the jobs: what was kept, and what is made now."""
    found = {number: kept(job) for number, job in enumerate(jobs)}
    wanted = [number for number, predictions in found.items() if predictions is None]
    if wanted:
        if output:
            output.mkdir(parents=True, exist_ok=True)
            clear_partial(output)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=output) as folder:
            ready = _gathered([jobs[number] for number in wanted], Path(folder), each, steps)
            steps.skip(len(jobs) - len(wanted))
            made = steps.count(each(run_job, ready))
            found |= dict(zip(wanted, made, strict=True))
    else:
        steps.skip(len(jobs))
    return [prediction for predictions in found.values() for prediction in predictions or ()]


def _gathered(jobs: Sequence[Job], folder: Path, each: Each, steps: "_Steps") -> list[Job]:
    """Read the scans that the jobs need, once each, and tell the jobs where they are."""
    cases = jobs[0].cases
    kinds = list(dict.fromkeys(given.scan for job in jobs for given in job.applied_to))
    steps.total += len(kinds)
    readings = [
        Reading(
            kind,
            tuple((case.name, path) for case in cases if (path := case.scan(kind))),
            folder / f"{number}.safetensors",
        )
        for number, kind in enumerate(kinds)
    ]
    read = list(steps.count(each(gather, readings)))
    problems = Problems("scans that cannot be read")
    for line in (line for one in read for line in one.problems):
        problems.add(line)
    spacings = {kind: one.spacing for kind, one in zip(kinds, read, strict=True) if one.spacing}
    if len(set(spacings.values())) > 1:
        found = ", ".join(f"{kind} {spacing} mm" for kind, spacing in spacings.items())
        problems.add(f"found {found}; wanted one spacing for all: resample the scans")
    problems.raise_if_any(VolumeError)
    spacing = next(iter(spacings.values()))
    files = {reading.kind: reading.target for reading in readings}
    return [replace(job, gathered=files, spacing=spacing) for job in jobs]


def _in_order(
    rows: Sequence[DiagnosisRow], settings: DiagnosisSettings, inputs: Sequence[Input]
) -> list[DiagnosisRow]:
    """Sort rows by task, reader and input, as they were asked for."""
    names = [given.name for given in inputs]
    return sorted(
        rows,
        key=lambda row: (
            settings.tasks.index(row.task),
            settings.readers.index(row.reader),
            names.index(row.trained_on),
            row.applied_to != row.trained_on,
            names.index(row.applied_to),
        ),
    )


class _Steps:
    """Count what is done."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.done, self.total = progress, 0, total

    def skip(self, steps: int) -> None:
        """Note steps that need not be done."""
        self.done += steps
        if steps:
            self.progress(self.done, self.total)

    def count(self, items: Iterator[Any]) -> Iterator[Any]:
        """Note a step an item."""
        for item in items:
            self.skip(1)
            yield item


@contextmanager
def _several(workers: int) -> Iterator[Each]:
    """Yield a function that maps in order: here, or over processes."""
    if workers < 2:
        yield map
        return
    with process_pool(workers) as pool:
        yield pool.map
