# SPDX-License-Identifier: Apache-2.0
"""From the scores of an evaluation to its folder: z maps where there are norms, the report, all tables."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pasta_model.assessment.abnormality import Abnormality, abnormality, write_overlaps
from pasta_model.assessment.card import CARD, Run, completed_card
from pasta_model.assessment.page import Assessed, assessment_page, pets_by_method
from pasta_model.assessment.sidecars import Told, beside_pets
from pasta_model.checkpoint import file_digest
from pasta_model.data.manifest import Session
from pasta_model.diagnosis.files import read_predictions, read_rows
from pasta_model.diagnosis.results import DiagnosisRow, Prediction
from pasta_model.diagnosis.scores import auc_differences
from pasta_model.errors import ConfigError
from pasta_model.evaluation.comparison import EvaluationResult
from pasta_model.evaluation.groups import few
from pasta_model.evaluation.records import write_evaluation
from pasta_model.evaluation.unseen import Basis, Measured
from pasta_model.norms.model import Norms
from pasta_model.norms.overlap import summarise_overlaps
from pasta_model.report.card import ModelCard, write_card
from pasta_model.report.html import write_page
from pasta_model.report.page import Page
from pasta_model.report.unlike import UnlikeRow

TABLE, PREDICTIONS = "diagnosis.tsv", "predictions.tsv"  # of `pasta diagnose`


@dataclass(frozen=True)
class Extras:
    """What a report shows besides scores, read before any work is done.

    Attributes
    ----------
    method
        The one that is shown and compared.
    norms
        A file of `norms.model.Norms`.
    predictions
        Of the readers, for paired differences; empty where only their table is there.
    run
        Whose model card is completed.
    """

    method: str
    norms: Path | None
    diagnosis: Sequence[DiagnosisRow]
    predictions: Sequence[Prediction] = ()
    run: Run | None = None

    @classmethod
    def read(
        cls,
        methods: Mapping[str, Path],
        *,
        method: str | None,
        norms: Path | None,
        diagnosis: Path | None,
        run: Path | None = None,
    ) -> "Extras":
        """Read and check them.

        Raises
        ------
        ConfigError
            When there is no such method.
        CheckpointError, ManifestError
            When the norms, the table of a diagnosis run, or what a run tells of itself cannot be read.
        """
        if method is not None and method not in methods:
            raise ConfigError(f"--method {method!r}; wanted one of {', '.join(methods)}")
        if norms:
            Norms.load(norms)
        rows = read_rows(diagnosis / TABLE) if diagnosis else []
        table = diagnosis / PREDICTIONS if diagnosis else None
        predictions = read_predictions(table) if table and table.is_file() else []
        whose = Run.read(run) if run else None
        return cls(method or next(iter(methods)), norms, rows, predictions, whose)

    def tells_of_few(self, smallest: int) -> bool:
        """Whether the numbers of persons in the diagnosis table would tell of fewer than `smallest`."""
        groups: dict[str, set[str]] = {}
        for each in self.predictions:
            groups.setdefault(each.diagnosis, set()).add(each.person)
        sizes = [len(group) for group in groups.values()] + [row.subjects for row in self.diagnosis]
        return any(size < smallest for size in sizes)


def assess(
    output: Path,
    result: EvaluationResult,
    extras: Extras,
    *,
    who: Measured,
    manifest: Path,
    folders: Mapping[str, Path],
    settings: Mapping[str, Any],
    report: bool = True,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write an evaluation's folder, with its report unless that is not wanted, whole or not at all.

    Raises
    ------
    VolumeError
        With a line for every PET that cannot be compared with the norms.
    """
    found = _abnormality(result, extras, who.sessions, workers=workers, progress=progress)
    asked: dict[str, Any] = {"who": who, "manifest": manifest, "folders": folders, "settings": settings}
    told, own = Told(), {name: settings[name] for name in ("smallest", "seed")}
    if report or extras.run:
        told = beside_pets(result, who.sessions, folders, **own, workers=workers, progress=progress)
    page = _page(result, extras, found=found, told=told, **asked) if report else None
    card = _card(result, extras, extras.run, unlike=told.unlike, **asked) if extras.run else None

    def more(folder: Path) -> None:
        if page:
            write_page(folder / "report.html", page)
        if card:
            write_card(folder / CARD, card)
        if found:
            write_overlaps(folder / "overlaps.tsv", found.overlaps)

    write_evaluation(output, result, **asked, more=more)


