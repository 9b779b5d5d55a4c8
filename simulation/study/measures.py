# SPDX-License-Identifier: Apache-2.0
"""What a study measures of its PETs: scores, regions, z maps, readers, uncertainty; each stage resumable.

measures/scores/<method>-<seed>.tsv      measures/norms.safetensors     measures/diagnosis/
measures/overlaps.tsv                    measures/table.tsv, groups.tsv, regions.tsv, ...
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pasta_model.assessment.abnormality import Abnormality, abnormality, write_overlaps
from pasta_model.data.manifest import Session
from pasta_model.data.volume import read_volume
from pasta_model.derivatives import synthetic_path
from pasta_model.diagnosis.cases import cases_of
from pasta_model.diagnosis.inputs import default_inputs
from pasta_model.diagnosis.results import DiagnosisResult
from pasta_model.diagnosis.run import diagnose
from pasta_model.diagnosis.settings import diagnosis_settings
from pasta_model.errors import ConfigError, PastaError
from pasta_model.evaluation.agreement import RegionRow, agreement
from pasta_model.evaluation.columns import METRICS
from pasta_model.evaluation.estimates import Estimate
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import GroupRow, differences, summarise
from pasta_model.evaluation.tables import write_groups, write_regions, write_scores
from pasta_model.evaluation.uncertainty import (
    CalibrationRow,
    CoverageRow,
    Recalibration,
    SpreadRow,
    calibration_rows,
    coverage_rows,
    recalibrated_coverage,
    recalibration,
    spread_rows,
)
from pasta_model.evaluation.uncertainty_records import read_uncertainty
from pasta_model.familiarity.features import features_of
from pasta_model.familiarity.model import save_familiarity
from pasta_model.norms.model import Norms
from pasta_model.norms.overlap import OverlapRow, summarise_overlaps
from simulation.study.cohort import People
from simulation.study.references import federated_familiarity, federated_norms
from simulation.study.run import DIFFUSION, Study
from simulation.study.scoring import ScoreJob, SeedRow, between_seeds, over_seeds, score

GROUPS = ("site", "diagnosis", "sex", "age")


@dataclass(frozen=True)
class Contrast:
    """A method against the main one: mean of the paired differences, other minus main."""

    method: str
    metric: str
    difference: Estimate


@dataclass(frozen=True)
class UnlikeRow:
    """How many MRIs of a site are unlike those of the training sites, and the most common reason."""

    site: str
    scans: int
    flagged: int
    reason: str


@dataclass
class Measures:
    """All that was measured, and in `left_out` what was not, with the reason."""

    scores: list[SubjectScore]
    groups: list[GroupRow]
    regions: list[RegionRow]
    contrasts: list[Contrast]
    seeds: list[SeedRow]
    overlaps: list[OverlapRow] = field(default_factory=list)
    diagnosis: DiagnosisResult | None = None
    coverage: list[CoverageRow] = field(default_factory=list)
    spreads: list[SpreadRow] = field(default_factory=list)
    calibration: list[CalibrationRow] = field(default_factory=list)
    recalibrated: list[CoverageRow] = field(default_factory=list)
    recalibration: Recalibration | None = None
    unlike: list[UnlikeRow] = field(default_factory=list)
    norms: Norms | None = None
    left_out: dict[str, str] = field(default_factory=dict)


def measure(study: Study, found: People) -> Measures:
    """Measure everything that the study's file asks for."""
    folder = study.folder / "measures"
    folder.mkdir(exist_ok=True)
    jobs = score_jobs(study, found)
    with study.stage("scores") as progress, study.pool() as pool:
        study.work(
            pool,
            score,
            jobs,
            count=lambda: sum(job.table.is_file() for job in jobs),
            total=len(jobs),
            progress=progress,
        )
    scores = over_seeds(jobs)
    with study.stage("intervals"):
        told = _summaries(study, scores, jobs, folder)
    if study.settings.measure.abnormality:
        _abnormality(study, found, told, folder)
    _unlike(study, found, told, folder)
    _uncertainty(study, found, told)
    if study.settings.measure.diagnosis:
        _diagnosis(study, found, told, folder)
    return told


def score_jobs(study: Study, found: People) -> list[ScoreJob]:
    """Return a job a method and seed."""
    sessions = tuple(found.measured)
    return [
        ScoreJob(
            name,
            seed,
            study.pets_of(name, seed),
            sessions,
            study.folder / "measures" / "scores" / f"{method.folder}-{seed}.tsv",
        )
        for name, method in study.methods().items()
        for seed in study.settings.seeds
    ]


def place_of(folder: Path) -> Callable[[Session], Path]:
    """Return where a session's PET lies in a folder."""
    return lambda session: synthetic_path(folder, session)


