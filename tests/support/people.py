# SPDX-License-Identifier: Apache-2.0
"""Prepared sites of several persons, written straight to disk: enough of them that their sums may leave."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.grid import Grid, template
from pasta_model.data.scaling import PET_SCALE
from pasta_model.data.store import FORMAT, Entry, SiteStore
from pasta_model.familiarity import measures
from pasta_model.files import write_json
from pasta_model.norms import model, resolution
from pasta_model.prepare.template import TemplateBrain

SPACING = 3.0
GRID = template(SPACING)


def ball(grid: Grid, radius: float = 55.0) -> np.ndarray:
    """A brain that is quickly made, (x, y, z)."""
    return np.linalg.norm(grid.coordinates() - np.array([0.0, -18.0, 10.0], np.float32), axis=-1) < radius


def let_brains_be_balls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do without the template, which takes seconds to resample."""

    def brain(grid: Grid) -> TemplateBrain:
        mask = ball(grid)
        return TemplateBrain(grid, mask.astype(np.float32), mask)

    for module in (measures, model, resolution):
        monkeypatch.setattr(module, "template_brain", brain)
    # Without its cache: a ball that stayed in it would be the template of every later test.
    monkeypatch.setattr(measures, "_smooth_template", measures._smooth_template.__wrapped__)


def write_site(
    folder: Path,
    name: str,
    *,
    normal: int = 6,
    others: int = 2,
    ageless: int = 0,
    held_out: int = 1,
    seed: int = 0,
    ages: Sequence[float] = (),
    mask: np.ndarray | None = None,
) -> SiteStore:
    """Write a site: persons who train (cognitively normal; with dementia; normal, of no age), and who test.

    A PET is 1 SUVR and noise of 0.2 in a ball, a little less with age; an MRI is noise in the same ball.
    """
    rng = np.random.default_rng([seed, *map(ord, name)])
    kinds = [("CN", "train", True)] * normal + [("Dementia", "train", True)] * others
    kinds += [("CN", "train", False)] * ageless + [("CN", "test", True)] * held_out
    brain = np.moveaxis(ball(GRID.crop) if mask is None else mask, 2, 0)
    entries, mris, pets = [], [], []
    for i, (diagnosis, split, aged) in enumerate(kinds):
        age = float(ages[i]) if i < len(ages) else 60.0 + 3.0 * i
        uptake = 1.0 - 0.05 * (age - 75.0) / 10.0 + 0.2 * rng.standard_normal(brain.shape)
        pets.append(PET_SCALE.to_network(np.where(brain, np.maximum(uptake, 0.1), 0).astype(np.float32)))
        mris.append(np.where(brain, rng.uniform(-0.5, 0.8, brain.shape), -1.0))
        clinical = {"age": age if aged else None, "sex": 1.0, "education": 12.0}
        subject = f"sub-{name}{i:02d}"
        scan = f"/data/{subject}.nii"
        entries.append(asdict(Entry(subject, "bl", diagnosis, split, clinical, 300.0, scan, scan)))
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    np.save(path / "mri.npy", np.asarray(mris, np.float16))
    np.save(path / "pet.npy", np.asarray(pets, np.float16))
    write_json(path / "index.json", {"format": FORMAT, "site": name, "spacing": SPACING, "entries": entries})
    return SiteStore(path)
