# SPDX-License-Identifier: Apache-2.0
"""`pasta synthesize`, asked for what it cannot do: one clear message, exit status 2, no output file."""

import errno
import gzip
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from pasta_model.checkpoint import load_checkpoint, save_checkpoint
from pasta_model.data.grid import template
from tests.support.commands import Outcome

HEAD = template(3.0).head


@pytest.fixture
def refused(pasta_refuses: Callable[..., str], model: Path, mri: Path, out: Path) -> Callable[..., str]:
    """Expect the synthesis of the one MRI to be refused, with more words if there are any."""
    return lambda *words: pasta_refuses("synthesize", "--model", model, mri, out, *words)


@pytest.fixture
def manifest(mri: Path) -> Path:
    path = mri.with_name("participants.tsv")
    columns = "participant_id\tsession_id\tsite\tdiagnosis\tage\tmmse\tmri\tpet\n"
    path.write_text(f"{columns}sub-01\tses-1\tA\tCN\t71\t24\t{mri.name}\tn/a\n")
    return path


def cut(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


# --- Models ---------------------------------------------------------------------------------


def with_metadata(path: Path, change: Callable[[str], str]) -> None:
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    save_file(load_checkpoint(path).state, path, metadata={**about, "about": change(about["about"])})


MODELS = {
    "missing": (Path.unlink, "no such file"),
    "truncated": (cut, "not a readable safetensors file"),
    "random bytes": (lambda path: path.write_bytes(bytes(range(256)) * 9), "not a readable safetensors file"),
    "text": (lambda path: path.write_text("weights"), "not a readable safetensors file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "no such file"),
    "cut description": (lambda path: with_metadata(path, lambda about: about[:40]), "description"),
    "description of another kind": (lambda path: with_metadata(path, lambda about: "[3]"), "description"),
    "other clinical statistics": (
        lambda path: with_metadata(path, lambda about: about.replace("70.0, ", "")),
        "clinical|standardisation|mean",
    ),
}


@pytest.mark.parametrize("fault", MODELS)
def test_model_that_cannot_be_read(fault: str, model: Path, refused: Callable[..., str]) -> None:
    spoil, wanted = MODELS[fault]
    spoil(model)
    said = refused()
    assert str(model) in said
    assert any(part in said for part in wanted.split("|")), said


@pytest.mark.parametrize("shape", ["width 16", "blocks 2", "slices 7", "multipliers 1-2"])
def test_weights_of_another_size_than_the_settings(
    shape: str, model: Path, make_model: Callable[..., Path], refused: Callable[..., str]
) -> None:
    settings = load_checkpoint(model).settings
    larger = make_model("larger.safetensors", network__shape=f"{settings.network.shape}, {shape}")
    save_checkpoint(model, replace(load_checkpoint(larger), settings=settings))
    said = refused()
    assert "the weights do not fit the network of" in said
    assert "slices 5, width 8" in said
    assert "mri_arm." in said, "a tensor is named"
    assert str(model) in said, "which file?"


def test_weights_that_are_not_finite(model: Path, refused: Callable[..., str]) -> None:
    held = load_checkpoint(model)
    save_checkpoint(model, replace(held, state={name: t * np.nan for name, t in held.state.items()}))
    assert "NaN" in refused()


# --- MRIs -----------------------------------------------------------------------------------


def rewrite(path: Path, data: np.ndarray, affine: np.ndarray = HEAD.affine) -> None:
    nib.Nifti1Image(np.asarray(data, np.float32), affine).to_filename(path)


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj, np.float32).copy()


def poison(path: Path) -> None:
    data = voxels(path)
    data[28, 34, 28] = np.nan
    rewrite(path, data)


def move(path: Path) -> None:
    affine = HEAD.affine.copy()
    affine[0, 3] += HEAD.spacing
    rewrite(path, voxels(path), affine)


def flatten(path: Path) -> None:
    """Write a sform of zeros, which nibabel reads but never writes."""
    header = bytearray(gzip.decompress(path.read_bytes()))
    header[280:328] = bytes(48)
    path.write_bytes(gzip.compress(bytes(header)))


FINE = template(1.5).head
MRIS = {
    "missing": (Path.unlink, "no such file"),
    "smaller than a slab": (lambda path: rewrite(path, np.ones((20, 20, 4))), "found (20, 20, 4) voxels"),
    "another grid": (lambda path: rewrite(path, np.ones((91, 109, 91))), "register and resample"),
    "another spacing": (lambda path: rewrite(path, np.ones(FINE.shape), FINE.affine), "trained at 3.0 mm"),
    "wrong affine": (move, "lies on no grid that the network knows"),
    "affine of zeros": (flatten, "affine|grid|orientation"),
    "truncated": (cut, "truncated: copy or export it again"),
    "NaN": (poison, "1 of 213248 voxels are NaN or infinite"),
    "empty file": (lambda path: path.write_bytes(b""), "not a readable NIfTI"),
    "only zeros": (lambda path: rewrite(path, np.zeros(HEAD.shape)), "no voxel above zero"),
    "four dimensions": (lambda path: rewrite(path, np.ones((*HEAD.shape, 2))), "found 4 dimensions"),
    "text": (lambda path: path.write_text("patient 7"), "not a readable NIfTI"),
}


@pytest.mark.parametrize("fault", MRIS)
def test_mri_that_cannot_be_used(fault: str, mri: Path, refused: Callable[..., str]) -> None:
    spoil, wanted = MRIS[fault]
    spoil(mri)
    said = refused()
    assert "sub-01" in said
    assert any(part in said for part in wanted.split("|")), said


def test_published_checkpoint_not_brought_in(pasta_refuses, model: Path, mri: Path, out: Path) -> None:
    published = model.with_name("model.pt")
    published.write_bytes(bytes(range(256)) * 9)
    assert "pasta import-checkpoint" in pasta_refuses("synthesize", "--model", published, mri, out)


def test_volume_smaller_than_a_slab(
    make_model: Callable[..., Path], model: Path, refused: Callable[..., str]
) -> None:
    make_model(model.name, network__shape="slices 49, width 8, attention none, groups 4, patch 4")
    said = refused()
    assert "49" in said
    assert "48" in said


def test_the_other_mris_are_done(
    pasta: Callable[..., Outcome], model: Path, mri: Path, out: Path, write_scan: Callable[..., Path]
) -> None:
    other = write_scan(mri.with_name("sub-02.nii"), seed=2, gain=300.0)
    cut(mri)
    said = pasta("synthesize", "--model", model, mri, other, out)
    assert said.status == 2
    assert said.err.startswith("error: scans that could not be synthesised: 1 problem(s)")
    assert all(path.name.startswith("sub-02_") for path in out.rglob("*"))
    assert len(list(out.rglob("*"))) == 2


def test_mris_of_the_same_name(pasta_refuses, model: Path, mri: Path, out: Path, write_scan) -> None:
    twin = write_scan(mri.parent / "visit2" / mri.name, seed=2, gain=300.0)
    assert "several MRIs are called sub-01" in pasta_refuses("synthesize", "--model", model, mri, twin, out)


# --- Clinical values ------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["age=old", "age=7O", "age=nan", "age=-3", "age=200", "sex=2", "age"])
def test_clinical_value_that_is_none(value: str, refused: Callable[..., str]) -> None:
    said = refused("--clinical", value)
    assert value.partition("=")[0] in said
    assert "wanted" in said


@pytest.mark.parametrize("value", ["shoesize=44", "Age=71", "age 71", ""])
def test_clinical_value_of_no_known_name(value: str, refused: Callable[..., str]) -> None:
    assert "wanted name=value with one of age, sex" in refused("--clinical", value)


@pytest.mark.parametrize("scheme", ["demographics", "none"])
def test_clinical_value_that_the_model_was_not_trained_with(
    scheme: str, make_model, model: Path, mri: Path, manifest: Path, out: Path, pasta, pasta_refuses
) -> None:
    make_model(model.name, data__clinical=scheme)
    lone = ("synthesize", "--model", model, mri, out, "--clinical", "mmse=24")
    table = ("synthesize", "--model", model, manifest, out)
    for words in (lone, table):
        said = pasta_refuses(*words)
        assert "mmse" in said
        assert "the model was not trained with" in said
        assert "--ignore-unknown" in said
        assert pasta(*words, "--ignore-unknown").status == 0
    for file in out.rglob("*.json"):
        assert "mmse" not in file.read_text()


def test_clinical_value_beside_a_manifest(pasta_refuses, model: Path, manifest: Path, out: Path) -> None:
    said = pasta_refuses("synthesize", "--model", model, manifest, out, "--clinical", "age=71")
    assert "clinical values are for one MRI" in said


def test_clinical_value_of_several_mris(pasta_refuses, model: Path, mri: Path, out: Path, write_scan) -> None:
    other = write_scan(mri.with_name("sub-02.nii"), seed=2)
    said = pasta_refuses("synthesize", "--model", model, mri, other, out, "--clinical", "age=71")
    assert "clinical values are for one MRI" in said


def test_manifest_beside_an_mri(pasta_refuses, model: Path, mri: Path, manifest: Path, out: Path) -> None:
    said = pasta_refuses("synthesize", "--model", model, mri, manifest, out)
    assert "wanted one manifest, or MRIs" in said


# --- Options and outputs --------------------------------------------------------------------

OPTIONS = {
    "--steps 0": "--steps",
    "--steps 101": "sampling.steps",
    "--steps many": "--steps",
    "--hop 0": "--hop",
    "--hop 6": "sampling.hop is larger than a slab",
    "--solver euler": "found 'euler', wanted 'ddim' or 'dpm++2m'",
    "--samples 0": "--samples",
    "--seed -1": "--seed",
    "--device cuda:7": "use 'cpu'",
    "--device abacus": "abacus",
    "--stride 2": "--stride",
    "--set start=7": "sampling.start is not one of the trained timesteps",
    "--set start": "wanted name=value, as start=500",
    "--set begin=7": "sampling.begin: no such setting",
    "--set samples=two": "wanted a valid integer",
}


@pytest.mark.parametrize("words", OPTIONS)
def test_impossible_option(words: str, refused: Callable[..., str]) -> None:
    assert OPTIONS[words] in refused(*words.split())


def test_file_in_the_way(out: Path, refused: Callable[..., str]) -> None:
    out.write_text("something")
    assert str(out) in refused()


def test_output_that_was_forgotten(pasta_refuses, model: Path, mri: Path, write_scan) -> None:
    other = write_scan(mri.with_name("sub-02.nii"), seed=2)
    assert str(other) in pasta_refuses("synthesize", "--model", model, mri, other)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_folder_that_cannot_be_written(
    code: int, out: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **words: object) -> None:
        raise OSError(code, os.strerror(code), str(out / ".partial-1"))

    out.mkdir()
    monkeypatch.setattr("pasta_model.files.tempfile.mkstemp", fail)
    said = refused()
    assert str(out) in said
    assert os.strerror(code) in said