def _summaries(study: Study, scores: list[SubjectScore], jobs: Sequence[ScoreJob], folder: Path) -> Measures:
    seed, main = study.settings.seeds[0], study.settings.measure.main
    smallest = study.settings.measure.smallest_group
    groups = summarise(scores, by=GROUPS, smallest=smallest, seed=seed)
    regions = agreement(scores, smallest=smallest, seed=seed)
    contrasts = [
        Contrast(name, metric.name, differences(scores, name, main, metric, seed=seed))
        for name in study.methods()
        if name != main
        for metric in METRICS
    ]
    write_scores(folder / "scores.tsv", scores)
    write_groups(folder / "groups.tsv", groups)
    write_regions(folder / "regions.tsv", regions)
    return Measures(scores, groups, regions, contrasts, between_seeds(jobs))


def _abnormality(study: Study, found: People, told: Measures, folder: Path) -> None:
    seed = study.settings.seeds[0]
    try:
        told.norms = federated_norms(study.settings, found, study.folder)
    except PastaError as error:
        told.left_out["abnormality maps"] = str(error)
        return
    told.norms.save(folder / "norms.safetensors")
    pets: Mapping[str, Callable[[Session], Path]] = {
        name: place_of(study.pets_of(name, seed)) for name in study.methods()
    }
    with study.stage("abnormality maps") as progress:
        made: Abnormality = abnormality(
            found.measured,
            pets,
            norms=folder / "norms.safetensors",
            workers=study.workers,
            progress=progress,
        )
    write_overlaps(folder / "overlaps.tsv", made.overlaps)
    if made.ageless:
        told.left_out["z maps of sessions without an age"] = ", ".join(made.ageless)
    smallest = study.settings.measure.smallest_group
    told.overlaps = summarise_overlaps(made.overlaps, smallest=smallest, seed=seed)


def _diagnosis(study: Study, found: People, told: Measures, folder: Path) -> None:
    measure, seed = study.settings.measure, study.settings.seeds[0]
    folders = {name: study.pets_of(name, seed) for name in measure.diagnosis}
    changes: dict[str, int | str] = {"folds": measure.folds, "device": study.device}
    if measure.reader_steps:
        changes["steps"] = measure.reader_steps
    with study.stage("diagnosis") as progress:
        told.diagnosis = diagnose(
            cases_of(found.measured, folders),
            default_inputs(measure.diagnosis),
            seen=found.seen,
            settings=diagnosis_settings(**changes),
            seed=seed,
            output=folder / "diagnosis",
            workers=study.workers,
            progress=progress,
        )


def _unlike(study: Study, found: People, told: Measures, folder: Path) -> None:
    """Say how many of the measured MRIs are unlike those of the training sites, by site."""
    try:
        known = federated_familiarity(study.settings, found, study.folder)
    except PastaError as error:
        told.left_out["familiarity of MRIs"] = str(error)
        return
    save_familiarity(folder / "familiarity.safetensors", known)
    with study.stage("familiarity"):
        for site in found.sites:
            mris = [read_volume(s.mri) for s in found.of(site, "test")]
            verdicts = [known.check(features_of(mri)) for mri in mris]
            reasons = Counter(v.reasons[0] for v in verdicts if v.unlike and v.reasons)
            reason = reasons.most_common(1)[0][0] if reasons else ""
            flagged = sum(v.unlike for v in verdicts)
            told.unlike.append(UnlikeRow(site, len(verdicts), flagged, reason))


def _uncertainty(study: Study, found: People, told: Measures) -> None:
    """Say whether the spread of several samples is calibrated: as it is, and mended on who validates."""
    measure, seed = study.settings.measure, study.settings.seeds[0]
    if measure.samples == 1 or study.methods()[measure.main].kind not in DIFFUSION:
        return
    folder = study.pets_of(measure.main, seed, several=True)
    sessions = [s for s in found.sessions if s.split in ("valid", "test")]
    name = f"{measure.main}, {measure.samples} samples"
    with study.stage("uncertainty"), study.pool() as pool:
        read = partial(read_uncertainty, folder=folder, method=name)
        records = dict(zip([s.name for s in sessions], pool.map(read, sessions, chunksize=4), strict=True))
    tested, validated = (
        [records[s.name] for s in sessions if s.split == split] for split in ("test", "valid")
    )
    told.coverage = coverage_rows(tested, seed=seed)
    told.spreads = spread_rows(tested, seed=seed)
    told.calibration = calibration_rows(tested, seed=seed)
    try:
        told.recalibration = recalibration(validated)
        told.recalibrated = recalibrated_coverage(tested, told.recalibration, seed=seed)
    except ConfigError as error:
        told.left_out["recalibrated uncertainty"] = str(error)
