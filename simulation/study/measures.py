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
from pasta_model.data.manifest import DIAGNOSES, Session
from pasta_model.data.splits import people
from pasta_model.data.tables import write_table
from pasta_model.data.volume import read_volume
from pasta_model.derivatives import synthetic_path
from pasta_model.diagnosis.cases import cases_of
from pasta_model.diagnosis.inputs import default_inputs
from pasta_model.diagnosis.results import DiagnosisResult
from pasta_model.diagnosis.run import diagnose
from pasta_model.diagnosis.settings import diagnosis_settings
from pasta_model.errors import ConfigError, PastaError
from pasta_model.evaluation.agreement import RegionRow, agreement
from pasta_model.evaluation.estimates import Estimate
from pasta_model.evaluation.groups import FEW
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import GroupRow, summarise
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
from pasta_model.evaluation.uncertainty_records import SubjectUncertainty, read_uncertainty
from pasta_model.familiarity.features import features_of
from pasta_model.familiarity.model import Familiarity, Verdict, save_familiarity
from pasta_model.norms.model import Norms
from pasta_model.norms.overlap import OverlapRow, summarise_overlaps
from pasta_model.report.paired import compare
from pasta_model.report.unlike import UnlikeRow
from simulation.study.cohort import People
from simulation.study.counts import without_few
from simulation.study.references import federated_familiarity, federated_norms
from simulation.study.run import DIFFUSION, Study
from simulation.study.scoring import ScoreJob, SeedRow, all_scores, between_seeds, over_seeds, score

GROUPS = ("site", "diagnosis", "sex", "age")


@dataclass(frozen=True)
class Contrast:
    """A method against the main one: mean of the paired differences, other minus main."""

    method: str
    metric: str
    difference: Estimate


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
    """Measure everything that the study's file asks for; what cannot be is left out, with the reason."""
    folder = study.folder / "measures"
    folder.mkdir(exist_ok=True)
    jobs = score_jobs(study, found)
    with study.stage("scores") as progress:
        study.work(
            score,
            jobs,
            count=lambda: sum(job.table.is_file() for job in jobs),
            total=len(jobs),
            progress=progress,
        )
    with study.stage("intervals"):
        told = _summaries(study, [job for job in jobs if job.method in study.methods()], folder)
    told.left_out |= {f"method {name}": why for name, why in study.failed.items()}
    asked = study.settings.measure
    stages: dict[str, tuple[bool, Callable[[Study, People, Measures, Path], None]]] = {
        "abnormality maps": (asked.abnormality, _abnormality),
        "familiarity of MRIs": (True, _unlike),
        "uncertainty": (asked.samples > 1, _uncertainty),
        "diagnosis": (bool(asked.diagnosis), _diagnosis),
    }
    for name, (wanted, stage) in stages.items():
        if wanted:
            try:
                stage(study, found, told, folder)
            except PastaError as error:
                told.left_out[name] = str(error)
    smallest = asked.smallest_group
    told.left_out = {what: without_few(why, smallest=smallest) for what, why in told.left_out.items()}
    return told


def score_jobs(study: Study, found: People) -> list[ScoreJob]:
    """Return a job a method and seed."""
    sessions, persons = tuple(found.measured), people(found.sessions)
    return [
        ScoreJob(
            name,
            seed,
            study.pets_of(name, seed),
            sessions,
            study.folder / "measures" / "scores" / f"{method.folder}-{seed}.tsv",
            persons,
        )
        for name, method in study.methods().items()
        for seed in study.settings.seeds
    ]


def place_of(folder: Path) -> Callable[[Session], Path]:
    """Return where a session's PET lies in a folder."""
    return lambda session: synthetic_path(folder, session)


def _summaries(study: Study, jobs: Sequence[ScoreJob], folder: Path) -> Measures:
    everything = all_scores(jobs)
    scores = over_seeds(everything)
    seed, main = study.settings.seeds[0], study.settings.measure.main
    smallest = study.settings.measure.smallest_group
    groups = summarise(scores, by=GROUPS, smallest=smallest, seed=seed)
    regions = agreement(everything, smallest=smallest, seed=seed)
    contrasts = [
        Contrast(row.method, row.metric.name, row.difference)
        for name in study.methods()
        for row in compare(scores, name, others=[main], smallest=smallest, seed=seed)
    ]
    write_scores(folder / "scores.tsv", scores)
    write_groups(folder / "groups.tsv", groups)
    write_regions(folder / "regions.tsv", regions)
    return Measures(scores, groups, regions, contrasts, between_seeds(jobs, smallest=smallest))


def _abnormality(study: Study, found: People, told: Measures, folder: Path) -> None:
    seed = study.settings.seeds[0]
    told.norms = federated_norms(study.spaced(found), found, study.folder)
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
        told.left_out["z maps"] = f"{len(made.ageless)} sessions have no age"
    smallest = study.settings.measure.smallest_group
    told.overlaps = summarise_overlaps(made.overlaps, smallest=smallest, seed=seed)


