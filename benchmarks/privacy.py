# SPDX-License-Identifier: Apache-2.0
"""What epsilon buys: private training at three hospitals, from scratch and from a model of public twins.

python -m benchmarks.privacy outputs/privacy             # all methods; goes on where it was stopped
python -m benchmarks.privacy outputs/privacy --table     # what there is so far
python -m benchmarks.privacy outputs/privacy --tune      # learning rates, on a public site only

Public twins teach a model; the hospitals' scanners are others. Every private method takes as many steps over
as many slabs. Epsilon infinity is a private run in all but its noise; ordinary training has a schedule of its
own, and clips nothing. What is measured are whole synthetic volumes of held-out subjects: SUVR error, MetaROI
error, and how well a classifier of dementia reads them that learnt on real PETs of the hospital's training
subjects. `alone` is what a hospital has without a federation.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.hardware import describe
from benchmarks.privacy_methods import (
    COMMON,
    HOSPITALS,
    METHODS,
    PRE_TRAINING,
    PUBLIC,
    SAMPLING,
    STRANGE,
    TRIED,
    UNTOUCHED,
    WAYS,
    Method,
    public_model,
)
from benchmarks.privacy_table import ORDINARILY, picture, table
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
from pasta_model.privacy import mechanism
from pasta_model.privacy.plan import plan_for
from pasta_model.privacy.subjects import SlabSubjects
from pasta_model.seeding import numpy_generator, torch_generator
from pasta_model.synthesis import Synthesiser
from server.rounds import Federation
from server.start import start_of
from simulation.baselines import train_alone
from simulation.direct import DirectPost
from simulation.twins.cohort import CohortSettings, SiteSettings, build_cohort


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
        with no_noise() if method.noiseless else nullcontext():
            _together(settings)
        rows += measure(output / "last.safetensors", [folder / "sites" / s.name for s in HOSPITALS])
    plan = {} if method.noiseless else _plan(folder, settings)
    _keep(result, method, rows, plan=plan, seconds=time.monotonic() - start)
    shutil.rmtree(output)


def no_noise() -> AbstractContextManager[object]:
    """Let the mechanism add zeros, for twins; no setting does."""
    return patch.object(mechanism, "secure_normals", np.zeros)


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

    def order(method: Method) -> tuple[bool, int, bool, float, int]:
        ordinary = method.epsilon == ORDINARILY
        return not method.alone, list(WAYS).index(method.way), ordinary, method.epsilon, method.slabs

    return table(folder, [UNTOUCHED, *(m.name for m in sorted(METHODS, key=order))])


def draw(folder: Path) -> None:
    """Draw the curves of one slab a subject."""
    curves: dict[str, dict[float, str]] = {}
    for method in METHODS:
        if not method.alone and method.slabs == 1:
            label = "from scratch" if method.way == "scratch" else f"pre-trained, {method.way}"
            curves.setdefault(label, {})[method.epsilon] = method.name
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
