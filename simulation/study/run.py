# SPDX-License-Identifier: Apache-2.0
"""A study from its file to its report: people, training, PETs, measures; each stage goes on where it was."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from pasta_model.console import progress_bar
from pasta_model.errors import ConfigError, PastaError
from pasta_model.files import write_json
from pasta_model.workers import process_pool
from simulation.study.cohort import People, gather, prepare
from simulation.study.methods import Method
from simulation.study.settings import StudySettings, shaping
from simulation.study.synthesis import PetJob, pet_folder, pet_jobs, synthesise
from simulation.study.training import TrainJob, train

DIFFUSION = ("federation", "pooled", "alone")  # kinds of methods that can draw several samples
logger = logging.getLogger(__name__)


@dataclass
class Study:
    """A study at work: its settings, its folder and what it has found so far."""

    settings: StudySettings
    folder: Path
    console: Console
    workers: int = 2
    device: str = "cpu"
    seconds: dict[str, float] = field(default_factory=dict)

    failed: dict[str, str] = field(default_factory=dict)

    def run(self) -> People:
        """Run what is not done: people, stores, training, PETs; what is left is to measure them.

        A method that fails, as when its loss is not finite, is left out with its reason; so is one that uses
        its model. The study ends only when the main method fails, or a mistake of the user's is found.
        """
        self._claim()
        with self.stage("people") as progress:
            found = gather(self.settings, self.folder, workers=self.workers, progress=progress)
        with self.stage("stores") as progress:
            prepare(self.settings, found, self.folder, progress=progress)
        training = self.training_jobs(found)
        with self.stage("training") as progress:
            self.work(
                train,
                sorted(training, key=_longest_first),
                count=lambda: sum(job.rounds_done() for job in training),
                total=sum(job.rounds for job in training),
                progress=progress,
            )
        pets = self.pet_jobs(found, training)
        total = sum(len(job.sessions) for job in pets)
        with self.stage("synthesis") as progress:
            self.work(
                synthesise,
                pets,
                count=lambda: total - sum(job.missing() for job in pets),
                total=total,
                progress=progress,
            )
        return found

    def spaced(self, found: People) -> StudySettings:
        """Return the settings with the spacing that the scans have."""
        return self.settings.at_spacing(found.sessions[0])

    def methods(self) -> dict[str, Method]:
        """Return the methods that have not failed, in the study's order."""
        chosen = self.settings.chosen()
        return {name: m for name, m in chosen.items() if not {name, m.after} & self.failed.keys()}

    def pets_of(self, method: str, seed: int, *, several: bool = False) -> Path:
        """Where the PETs of a method and seed lie."""
        return pet_folder(self.folder, self.methods()[method], seed, several=several)

    def training_jobs(self, found: People) -> list[TrainJob]:
        """Return a job a method and seed, of sites alone one a site."""
        stores = {site: self.folder / "sites" / site for site in found.training}
        settings, jobs = self.spaced(found), list[TrainJob]()
        for seed in self.settings.seeds:
            for method in self.methods().values():
                if method.kind in ("mean", "preview"):
                    continue
                own = settings.settings_of(
                    method, run_seed=seed, training_device=self.device, training_threads=1
                )
                folder = self.folder / "runs" / f"{method.folder}-{seed}"
                alone = found.training if method.kind == "alone" else ("",)
                pool = self.folder / "pool" / "pooled"
                jobs += [TrainJob(method, own, stores, pool, folder, only) for only in alone]
        return jobs

    def pet_jobs(self, found: People, training: Sequence[TrainJob]) -> list[PetJob]:
        """Return the jobs that make all PETs; the main method's several samples are jobs of their own."""
        stores = {site: self.folder / "sites" / site for site in found.training}
        jobs: list[PetJob] = []
        measure = self.settings.measure
        for seed in self.settings.seeds:
            for method in self.methods().values():
                maker = method.after or method.name
                trained = {
                    j.only: j for j in training if (j.method.name, j.settings.run.seed) == (maker, seed)
                }
                place: dict[str, Any] = {
                    "root": self.folder, "seed": seed, "device": self.device, "stores": stores
                }  # fmt: skip
                jobs += pet_jobs(found, method, trained, **place)
                first = method.name == measure.main and seed == self.settings.seeds[0]
                if first and measure.samples > 1 and method.kind in DIFFUSION:
                    jobs += pet_jobs(found, method, trained, **place, samples=measure.samples)
        return [job for job in jobs if job.sessions]

    def _claim(self) -> None:
        """Go on with an earlier run of the same study; refuse any other folder."""
        wanted = json.loads(json.dumps(shaping(self.settings)))
        marker = self.folder / "study.json"
        if self.folder.is_file():
            raise ConfigError(f"{self.folder}: is a file, wanted a folder; choose another name")
        if self.folder.exists() and any(self.folder.iterdir()) and not marker.is_file():
            raise ConfigError(f"{self.folder}: holds other files; choose an empty or new folder")
        if marker.is_file() and self._is_other(_read(marker), wanted):
            raise ConfigError(
                f"{self.folder}: holds a study of other people, seeds or settings; choose another --output"
            )
        write_json(marker, wanted)

    def _is_other(self, found: Any, wanted: dict[str, Any]) -> bool:
        """Say whether another study is here; a file may be mended until its people are prepared."""
        if found == wanted:
            return False
        grown = (self.folder / "cohort").exists() and found.get("cohort") != wanted["cohort"]
        return grown or (self.folder / "sites").exists()

    @contextmanager
    def pool(self) -> Iterator[Executor]:
        """Yield the study's processes."""
        with process_pool(self.workers) as pool:
            yield pool

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Show a stage's progress, and keep how long it took."""
        start = time.monotonic()
        with progress_bar(self.console, name) as progress:
            yield progress
        self.seconds[name] = time.monotonic() - start
        logger.info("%s took %.0f s", name, self.seconds[name])

    def work(
        self,
        work: Callable[[Any], None],
        jobs: Sequence[Any],
        *,
        count: Callable[[], int],
        total: int,
        progress: Callable[[int, int], None],
    ) -> None:
        """Hand jobs of methods to processes, and show how far they are.

        Raises
        ------
        PastaError
            When a job of the main method fails, or any because of the user's settings.
        """
        with self.pool() as pool:
            futures = {pool.submit(work, job): job for job in jobs}
            waiting: set[Future[None]] = set(futures)
            while waiting:
                finished, waiting = wait(waiting, timeout=1.0)
                for future in finished:
                    self._note(futures[future], future)
                progress(count(), total)

    def _note(self, job: Any, future: Future[None]) -> None:
        name = job.method if isinstance(job.method, str) else job.method.name
        try:
            future.result()
        except ConfigError:
            raise
        except PastaError as error:
            main = self.settings.chosen()[self.settings.measure.main]
            if name in (main.name, main.after):
                raise
            logger.warning("method %s failed: %s", name, error)
            self.failed[name] = str(error)


def _longest_first(job: TrainJob) -> int:
    """So that no core waits at the end."""
    shares = 1 if job.only else len(job.stores)
    cycle = 4 if job.settings.loss.cycle and job.method.kind != "rival" else 1
    return -job.settings.total_steps * shares * cycle


def _read(marker: Path) -> Any:
    try:
        return json.loads(marker.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{marker}: damaged; start again in a new folder") from error
