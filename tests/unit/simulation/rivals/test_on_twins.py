# SPDX-License-Identifier: Apache-2.0
"""On a few twins each rival learns: its loss falls, and people it has not seen come out better."""

import json

import numpy as np
import pytest

from pasta_model.config import settings_from_flat
from pasta_model.data.manifest import read_manifest
from pasta_model.data.splits import apply_splits, assign_splits
from pasta_model.data.store import prepare_store
from pasta_model.data.volume import read_volume
from pasta_model.metrics.similarity import brain_mask, mae
from simulation.rivals.folders import synthesise_rival
from simulation.rivals.kinds import RIVALS, new_translator
from simulation.rivals.models import RivalModel, load_rival, save_rival
from simulation.rivals.training import train_rival
from simulation.twins.cohort import CohortSettings, SiteSettings, build_cohort


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Prepare a site of sixteen twins; return its store and its test sessions."""
    folder = tmp_path_factory.mktemp("twins")
    sites = (SiteSettings(name="alder", subjects=16),)
    build_cohort(CohortSettings(seed=7, sites=sites), folder / "cohort", workers=1)
    sessions = read_manifest(folder / "cohort" / "alder" / "participants.tsv")
    sessions = apply_splits(sessions, assign_splits(sessions, seed=7))
    store = prepare_store(folder / "alder", sessions, spacing=3.0)
    return store.path, [session for session in sessions if session.split == "test"]


def error_of(model, sessions, folder) -> float:
    """Mean SUVR error in the brain of what a model makes of sessions."""
    errors = []
    for path, session in zip(synthesise_rival(model, sessions, folder), sessions, strict=True):
        real, made = (read_volume(file, unit="SUVR").data for file in (session.pet, path))
        errors.append(mae(real, made, mask=brain_mask(read_volume(session.mri).data)))
    return float(np.mean(errors))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RIVALS))
def test_each_rival_learns(name, twins, tmp_path) -> None:
    store, sessions = twins
    settings = settings_from_flat({"training.dtype": "float32", "sampling.antithetic": False})
    best = load_rival(train_rival(name, [store], settings, tmp_path / "out", steps=60))
    rows = [json.loads(line) for line in (tmp_path / "out" / "history.jsonl").read_text().splitlines()]
    assert rows[-2]["loss"]["network"] < 0.7 * rows[0]["loss"]["network"]
    untrained = new_translator(RIVALS[name], settings, width=best.width).network.state_dict()
    start = RivalModel(best.rival, untrained, settings, best.standardisation, best.width, 0)
    save_rival(tmp_path / "start.safetensors", start)
    before = error_of(tmp_path / "start.safetensors", sessions, tmp_path / "before")
    after = error_of(tmp_path / "out" / "model.safetensors", sessions, tmp_path / "after")
    assert after < 0.85 * before
