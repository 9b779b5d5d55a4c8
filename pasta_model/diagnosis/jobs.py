# SPDX-License-Identifier: Apache-2.0
"""One fold of one reader on one input: what it depends on, its predictions, and where they are kept."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pasta_model.checkpoint import file_digest
from pasta_model.data.clinical import ClinicalScheme, Moments, clinical_table
from pasta_model.data.grid import template
from pasta_model.diagnosis.cases import Case
from pasta_model.diagnosis.inputs import Input
from pasta_model.diagnosis.intensities import brain_of, standard_of
from pasta_model.diagnosis.regions import read_regions
from pasta_model.diagnosis.results import Prediction
from pasta_model.diagnosis.scans import measures_of, voxels_of
from pasta_model.diagnosis.settings import DiagnosisSettings
from pasta_model.diagnosis.tasks import TASKS
from pasta_model.diagnosis.training import Examples, read_scans, train_network
from pasta_model.files import write_json
from pasta_model.seeding import stream_seed

Features = NDArray[np.float64]
_LIBRARIES = ("torch", "monai", "numpy", "scikit-learn")
_OF_THE_READING = (
    "folds",
    "clinical",
    "steps",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "width",
    "shift",
)
_OF_THE_MACHINE = ("penalty", "device", "dtype")
FORMAT = 1  # of the readers: another number makes all predictions anew


@dataclass(frozen=True, eq=False)
class Job:
    """What a process needs to train and apply one reader.

    Attributes
    ----------
    applied_to
        Inputs that the held-out persons are read from; the one it is trained on is the first.
    cases, rows, held
        All cases; those of the task, by number; the fold that each of these is held out in.
    gathered
        Kind of scan to the file that `scans.gather` wrote, of all cases.
    spacing
        Of the scans, in mm; like `gathered`, not known before they are read.
    target, digest
        Where the predictions are kept, None for nowhere; what they depend on.
    """

    task: str
    reader: str
    trained_on: Input
    applied_to: tuple[Input, ...]
    fold: int
    cases: tuple[Case, ...]
    rows: tuple[int, ...]
    held: NDArray[np.intp]
    settings: DiagnosisSettings
    seed: int
    gathered: Mapping[str, Path] = field(default_factory=dict)
    spacing: float = 0.0
    target: Path | None = None
    digest: str = ""

    @property
    def train(self) -> list[int]:
        """Cases that the reader is trained on, by number."""
        return [row for row, held in zip(self.rows, self.held, strict=True) if held != self.fold]

    @property
    def test(self) -> list[int]:
        """Cases that are held out, by number."""
        return [row for row, held in zip(self.rows, self.held, strict=True) if held == self.fold]


def run_job(job: Job) -> tuple[Prediction, ...]:
    """Train, apply, and keep the predictions where the job says so."""
    labels = np.array([TASKS[job.task].label(job.cases[row].diagnosis) for row in job.train], dtype=np.intp)
    read = _with_network if job.reader == "network" else _with_regions
    found = tuple(
        Prediction(
            task=job.task,
            reader=job.reader,
            trained_on=job.trained_on.name,
            applied_to=applied,
            fold=job.fold,
            person=job.cases[row].person,
            session=job.cases[row].session,
            site=job.cases[row].site,
            diagnosis=job.cases[row].diagnosis,
            probabilities=tuple(values),
        )
        for applied, probabilities in read(job, labels).items()
        for row, values in zip(job.test, probabilities.tolist(), strict=True)
    )
    if job.target:
        write_json(job.target, {"digest": job.digest, "predictions": [asdict(each) for each in found]})
    return found


def kept(job: Job) -> tuple[Prediction, ...] | None:
    """Return the predictions of an earlier run, None where there are none that depend on the same things."""
    if job.target is None or not job.target.is_file():
        return None
    try:
        content = json.loads(job.target.read_text(encoding="utf-8"))
        if content["digest"] != job.digest:
            return None
        return tuple(
            Prediction(**{**each, "probabilities": tuple(each["probabilities"])})
            for each in content["predictions"]
        )
    except (OSError, ValueError, KeyError, TypeError):  # damaged: it is made again
        return None


def file_name(task: str, reader: str, trained_on: str, fold: int) -> str:
    """Name the file of a job: readable, and of its own where two inputs differ in signs only."""
    words = "-".join("".join(c if c.isalnum() else " " for c in f"{task} {reader} {trained_on}").split())
    tail = hashlib.sha256(f"{task}\n{reader}\n{trained_on}".encode()).hexdigest()[:8]
    return f"{words}-{tail}_fold-{fold}.json"


def scan_digests(cases: Sequence[Case], kinds: Sequence[str]) -> dict[str, str]:
    """Return one digest of all files of each kind of scan."""
    return {
        kind: hashlib.sha256("".join(file_digest(path) for path in paths).encode()).hexdigest()
        for kind in kinds
        if (paths := [path for case in cases if (path := case.scan(kind))])
    }


def digest_of(job: Job, scans: Mapping[str, str]) -> str:
    """Return the digest of all that a job's predictions depend on."""
    settings = job.settings.model_dump(include={*_OF_THE_READING, *_OF_THE_MACHINE}, mode="json")
    people = [
        (case.person, case.session, case.site, case.diagnosis, sorted(case.clinical.items()), int(held))
        for row, held in zip(job.rows, job.held, strict=True)
        for case in [job.cases[row]]
    ]
    content = {
        "format": FORMAT,
        "what": (job.task, job.reader, job.trained_on.name, job.fold, job.seed),
        "applied": [each.name for each in job.applied_to],
        "scans": {each.scan: scans[each.scan] for each in (job.trained_on, *job.applied_to)},
        "settings": settings,
        "people": people,
        "versions": {name: version(name) for name in _LIBRARIES},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _with_network(job: Job, labels: NDArray[np.intp]) -> dict[str, Features]:
    """Read with the network; of all inputs the first is trained on, and its standard is theirs too."""
    brain = brain_of(template(job.spacing))
    examples = Examples(
        scans=voxels_of(job.gathered[job.trained_on.scan], job.train),
        clinical=_clinical(job, job.train, job.trained_on),
        labels=labels,
        people=[job.cases[row].person for row in job.train],
    )
    standard = standard_of(examples.scans, brain)
    network = train_network(
        examples,
        standard,
        classes=len(TASKS[job.task].classes),
        spacing=job.spacing,
        settings=job.settings,
        seed=stream_seed(job.seed, job.task, job.fold),
    )
    return {
        each.name: read_scans(
            network,
            voxels_of(job.gathered[each.scan], job.test),
            _clinical(job, job.test, each),
            standard,
            settings=job.settings,
        )
        for each in job.applied_to
    }


def _with_regions(job: Job, labels: NDArray[np.intp]) -> dict[str, Features]:
    def features(rows: list[int], given: Input) -> Features:
        measures = measures_of(job.gathered[given.scan], rows)
        return np.hstack([measures, _clinical(job, rows, given)])

    return read_regions(
        features(job.train, job.trained_on),
        labels,
        {each.name: features(job.test, each) for each in job.applied_to},
        penalty=job.settings.penalty,
    )


def _clinical(job: Job, rows: Sequence[int], given: Input) -> NDArray[np.float32]:
    """Return z-scores by the training fold (0 where missing) and presence flags, (rows, K)."""
    columns = job.settings.clinical if given.clinical else ()
    scheme = ClinicalScheme(columns, flagged=columns)
    trained = clinical_table([job.cases[row].clinical for row in job.train], scheme)
    standard = Moments.of(trained).standardisation()
    return np.stack([standard.vector(job.cases[row].clinical, scheme) for row in rows])
