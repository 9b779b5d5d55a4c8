# SPDX-License-Identifier: Apache-2.0
"""One method's training with one seed, as a job for a process: resumable, its model whole or absent.

runs/fedavg-2026/               run/    the federation's folder      sites/  its own view of the stores
runs/alone-2026/run/alder/      one folder a site
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.memory import combined_model
from pasta_model.checkpoint import load_checkpoint, save_checkpoint
from pasta_model.config import Settings
from pasta_model.errors import ConfigError
from pasta_model.files import write_json
from server.rounds import Federation
from simulation.baselines import train_alone
from simulation.direct import DirectPost
from simulation.study.methods import Method

LINKED = ("index.json", "mri.npy", "pet.npy", "metaroi.npy")
BEST, LAST = "model.safetensors", "last.safetensors"


@dataclass(frozen=True)
class TrainJob:
    """What to train and where.

    Attributes
    ----------
    settings
        Of one site's share: rounds of local steps.
    stores
        The training sites' stores by name; `pool` holds all of them in one.
    sites
        How many sites the slabs of a pooled training are worth.
    folder
        Of this method and seed.
    only
        The one site that trains, of a method where each is alone.
    """

    method: Method
    settings: Settings
    stores: Mapping[str, Path]
    pool: Path
    folder: Path
    only: str = ""

    @property
    def output(self) -> Path:
        """Where the run writes."""
        return self.folder / "run" / self.only if self.only else self.folder / "run"

    @property
    def done(self) -> bool:
        """Whether its model is there."""
        return (self.output / "done.json").is_file()

    @property
    def rounds(self) -> int:
        """How many lines of history it will write, about."""
        return self.settings.federation.rounds + 1

    def rounds_done(self) -> int:
        """How many lines of history there are."""
        history = self.output / "history.jsonl"
        lines = len(history.read_text(encoding="utf-8").splitlines()) if history.is_file() else 0
        return self.rounds if self.done else min(lines, self.rounds)


def train(job: TrainJob) -> None:
    """Train, from where an earlier call was stopped."""
    if job.done:
        _refuse_other_settings(job)
        return
    way = {"federation": _together, "pooled": _pooled, "alone": _alone, "rival": _rival}[job.method.kind]
    way(job)
    write_json(job.output / "done.json", _told(job))


def _told(job: TrainJob) -> dict[str, str]:
    return {"method": job.method.name, "kind": job.method.kind, "settings": job.settings.digest()}


def _refuse_other_settings(job: TrainJob) -> None:
    found = json.loads((job.output / "done.json").read_text(encoding="utf-8"))
    if found != _told(job):
        raise ConfigError(
            f"{job.folder}: holds '{job.method.name}' as trained with other settings; give the method of the"
            " new settings another name, or remove that folder"
        )


def model_of(job: TrainJob, site: str) -> Path:
    """Return the model that a site has after a job: its own where parts of it are personal."""
    own = job.folder / "models" / f"{site}.safetensors"
    return own if own.is_file() else job.output / BEST


def _together(job: TrainJob) -> None:
    stores = linked(job.stores, job.folder / "sites")
    output = {"name": job.method.folder, "output": str(job.output), "resume": True}
    settings = job.settings.model_copy(
        update={
            "run": job.settings.run.model_copy(update=output),
            "data": job.settings.data.model_copy(update={"sites": str(job.folder / "sites")}),
            "federation": job.settings.federation.model_copy(update={"min_sites": len(stores)}),
        }
    )
    Federation(DirectPost(settings, {"partition-id": 0, "num-partitions": 1}), settings).run()
    if settings.exchange.personal_parts:
        shared = load_checkpoint(job.output / LAST)
        for site, store in stores.items():
            model, _ = combined_model(shared, store)
            save_checkpoint(job.folder / "models" / f"{site}.safetensors", model)


def _pooled(job: TrainJob) -> None:
    """Train one site that has everything, for as many slabs as all sites together see."""
    steps = job.settings.training.local_steps * len(job.stores)
    training = job.settings.training.model_copy(update={"local_steps": steps})
    store = linked({job.pool.name: job.pool}, job.folder / "sites")[job.pool.name]
    train_alone(store, job.settings.model_copy(update={"training": training}), job.output)


def _alone(job: TrainJob) -> None:
    store = linked({job.only: job.stores[job.only]}, job.folder / "sites")[job.only]
    train_alone(store, job.settings, job.output)


def _rival(job: TrainJob) -> None:
    from simulation.rivals.training import train_rival

    steps = job.settings.total_steps * len(job.stores)
    train_rival(job.method.rival, [job.pool], job.settings, job.output, steps=steps)


def linked(stores: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Give a run its own view of the stores: what a run remembers at a site stays with the run."""
    views = {}
    for site, store in stores.items():
        view = folder / site
        view.mkdir(parents=True, exist_ok=True)
        for name in LINKED:
            if (store / name).is_file() and not (view / name).is_symlink():
                (view / name).symlink_to((store / name).resolve())
        views[site] = view
    return views


def history_of(job: TrainJob) -> Sequence[Mapping[str, object]]:
    """Read the rounds of a run; none where it keeps none."""
    path = job.output / "history.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