def _page(
    result: EvaluationResult,
    extras: Extras,
    *,
    who: Measured,
    found: Abnormality | None,
    told: Told,
    manifest: Path,
    folders: Mapping[str, Path],
    settings: Mapping[str, Any],
) -> Page:
    smallest, seed = int(settings["smallest"]), int(settings["seed"])
    few_read = extras.tells_of_few(smallest)
    about = Assessed(
        result,
        who,
        extras.method,
        norms=Norms.load(extras.norms) if extras.norms else None,
        overlap=summarise_overlaps(found.overlaps, smallest=smallest, seed=seed) if found else (),
        diagnosis=() if few_read else extras.diagnosis,
        auc_differences=() if few_read else auc_differences(extras.predictions, seed=seed),
        told=told,
        smallest=smallest,
        left_out=[*_left_out(result, found), *[f"Diagnosis: {few(smallest)}."] * few_read],
        people=_of_people(who),
    )
    return assessment_page(
        about,
        command=_command(manifest, folders, who, extras.run),
        seed=seed,
        digests={manifest.name: file_digest(manifest)},
        settings={name: str(v) if isinstance(v, Path) else v for name, v in settings.items()},
    )


def _card(
    result: EvaluationResult,
    extras: Extras,
    run: Run,
    *,
    who: Measured,
    unlike: Sequence[UnlikeRow],
    manifest: Path,
    folders: Mapping[str, Path],
    settings: Mapping[str, Any],
) -> ModelCard:
    return completed_card(
        run,
        result,
        who,
        method=extras.method,
        people=_of_people(who),
        smallest=int(settings["smallest"]),
        seed=int(settings["seed"]),
        unlike=unlike,
        command=_command(manifest, folders, who, run),
    )


def _command(manifest: Path, folders: Mapping[str, Path], who: Measured, run: Run | None) -> str:
    """Return the command without the places of its files: a card leaves the site."""
    words = [manifest.name, *(f"{name}={folder.name or folder}" for name, folder in folders.items())]
    if who.splits:
        words.append(f"--splits {who.splits.name}")
    if who.basis is Basis.WORD:
        words.append("--all-unseen")
    if run:
        words.append(f"--run {run.folder.name or run.folder}")
    return f"pasta evaluate {' '.join(words)}"


def _abnormality(
    result: EvaluationResult,
    extras: Extras,
    sessions: Sequence[Session],
    *,
    workers: int,
    progress: Callable[[int, int], None],
) -> Abnormality | None:
    """Compare hypometabolism in the sessions of which every method has a PET."""
    if not extras.norms:
        return None
    pets = pets_by_method(result, sessions)
    keys = set.intersection(*(set(own) for own in pets.values()))
    shared = [s for s in sessions if (s.site, s.subject, s.session) in keys]
    places = {
        name: _Place({s.name: own[s.site, s.subject, s.session] for s in shared})
        for name, own in pets.items()
    }
    return abnormality(
        shared, places, norms=extras.norms, masks=result.masks, workers=workers, progress=progress
    )


@dataclass(frozen=True)
class _Place:
    """Where a session's PET of one method lies."""

    paths: Mapping[str, Path]

    def __call__(self, session: Session) -> Path:
        return self.paths[session.name]


def _left_out(result: EvaluationResult, found: Abnormality | None) -> list[str]:
    lines = [
        f"{name}: {len(left)} sessions have no PET and were left out."
        for name, left in result.missing.items()
    ]
    if found and found.ageless:
        lines.append(f"{len(found.ageless)} sessions have no age, so no norms and no z map.")
    return lines


def _of_people(who: Measured) -> bool:
    return not all(_is_twin(session) for session in who.sessions)


def _is_twin(session: Session) -> bool:
    """Whether the sidecar of the real PET says that it is a digital twin's."""
    sidecar = session.pet.with_name(session.pet.name.split(".nii")[0] + ".json")
    try:
        return json.loads(sidecar.read_text(encoding="utf-8")).get("Synthetic") is True
    except (OSError, ValueError, AttributeError):
        return False
