# SPDX-License-Identifier: Apache-2.0
"""Shared scenery: small scans on disk, sessions of a manifest, prepared sites, quick settings."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings as hypothesis_settings

from pasta_model.config import Settings, settings_from_flat
from pasta_model.data.grid import template
from pasta_model.data.manifest import Session
from pasta_model.data.store import SiteStore, prepare_store
from pasta_model.data.volume import Volume, write_volume

torch.set_num_threads(1)
hypothesis_settings.register_profile("pasta", deadline=None, derandomize=True, max_examples=40)
hypothesis_settings.load_profile("pasta")

HEAD = template(3.0).head


@pytest.fixture
def make_settings() -> Callable[..., Settings]:
    """Settings of a small, exact and quick run, with some of them changed."""

    def make(**changes: bool | float | str) -> Settings:
        quick: dict[str, bool | int | float | str] = {
            "training.local-steps": 2,
            "training.batch-size": 1,
            "training.warmup-steps": 0,
            "training.dtype": "float32",
            "training.learning-rate": 1e-3,
            "loss.cycle": False,
            "federation.rounds": 2,
            "federation.join-deadline": 0.01,
            "federation.validation-slabs": 1,
        }
        return settings_from_flat(
            quick | {k.replace("__", ".").replace("_", "-"): v for k, v in changes.items()}
        )

    return make


@pytest.fixture
def write_scan() -> Callable[..., Path]:
    """Write a scan of random tissue in an ellipsoid of zeros, by default on the 3 mm head grid."""

    def write(path: Path, *, seed: int = 0, gain: float = 1.0, **changes: np.ndarray) -> Path:
        affine = changes.get("affine", HEAD.affine)
        data = changes.get("data")
        if data is None:
            centre = HEAD.coordinates() / np.array([65.0, 80.0, 60.0], np.float32)
            tissue = np.random.default_rng(seed).uniform(0.5, 2.0, HEAD.shape)
            data = np.where(np.linalg.norm(centre, axis=-1) < 1, tissue, 0.0)
        write_volume(path, Volume(np.asarray(gain * data, np.float32), affine))
        return path

    return write


@pytest.fixture
def make_session(tmp_path: Path, write_scan: Callable[..., Path]) -> Callable[..., Session]:
    """Return a session whose two scans lie on disk."""

    def make(subject: str, *, split: str | None = "train", site: str = "A", **changes: object) -> Session:
        seed = sum(map(ord, subject))
        values: dict[str, object] = {
            "session": "bl",
            "diagnosis": "CN",
            "mri": tmp_path / "scans" / f"{subject}_T1w.nii",
            "pet": tmp_path / "scans" / f"{subject}_pet.nii",
            "clinical": {"age": 60.0 + seed % 17, "sex": 1.0, "education": 12.0 + seed % 5, "mmse": None},
        } | changes
        for number, kind in enumerate(("mri", "pet")):
            path = Path(str(values[kind]))
            if path.name and not path.exists():
                write_scan(path, seed=2 * seed + number, gain=300.0 if kind == "mri" else 1.0)
        return Session(subject=subject, site=site, split=split, **values)

    return make


@pytest.fixture
def make_store(tmp_path: Path, make_session: Callable[..., Session]) -> Callable[..., SiteStore]:
    """Prepare a site of a few subjects: three train, one validates."""

    def make(site: str = "A", *, root: Path | None = None) -> SiteStore:
        splits = {"ada": "train", "bob": "train", "cyd": "train", "dan": "valid"}
        sessions = [make_session(f"sub-{site}{n}", split=split, site=site) for n, split in splits.items()]
        return prepare_store((root or tmp_path / "sites") / site, sessions, spacing=3.0)

    return make