def _diagnosis(study: Study, found: People, told: Measures, folder: Path) -> None:
    measure, seed = study.settings.measure, study.settings.seeds[0]
    _refuse_few(found, measure.smallest_group)
    read = [name for name in measure.diagnosis if name in study.methods()]
    folders = {name: study.pets_of(name, seed) for name in read}
    changes: dict[str, int | str] = {"folds": measure.folds, "device": study.device}
    if measure.reader_steps:
        changes["steps"] = measure.reader_steps
    with study.stage("diagnosis") as progress:
        told.diagnosis = diagnose(
            cases_of(found.measured, folders),
            default_inputs(read),
            seen=found.seen,
            settings=diagnosis_settings(**changes),
            seed=seed,
            output=folder / "diagnosis",
            workers=study.workers,
            progress=progress,
        )


def _refuse_few(found: People, smallest: int) -> None:
    """Refuse readers of diagnoses that too few have: the subjects of two tasks would tell how many."""
    persons = people(found.sessions)
    sizes = Counter(d for _, d in {(persons[s.subject], s.diagnosis) for s in found.measured})
    small = [name for name in DIAGNOSES if 0 < sizes[name] < smallest]
    if small:
        raise ConfigError(f"{FEW} {smallest} persons with {' and with '.join(small)} are measured")


def _unlike(study: Study, found: People, told: Measures, folder: Path) -> None:
    """Say how many of the measured MRIs are unlike those of the training sites, by site."""
    known = federated_familiarity(study.spaced(found), found, study.folder)
    save_familiarity(folder / "familiarity.safetensors", known)
    sessions = found.measured
    with study.stage("familiarity"), study.pool() as pool:
        verdicts = list(pool.map(partial(_judged, known), [s.mri for s in sessions], chunksize=4))
    persons = people(found.sessions)
    for site in found.sites:
        own = [(s, v) for s, v in zip(sessions, verdicts, strict=True) if s.site == site]
        reasons = Counter(v.reasons[0] for _, v in own if v.unlike and v.reasons)
        reason = reasons.most_common(1)[0][0] if reasons else ""
        who = len({persons[s.subject] for s, _ in own})
        told.unlike.append(UnlikeRow(site, len(own), sum(v.unlike for _, v in own), reason, who))


def _judged(known: Familiarity, mri: Path) -> Verdict:
    return known.check(features_of(read_volume(mri)))


def _uncertainty(study: Study, found: People, told: Measures, folder: Path) -> None:
    """Say whether the spread of several samples is calibrated: as it is, and mended on who validates."""
    measure, seed = study.settings.measure, study.settings.seeds[0]
    if study.methods()[measure.main].kind not in DIFFUSION:
        raise ConfigError(f"{measure.main} draws one PET a subject")
    pets = study.pets_of(measure.main, seed, several=True)
    sessions = [s for s in found.sessions if s.split in ("valid", "test")]
    name = f"{measure.main}, {measure.samples} samples"
    with study.stage("uncertainty"), study.pool() as pool:
        read = partial(_uncertain, people(found.sessions), pets, name)
        records = dict(zip([s.name for s in sessions], pool.map(read, sessions, chunksize=4), strict=True))
    tested, validated = (
        [records[s.name] for s in sessions if s.split == split] for split in ("test", "valid")
    )
    _refuse_fewer(tested, measure.smallest_group)
    told.coverage = coverage_rows(tested, seed=seed)
    told.spreads = spread_rows(tested, seed=seed)
    told.calibration = calibration_rows(tested, seed=seed)
    _write_coverage(folder / "coverage.tsv", told.coverage)
    try:
        _refuse_fewer(validated, measure.smallest_group)
        told.recalibration = recalibration(validated)
        told.recalibrated = recalibrated_coverage(tested, told.recalibration, seed=seed)
    except ConfigError as error:
        told.left_out["recalibrated uncertainty"] = str(error)


def _refuse_fewer(records: Sequence[SubjectUncertainty], smallest: int) -> None:
    if (persons := len({r.person for r in records})) < smallest:
        raise ConfigError(f"{persons} persons, the study shows groups of {smallest}")


def _uncertain(persons: Mapping[str, str], folder: Path, method: str, session: Session) -> SubjectUncertainty:
    return read_uncertainty(session, folder, method=method, person=persons[session.subject])


def _write_coverage(path: Path, rows: Sequence[CoverageRow]) -> None:
    """Write one row a level: share of voxels in the interval, and its width in SUVR."""
    header = ["method", "level", "subjects", "coverage", "coverage_low", "coverage_high", "width"]
    table = []
    for row in rows:
        found = row.coverage
        numbers = (found.value, found.low, found.high, row.width.value)
        cells = ["n/a" if value is None else repr(value) for value in numbers]
        table.append([row.method, str(row.level), str(row.subjects), *cells])
    write_table(path, header, table)
