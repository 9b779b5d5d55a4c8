# SPDX-License-Identifier: Apache-2.0
"""`pasta norms`: norms of a table, a z map of a PET, and one clear message for what cannot be."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.manifest import Session, write_manifest
from pasta_model.data.volume import read_volume
from pasta_model.norms.model import Norms
from pasta_model.norms.people import people_of_sessions
from pasta_model.norms.sums import NormSums
from tests.support.commands import Outcome

AGES = (61, 64, 66, 69, 71, 74, 76, 79, 82, 85)


@pytest.fixture
def table(make_session: Callable[..., Session], tmp_path: Path) -> Path:
    """Ten healthy people, one without an age, and one who is ill."""
    rows = [make_session(f"sub-A{i}", clinical={"age": float(age)}) for i, age in enumerate(AGES)]
    rows += [make_session("sub-A90", clinical={"age": None})]
    rows += [make_session("sub-A91", clinical={"age": 70.0}, diagnosis="Dementia")]
    write_manifest(tmp_path / "participants.tsv", rows)
    return tmp_path / "participants.tsv"


@pytest.fixture
def norms(table: Path, make_session: Callable[..., Session], tmp_path: Path) -> Path:
    """Norms of those people."""
    rows = [make_session(f"sub-A{i}", clinical={"age": float(age)}) for i, age in enumerate(AGES)]
    path = tmp_path / "known.safetensors"
    Norms.of(NormSums.of(people_of_sessions(rows), spacing=3.0), sites=["A"]).save(path)
    return path


def test_norms_of_a_table(pasta: Callable[..., Outcome], table: Path, norms: Path, tmp_path: Path) -> None:
    said = pasta("norms", "build", table, "--output", tmp_path / "norms.safetensors")
    assert (said.status, said.err) == (0, "")
    assert "norms of 10 cognitively normal persons of 1 site, voxels of 3 mm, smoothed by 8 mm" in said.out
    assert "left out for want of an age: 1" in said.out
    made, known = Norms.load(tmp_path / "norms.safetensors"), Norms.load(norms)
    assert made.sites == ("A",)
    np.testing.assert_allclose(made.level, known.level, atol=1e-6)


def test_a_map_of_a_pet(
    pasta: Callable[..., Outcome],
    table: Path,
    norms: Path,
    tmp_path: Path,
    make_session: Callable[..., Session],
) -> None:
    ill = make_session("sub-A91")
    z = tmp_path / "z.nii.gz"
    said = pasta("norms", "map", ill.pet, "--mri", ill.mri, "--age", 70, "--norms", norms, "--output", z)
    assert (said.status, said.err) == (0, "")
    (one,) = people_of_sessions([replace(ill, diagnosis="CN")])
    known = Norms.load(norms)
    wanted = known.z_map(one.pet, 70, brain=one.brain)
    found = read_volume(z, unit="z")
    np.testing.assert_allclose(found.data, wanted.data, atol=1e-5)
    np.testing.assert_allclose(found.affine, wanted.affine)
    below = (wanted.data < -2).sum() * 27 / 1000
    told = re.search(r"lowest z (-?[\d.]+), ([\d.]+) ml below -2", said.out)
    assert (float(told[1]), float(told[2])) == pytest.approx((wanted.data.min(), below), abs=0.06)


@pytest.mark.slow
def test_a_picture_of_the_surfaces(
    pasta: Callable[..., Outcome], norms: Path, tmp_path: Path, make_session: Callable[..., Session]
) -> None:
    words = ("norms", "map", make_session("sub-A91").pet, "--age", 70, "--norms", norms)
    said = pasta(*words, "--output", tmp_path / "z.nii.gz", "--surfaces", tmp_path / "eight.png")
    assert (said.status, said.err) == (0, "")
    assert (tmp_path / "eight.png").read_bytes().startswith(b"\x89PNG")


def test_too_few_people_are_refused(
    pasta_refuses: Callable[..., str], table: Path, make_session: Callable[..., Session], tmp_path: Path
) -> None:
    write_manifest(tmp_path / "few.tsv", [make_session("sub-A1"), make_session("sub-A2", split="test")])
    build = ("norms", "build", "--output", tmp_path / "norms.safetensors")
    assert "norms of 2 cognitively normal persons, wanted at least 10" in pasta_refuses(
        *build, tmp_path / "few.tsv"
    )
    assert "nobody is in split 'valid'" in pasta_refuses(*build, table, "--split", "valid")
    assert "no template of spacing 2.0" in pasta_refuses(*build, table, "--spacing", 2)
    assert "10 problem(s)" in pasta_refuses(*build, table, "--spacing", 1.5)


def test_what_cannot_be_mapped_is_refused(
    pasta_refuses: Callable[..., str], norms: Path, make_session: Callable[..., Session], tmp_path: Path
) -> None:
    ill = make_session("sub-A91")
    z = ("--output", tmp_path / "z.nii.gz")
    assert "no such file; make norms" in pasta_refuses(
        "norms", "map", ill.pet, "--age", 70, "--norms", tmp_path / "gone", *z
    )
    known = ("--age", 70, "--norms", norms)
    assert "is it in SUVR" in pasta_refuses("norms", "map", ill.mri, *known, *z)
    assert "ends in .nii.gz" in pasta_refuses("norms", "map", ill.pet, *known, "--output", tmp_path / "z.png")
    assert "ends in .png" in pasta_refuses(
        "norms", "map", ill.pet, *known, *z, "--surfaces", tmp_path / "z.jpg"
    )
    assert "--age" in pasta_refuses("norms", "map", ill.pet, "--norms", norms, *z)
