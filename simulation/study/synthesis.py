# SPDX-License-Identifier: Apache-2.0
"""The PETs of a study: who is synthesised with which model, as jobs for processes; resumable.

synthetic/<method>-<seed>/<subject>/<session>/pet/...
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pasta_model.config import sampling_of
from pasta_model.data.manifest import Session
from pasta_model.data.splits import people
from pasta_model.derivatives import SynthesisJob, synthesise_sessions, synthetic_path
from pasta_model.seeding import numpy_generator
from simulation.study.cohort import People
from simulation.study.methods import Method
from simulation.study.training import TrainJob, model_of

SAMPLES = "several samples"


@dataclass(frozen=True)
class PetJob:
    """Sessions to synthesise with one model.

    Attributes
    ----------
    model
        None where the PET is the mean of the training PETs.
    samples
        PETs a subject; of several, their mean and spread are kept.
    """

    method: Method
    model: Path | None
    stores: tuple[Path, ...]
    sessions: tuple[Session, ...]
    folder: Path
    seed: int
    device: str
    samples: int = 1

    def missing(self) -> int:
        """How many sessions have no PET yet."""
        return sum(not synthetic_path(self.folder, session).is_file() for session in self.sessions)


def synthesise(job: PetJob) -> None:
    """Make the PETs of a job that are not there."""
    if job.model is None:
        from simulation.rivals.folders import mean_pet_folder

        mean_pet_folder(list(job.stores), job.sessions, job.folder)
    elif job.method.kind == "rival":
        from simulation.rivals.folders import synthesise_rival

        synthesise_rival(job.model, job.sessions, job.folder, seed=job.seed)
    else:
        synthesise_sessions(_synthesis(job, job.model), job.sessions)


def pet_folder(root: Path, method: Method, seed: int, *, several: bool = False) -> Path:
    """Where a method's PETs of a seed lie."""
    return root / "synthetic" / f"{method.folder}-{seed}{'-samples' if several else ''}"


def pet_jobs(
    found: People,
    method: Method,
    trained: Mapping[str, TrainJob],
    *,
    root: Path,
    seed: int,
    device: str,
    stores: Mapping[str, Path],
    samples: int = 1,
) -> Iterator[PetJob]:
    """Yield a job a site: each person's PET by the model that their hospital would have.

    Parameters
    ----------
    trained
        The method's training jobs: one by each site's name where sites are alone, else one by "".
    """
    splits = ("valid", "test") if samples > 1 else ("test",)  # spreads are recalibrated on who validates
    for site in found.sites:
        sessions = found.of(site, *splits)
        for model, own in _models(found, method, trained, site, sessions, seed=seed):
            yield PetJob(
                method,
                model,
                tuple(stores.values()),
                tuple(own),
                pet_folder(root, method, seed, several=samples > 1),
                seed,
                device,
                samples,
            )


def _models(
    found: People,
    method: Method,
    trained: Mapping[str, TrainJob],
    site: str,
    sessions: Sequence[Session],
    *,
    seed: int,
) -> Iterator[tuple[Path | None, Sequence[Session]]]:
    """Yield each model of a site's persons with their sessions."""
    if method.kind == "mean":
        yield None, sessions
        return
    job = trained.get("", next(iter(trained.values())))
    personal = bool(job.settings.exchange.personal_parts)
    if method.kind != "alone" and (site in job.stores or not personal):
        yield model_of(job, site), sessions
    elif site in trained:
        yield model_of(trained[site], site), sessions
    else:  # a held-out hospital has no model of its own
        models = {name: model_of(trained.get(name, job), name) for name in sorted(job.stores)}
        yield from _elsewhere(found, models, site, sessions, seed=seed)


def _elsewhere(
    found: People, models: Mapping[str, Path], site: str, sessions: Sequence[Session], *, seed: int
) -> Iterator[tuple[Path, Sequence[Session]]]:
    """Send each person of a site to the model of one of the others, drawn evenly."""
    rng = numpy_generator(seed, "alone elsewhere", site)
    persons = people(found.sessions)
    names = sorted({persons[s.subject] for s in sessions})
    order = [sorted(models)[i % len(models)] for i in rng.permutation(len(names))]
    place = dict(zip(names, order, strict=True))
    for name, model in models.items():
        yield model, [s for s in sessions if place[persons[s.subject]] == name]


def _synthesis(job: PetJob, model: Path) -> SynthesisJob:
    plain = SynthesisJob(
        model, job.folder, job.seed, device=job.device or None, preview=job.method.kind == "preview"
    )
    if job.samples == 1:
        return plain
    from pasta_model.checkpoint import load_checkpoint

    changes = {"samples": job.samples, "antithetic": False}
    return replace(plain, sampling=sampling_of(load_checkpoint(model).settings, changes=changes))
