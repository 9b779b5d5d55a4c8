# SPDX-License-Identifier: Apache-2.0
"""Commands that do not go on where Ctrl-C stopped them write all at their end: stopped, they left nothing."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.manifest import Session, write_manifest
from pasta_model.familiarity import scans
from pasta_model.norms.model import Norms
from pasta_model.report import surfaces
from tests.support.commands import Outcome, everything


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def stops(pasta: Callable[..., Outcome], tmp_path: Path) -> Callable[..., None]:
    """Run words that are interrupted, and see that nothing is left."""

    def run(*words: object) -> None:
        before = everything(tmp_path)
        said = pasta(*words)
        assert (said.status, said.err.strip()) == (130, "stopped; nothing was written")
        assert everything(tmp_path) == before

    return run


@pytest.fixture
def table(make_session: Callable[..., Session], tmp_path: Path) -> Path:
    write_manifest(tmp_path / "participants.tsv", [make_session(f"sub-{n}", split="test") for n in range(2)])
    return tmp_path / "participants.tsv"


def test_evaluate(stops, table: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pasta_model.evaluation.comparison.evaluate", interrupt)
    stops("evaluate", table, tmp_path / "scans", "--output", tmp_path / "out")


def test_norms_build(stops, table: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pasta_model.norms.model.refuse_few", interrupt)
    stops("norms", "build", table, "--output", tmp_path / "n.safetensors")


def test_norms_map_while_its_picture_is_drawn(stops, make_session, tmp_path: Path, monkeypatch) -> None:
    class Known:
        def z_map(self, pet: object, *_: object, **__: object) -> object:
            return pet

    monkeypatch.setattr(Norms, "load", lambda _: Known())
    monkeypatch.setattr(surfaces, "surface_picture", interrupt)
    words = ("--norms", "n.safetensors", "--output", tmp_path / "z.nii.gz", "--surfaces", tmp_path / "z.png")
    stops("norms", "map", make_session("sub-1").pet, "--age", 70, *words)


def test_familiarity_build_while_its_false_alarms_are_counted(
    stops, make_session, tmp_path: Path, monkeypatch
) -> None:
    """Of 60 persons who train, and one who validates."""
    rng = np.random.default_rng(0)

    def features(found: Sequence[object], **_: object) -> np.ndarray:
        return rng.normal(size=(60, scans.COUNT)) if len(found) > 1 else interrupt()

    rows = [make_session(f"sub-{n}", split=split) for n, split in enumerate(("train", "train", "valid"))]
    write_manifest(tmp_path / "participants.tsv", rows)
    monkeypatch.setattr(scans, "feature_table", features)
    stops("familiarity", "build", tmp_path / "participants.tsv", "--output", tmp_path / "f.safetensors")
