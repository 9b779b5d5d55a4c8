# SPDX-License-Identifier: Apache-2.0
"""The main job in one go: twins, federation, each site alone, synthesis, evaluation, report.

Each stage is whole or absent on the disk, so a stopped demo goes on where it was.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from pasta_model.config import Settings
from pasta_model.console import progress_bar
from pasta_model.data.manifest import Session, read_manifest, write_splits
from pasta_model.data.splits import apply_splits, assign_splits
from pasta_model.data.store import SiteStore, prepare_store
from pasta_model.data.volume import Volume, write_volume
from pasta_model.derivatives import SynthesisJob
from pasta_model.errors import ConfigError, FederationError
from pasta_model.evaluation.folders import score_session
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.tables import write_scores
from pasta_model.files import write_json
from pasta_model.workers import process_pool
from simulation.baselines import mean_pet
from simulation.federation import run_simulation
from simulation.twins.cohort import CohortSettings, build_cohort
from simulation.workers import alone_rounds, synthesise_site, train_alone_site

FEDERATED, ALONE, MEAN = "federated", "alone", "mean PET"
logger = logging.getLogger(__name__)


@dataclass
class Demo:
    """A demo run: its folder, its settings, and what it has made so far."""

    app: Path
    output: Path
    settings: Settings
    cohort: CohortSettings
    console: Console
    workers: int = 2
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> list[SubjectScore]:
        """Run every stage that is not there yet; return the scores of the held-out subjects."""
        self._claim_folder()
        with self._stage("cohort of digital twins"):
            sessions = self._cohort()
        with self._stage("split and prepare sites"):
            stores = self._sites(sessions)
        with self._stage("federated training"):
            self._federate(len(stores))
        held_out = {site: [s for s in own if s.split == "test"] for site, own in _by_site(sessions).items()}
        with process_pool(self.workers) as pool:
            with self._stage("each site alone"):
                self._train_alone(pool, stores)
            with self._stage("synthesis of held-out subjects"):
                jobs = self._synthesise(pool, held_out)
        with self._stage("evaluation"):
            scores = self._evaluate(held_out, jobs, mean_pet(list(stores.values())))
        write_scores(self.output / "scores.tsv", scores)
        return scores

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start
        logger.info("%s took %.0f s", name, self.seconds[name])

    def _claim_folder(self) -> None:
        """Go on with an earlier demo of the same settings; refuse any other folder."""
        wanted = {"settings": self.settings.flat(), "cohort": self.cohort.model_dump(mode="json")}
        marker = self.output / "demo.json"
        if self.output.is_file():
            raise ConfigError(f"{self.output}: is a file, wanted a folder; choose another name")
        if self.output.exists() and any(self.output.iterdir()) and not marker.is_file():
            raise ConfigError(f"{self.output}: holds other files; choose an empty or new folder")
        if marker.is_file() and self._read_marker(marker) != wanted:
            raise ConfigError(
                f"{self.output}: holds a demo of other settings; choose another --output, or --fresh to"
                " replace it"
            )
        write_json(marker, wanted)

    def _read_marker(self, marker: Path) -> object:
        try:
            return json.loads(marker.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{marker}: damaged; start again with --fresh or a new folder") from error

    def _cohort(self) -> list[Session]:
        root = self.output / "cohort"
        if not (root / "dataset_description.json").is_file():
            with progress_bar(self.console, "twins") as progress:
                build_cohort(self.cohort, root, workers=self.workers, progress=progress)
        sessions = [s for table in sorted(root.glob("*/participants.tsv")) for s in read_manifest(table)]
        splits = assign_splits(sessions, seed=self.settings.run.seed)
        write_splits(self.output / "splits.tsv", splits)
        return list(apply_splits(sessions, splits))

    def _sites(self, sessions: Sequence[Session]) -> dict[str, SiteStore]:
        stores = {}
        for site, own in sorted(_by_site(sessions).items()):
            path = Path(self.settings.data.sites) / site
            with progress_bar(self.console, f"prepare {site}") as progress:
                if not (path / "index.json").is_file():
                    prepare_store(path, own, spacing=self.settings.data.spacing, progress=progress)
            stores[site] = SiteStore(path)
        return stores

    def _federate(self, nodes: int) -> None:
        output = Path(self.settings.run.output)
        if (output / "last.safetensors").is_file():
            return
        done = re.compile(r"round (\d+) of (\d+) done")
        with progress_bar(self.console, "federated rounds") as progress:
            progress(0, self.settings.federation.rounds)

            def follow(line: str) -> None:
                if found := done.search(line):
                    progress(int(found[1]), int(found[2]))

            run_simulation(
                self.app,
                run_config=self.settings.flat(),
                nodes=nodes,
                state=self.output / "flower",
                cpus_per_node=max(1, self.settings.training.threads),
                gpus_per_node=1.0 if self.settings.training.device.startswith("cuda") else 0.0,
                on_line=follow,
            )
        if not (output / "last.safetensors").is_file():
            raise FederationError(f"{output}: the run left no model; see {self.output / 'flower'}")

    def _train_alone(self, pool: Executor, stores: Mapping[str, SiteStore]) -> None:
        outputs = {site: self.output / "alone" / site for site in stores}
        root = Path(self.settings.data.sites)
        # The largest site first, so that no core waits at the end.
        by_size = sorted(stores, key=lambda site: -len(stores[site].indices("train")))
        futures = [
            pool.submit(train_alone_site, root / site, self.settings, outputs[site]) for site in by_size
        ]
        total = len(stores) * (self.settings.federation.rounds + 1)
        self._watch(futures, "each site alone", lambda: alone_rounds(outputs.values()), total)

    def _synthesise(
        self, pool: Executor, held_out: Mapping[str, Sequence[Session]]
    ) -> dict[tuple[str, str], SynthesisJob]:
        seed = self.settings.run.seed
        jobs = {}
        for site in held_out:
            models = {
                FEDERATED: Path(self.settings.run.output) / "model.safetensors",
                ALONE: self.output / "alone" / site / "model.safetensors",
            }
            for method, model in models.items():
                jobs[method, site] = SynthesisJob(model, self.output / "synthetic" / method / site, seed)
        futures = [pool.submit(synthesise_site, job, list(held_out[site])) for (_, site), job in jobs.items()]
        paths = [job.pet_path(session) for (_, site), job in jobs.items() for session in held_out[site]]
        self._watch(futures, "synthesis", lambda: sum(p.is_file() for p in paths), len(paths))
        return jobs

    def _watch(
        self, futures: Sequence[Future[None]], label: str, done: Callable[[], int], total: int
    ) -> None:
        with progress_bar(self.console, label) as progress:
            waiting: set[Future[None]] = set(futures)
            while waiting:
                finished, waiting = wait(waiting, timeout=0.5)
                for future in finished:
                    future.result()
                progress(done(), total)

    def _evaluate(
        self,
        held_out: Mapping[str, Sequence[Session]],
        jobs: Mapping[tuple[str, str], SynthesisJob],
        mean: Volume,
    ) -> list[SubjectScore]:
        write_volume(self.output / "synthetic" / "mean_pet.nii.gz", mean, description="mean training PET")
        scores = []
        with progress_bar(self.console, "evaluation") as progress:
            total = sum(len(own) for own in held_out.values())
            for site, own in held_out.items():
                for session in own:
                    paths = {m: jobs[m, site].pet_path(session) for m in (ALONE, FEDERATED)}
                    scores += score_session(session, {MEAN: mean, **paths})
                    progress(len(scores) // 3, total)
        return scores


def _by_site(sessions: Sequence[Session]) -> dict[str, list[Session]]:
    groups: dict[str, list[Session]] = {}
    for session in sessions:
        groups.setdefault(session.site, []).append(session)
    return groups
