# SPDX-License-Identifier: Apache-2.0
"""What epsilon buys: private training at three hospitals, from scratch and from a model of public twins.

python -m benchmarks.privacy outputs/privacy             # all methods; goes on where it was stopped
python -m benchmarks.privacy outputs/privacy --table     # what there is so far
python -m benchmarks.privacy outputs/privacy --tune      # learning rates, on a public site only

Public twins teach a model; the hospitals' scanners are others. Every private method takes as many steps over
as many slabs, and so does every ordinary one, which spends no epsilon. What is measured are whole synthetic
volumes of held-out subjects: SUVR error, MetaROI error, and how well a classifier of dementia reads them that
learnt on real PETs of the hospital's training subjects. `alone` is what a hospital has without a federation.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.hardware import describe
from benchmarks.privacy_table import picture, table
from pasta_model.checkpoint import load_checkpoint, new_translator
from pasta_model.config import Scalar, Settings, sampling_of, settings_from_flat
from pasta_model.data.clinical import SCHEMES
from pasta_model.data.grid import template_of
from pasta_model.data.manifest import read_manifest
from pasta_model.data.slabs import SlabLoader
from pasta_model.data.splits import apply_splits, assign_splits
from pasta_model.data.store import SiteStore, prepare_store
from pasta_model.data.volume import read_volume
from pasta_model.files import write_json
from pasta_model.metrics.regions import metaroi_suvr
from pasta_model.metrics.similarity import brain_mask, mae
from pasta_model.privacy.plan import plan_for
from pasta_model.privacy.subjects import SlabSubjects
from pasta_model.seeding import numpy_generator, torch_generator
from pasta_model.synthesis import Synthesiser
from server.rounds import Federation
from server.start import start_of
from simulation.baselines import train_alone
from simulation.direct import DirectPost
from simulation.twins.cohort import CohortSettings, SiteSettings, build_cohort

MIX = (0.4, 0.2, 0.4)
PUBLIC = tuple(SiteSettings(name=f"public-{letter}", subjects=80, mix=MIX) for letter in "ab")
# The third public site has a scanner unlike all others: where learning rates are chosen.
STRANGE = (SiteSettings(name="strange", subjects=120, mix=MIX, contrast=1.3, pet_resolution=8.5),)
HOSPITALS = (
    SiteSettings(
        name="alder", subjects=120, mix=MIX, vendor="Siemens", field="3 T", contrast=0.7, pet_resolution=4.0
    ),
    SiteSettings(
        name="birch", subjects=120, mix=MIX, vendor="GE", field="1.5 T", contrast=1.0, pet_resolution=6.5
    ),
    SiteSettings(
        name="cedar", subjects=120, mix=MIX, vendor="Philips", field="1.5 T", contrast=1.6, pet_resolution=10
    ),
)
COMMON: dict[str, Scalar] = {
    "network.shape": "width 32, groups 8, patch 4",
    "data.clinical": "demographics",  # with the scores of tests, a classifier would read those
    "loss.cycle": False,  # a quarter of the time; what is measured is MRI to PET
    "training.dtype": "float32",
    "training.threads": 1,
    "federation.min-sites": 1,
}
PRE_TRAINING: dict[str, Scalar] = {
    "federation.rounds": 10,
    "training.local-steps": 60,
    "training.batch-size": 8,
}
ORDINARY: dict[str, Scalar] = {
    "federation.rounds": 12,
    "training.local-steps": 10,
    "training.batch-size": 4,
    "training.warmup-steps": 10,
}
PRIVATE: dict[str, Scalar] = {
    "federation.rounds": 4,
    "training.local-steps": 4,
    "training.warmup-steps": 2,
    "privacy.unit": "subject",
    "privacy.delta": 1e-3,
    "privacy.subjects-per-step": 16,
    "privacy.slabs-per-subject": 1,
    "privacy.max-grad-norm": 0.01,
}
ADAPTERS: dict[str, Scalar] = {"exchange.trained": "norms, adapters", "network.adapter-rank": 4}
WAYS: dict[str, dict[str, Scalar]] = {
    "scratch": {},
    "all": {},
    "norms": {"exchange.trained": "norms"},
    "norms, adapters": ADAPTERS,
}
RATES = {  # learning rates: private, ordinary; see `--tune`
    "scratch": (3e-3, 3e-3),
    "all": (1e-3, 1e-3),
    "norms": (3e-2, 3e-2),
    "norms, adapters": (1e-2, 1e-2),
}
TRIED: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # private, ordinary
    "all": ((3e-4, 1e-3, 3e-3), (1e-3,)),
    "norms": ((3e-3, 1e-2, 3e-2), ()),
    "norms, adapters": ((1e-3, 3e-3, 1e-2), ()),
    "scratch": ((3e-3, 1e-2), ()),
}
SAMPLING: dict[str, Scalar] = {"steps": 2, "hop": 10, "antithetic": False}
UNTOUCHED = "pre-trained, untouched"


@dataclass(frozen=True)
class Method:
    """A way to train: what is trained, from where, at what epsilon (0: without privacy), together or not."""

    way: str
    epsilon: float = 0.0
    slabs: int = 1
    alone: bool = False

    @property
    def name(self) -> str:
        """As in the table."""
        way = "from scratch" if self.way == "scratch" else f"pre-trained, {self.way}"
        several = f", {self.slabs} slabs a subject" if self.slabs > 1 else ""
        if self.alone:
            return f"alone, {way}"
        return f"{way}, epsilon {self.epsilon:g}{several}" if self.epsilon else f"{way}, epsilon infinity"

    def settings(self, folder: Path, seed: int) -> Settings:
        """Return the settings of its run."""
        output = folder / "runs" / f"{self.name}-{seed}".replace(" ", "-").replace(",", "")
        own: dict[str, Scalar] = {"run.name": output.name, "run.output": str(output), "run.resume": True}
        own |= {"run.seed": seed, "data.sites": str(folder / "sites"), "federation.min-sites": 3}
        own |= {"training.learning-rate": RATES[self.way][0 if self.epsilon else 1]}
        if self.way != "scratch":
            own["run.initial"] = str(public_model(folder, seed))
        if self.epsilon:
            own |= PRIVATE | {"privacy.epsilon": self.epsilon, "privacy.slabs-per-subject": self.slabs}
        else:
            own |= ORDINARY
        return settings_from_flat(COMMON | WAYS[self.way] | own)


# The most telling first: what is cut off is the least.
METHODS = (
    *(Method(way, 3.0) for way in WAYS),
    *(Method(way, alone=True) for way in ("scratch", "all")),
    *(Method(way) for way in ("all", "norms")),
    *(Method("norms", epsilon) for epsilon in (8.0, 1.0)),
    Method("norms", 3.0, slabs=4),
    Method("all", 8.0),
    Method("scratch"),
    Method("all", 1.0),
    *(Method("norms, adapters", epsilon) for epsilon in (8.0, 1.0, 0.0)),
    *(Method("scratch", epsilon) for epsilon in (8.0, 1.0)),
)


def public_model(folder: Path, seed: int) -> Path:
    """Where the model of the public twins lies."""
    return folder / "runs" / f"public-{seed}" / "last.safetensors"


def prepare(folder: Path) -> None:
    """Grow the twins once; a quarter of each hospital is held out."""
    _grow(folder / "cohort", HOSPITALS, seed=63)
    _grow(folder / "public-cohort", PUBLIC, seed=62)
    for site in HOSPITALS:
        _store(folder / "sites" / site.name, [folder / "cohort" / site.name])
    _grow(folder / "tuning-cohort", STRANGE, seed=64)
    _store(folder / "tuning" / "strange", [folder / "tuning-cohort" / "strange"])
    public = [folder / "public-cohort" / site.name for site in PUBLIC]
    _store(folder / "pool" / "public", public, name="public")


def _grow(out: Path, sites: tuple[SiteSettings, ...], *, seed: int) -> None:
    if not (out / "dataset_description.json").is_file():
        build_cohort(CohortSettings(seed=seed, sites=sites), out, workers=1)


def _store(path: Path, cohorts: Sequence[Path], *, name: str = "") -> None:
    if (path / "index.json").is_file():
        return
    sessions = list(chain.from_iterable(read_manifest(c / "participants.tsv") for c in cohorts))
    if name:
        sessions = [replace(s, site=name) for s in sessions]
    splits = assign_splits(sessions, valid=0.0, test=0.25, seed=1)
    prepare_store(path, apply_splits(sessions, splits), spacing=3.0)


def pre_train(folder: Path, seed: int) -> None:
    """Train the public model, as one site that has all public twins."""
    model = public_model(folder, seed)
    if not model.is_file():
        own: dict[str, Scalar] = {"run.output": str(model.parent), "run.seed": seed, "run.resume": True}
        settings = settings_from_flat(COMMON | PRE_TRAINING | own)
        train_alone(folder / "pool" / "public", settings, model.parent)


def run(folder: Path, method: Method, seed: int) -> None:
    """Train and measure one method; its result is kept when it is complete."""
    result = folder / "results" / f"{method.name}-{seed}.json"
    if result.is_file():
        return
    settings, start = method.settings(folder, seed), time.monotonic()
    output = Path(settings.run.output)
    rows: list[dict[str, Any]] = []
    if method.alone:
        for site in HOSPITALS:
            store = folder / "sites" / site.name
            train_alone(store, settings, output / site.name)
            rows += measure(output / site.name / "last.safetensors", [store])
    else:
        _together(settings)
        rows += measure(output / "last.safetensors", [folder / "sites" / s.name for s in HOSPITALS])
    _keep(result, method, rows, plan=_plan(folder, settings), seconds=time.monotonic() - start)
    shutil.rmtree(output)


def _together(settings: Settings) -> None:
    Federation(DirectPost(settings, {"partition-id": 0, "num-partitions": 1}), settings).run()


def _plan(folder: Path, settings: Settings) -> dict[str, Any]:
    """Return what the first hospital adds, and at what cost; nothing where nothing is added."""
    if settings.privacy.unit == "none":
        return {}
    store = SiteStore(folder / "sites" / HOSPITALS[0].name)
    return asdict(plan_for(settings, subjects=len(store.indices("train"))))


def _keep(result: Path, method: Method | None, rows: list[dict[str, Any]], **about: Any) -> None:
    result.parent.mkdir(parents=True, exist_ok=True)
    write_json(result, {"method": asdict(method) if method else {}, "rows": rows, **about})
    print(f"{time.strftime('%H:%M:%S')} {result.stem} {_brief(rows)} {about}", flush=True)


def _brief(rows: list[dict[str, Any]]) -> str:
    return f"SUVR error {np.mean([row['mae'] for row in rows]):.4f}"


def measure(model: Path, stores: Sequence[Path], *, split: str = "test") -> list[dict[str, Any]]:
    """Synthesise everybody of a split and compare with the real PET: a row a subject."""
    checkpoint = load_checkpoint(model)
    synthesiser = Synthesiser(checkpoint, sampling=sampling_of(checkpoint.settings, changes=SAMPLING))
    rows = []
    for entry, site in _entries(stores, split):
        mri, real = read_volume(Path(entry.mri)), read_volume(Path(entry.pet), unit="SUVR")
        pet = synthesiser.synthesise(mri, entry.clinical, seed=0, name=entry.subject)
        error = mae(real.data, pet.data, mask=brain_mask(mri.data))
        rows.append(_row(entry, site, pet) | {"mae": error})
    return rows


def real_regions(folder: Path) -> None:
    """Keep the regional SUVR of all real PETs of the hospitals: what the classifier learns."""
    if not (folder / "real.json").is_file():
        stores = [folder / "sites" / site.name for site in HOSPITALS]
        found = {
            split: [
                _row(e, site, read_volume(Path(e.pet), unit="SUVR")) for e, site in _entries(stores, split)
            ]
            for split in ("train", "test")
        }
        write_json(folder / "real.json", found)


def _entries(stores: Sequence[Path], split: str) -> Iterator[tuple[Any, str]]:
    for path in stores:
        store = SiteStore(path)
        for index in store.indices(split):
            yield store.entries[index], store.site


def _row(entry: Any, site: str, pet: Any) -> dict[str, Any]:
    grid = template_of(pet.data.shape, pet.affine).head
    told = {"site": site, "subject": entry.subject, "diagnosis": entry.diagnosis}
    return told | {"regions": metaroi_suvr(pet.data, grid=grid)}


def tune(folder: Path, seed: int) -> None:
    """Try the learning rates on a public site that the public model has not seen, each once."""
    kept = folder / f"tuning-{seed}.json"
    found: dict[str, list[float]] = json.loads(kept.read_text()) if kept.is_file() else {}
    store = folder / "tuning" / "strange"
    print(
        f"norms of subjects' gradients, quantiles 0.1, 0.5, 0.9: {gradient_norms(folder, seed)}", flush=True
    )
    for way, (private, ordinary) in TRIED.items():
        for rate, epsilon in (*((r, 3.0) for r in private), *((r, 0.0) for r in ordinary)):
            name = f"{way}, {'private' if epsilon else 'ordinary'}, {rate:g}"
            if name in found:
                continue
            flat = Method(way, epsilon).settings(folder, seed).flat()
            output = folder / "runs" / f"tuning {name}".replace(" ", "-").replace(",", "")
            flat |= {"run.name": output.name, "run.output": str(output), "federation.min-sites": 1}
            flat |= {"data.sites": str(store.parent), "training.learning-rate": rate}
            _together(settings_from_flat(flat))
            rows = measure(output / "last.safetensors", [store])
            found[name] = [float(np.mean([row["mae"] for row in rows]))]
            write_json(kept, found)
            print(f"{time.strftime('%H:%M:%S')} {name}: {found[name]}", flush=True)
            shutil.rmtree(output)


def gradient_norms(folder: Path, seed: int) -> dict[str, list[float]]:
    """Norms of the gradients of the tuning site's subjects, before any step: where to clip."""
    store, found = SiteStore(folder / "tuning" / "strange"), {}
    for way in WAYS:
        settings = Method(way, 3.0).settings(folder, seed)
        translator = new_translator(settings, start_of(settings).state)
        loader = SlabLoader(
            store,
            split="train",
            slab_slices=settings.network.slab_slices,
            scheme=(scheme := SCHEMES[settings.data.clinical]),
            standardisation=scheme.reference,
        )
        chance = {"generator": torch_generator(seed, "norms"), "rng": numpy_generator(seed, "norms")}
        subjects = SlabSubjects(translator, loader, settings=settings, **chance)
        norms = []
        for name in subjects.names[:20]:
            translator.network.zero_grad(set_to_none=True)
            subjects.backward(name)
            grads = [p.grad.flatten() for p in translator.network.parameters() if p.grad is not None]
            norms.append(float(torch.cat(grads).norm()))
        found[way] = [round(float(q), 4) for q in np.quantile(norms, (0.1, 0.5, 0.9))]
    return found


def whole_table(folder: Path) -> str:
    """Return what there is, as Markdown, by what is trained and then by epsilon."""

    def order(method: Method) -> tuple[bool, int, float, int]:
        return not method.alone, list(WAYS).index(method.way), method.epsilon or np.inf, method.slabs

    return table(folder, [UNTOUCHED, *(m.name for m in sorted(METHODS, key=order))])


def draw(folder: Path) -> None:
    """Draw the curves of one slab a subject."""
    curves: dict[str, dict[float, str]] = {}
    for method in METHODS:
        if not method.alone and method.slabs == 1:
            label = "from scratch" if method.way == "scratch" else f"pre-trained, {method.way}"
            curves.setdefault(label, {})[method.epsilon or np.inf] = method.name
    flats = {name: name for name in (UNTOUCHED, *(m.name for m in METHODS if m.alone))}
    picture(folder, curves, flats)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--table", action="store_true")
    words = parser.parse_args()
    folder = words.folder.resolve()
    torch.set_num_threads(1)
    if not words.table:
        prepare(folder)
        real_regions(folder)
    for seed in range(0 if words.table else words.seeds):
        pre_train(folder, seed)
        if words.tune:
            tune(folder, seed)
            continue
        untouched = folder / "results" / f"{UNTOUCHED}-{seed}.json"
        if not untouched.is_file():
            rows = measure(public_model(folder, seed), [folder / "sites" / s.name for s in HOSPITALS])
            _keep(untouched, None, rows)
        for method in METHODS:
            run(folder, method, seed)
    print(describe("cpu"))
    print(whole_table(folder))
    draw(folder)


if __name__ == "__main__":
    main()
