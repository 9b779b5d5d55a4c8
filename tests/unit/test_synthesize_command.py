# SPDX-License-Identifier: Apache-2.0
"""`pasta synthesize`: from MRIs on disk to PETs that say what they are made of, and how."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pasta_model import derivatives
from pasta_model.data import volume
from pasta_model.diffusion.source import SourceSlabs
from tests.support.commands import Outcome, everything


@pytest.fixture
def other(tmp_path: Path, write_scan: Callable[..., Path]) -> Path:
    return write_scan(tmp_path / "sub-02_T1w.nii", seed=2, gain=300.0)


@pytest.fixture
def manifest(mri: Path, other: Path) -> Path:
    path = mri.with_name("participants.tsv")
    path.write_text(
        "participant_id\tsession_id\tsite\tdiagnosis\tage\tsex\tmri\tpet\n"
        f"sub-01\tses-1\tA\tCN\t71\tF\t{mri.name}\tn/a\n"
        f"sub-02\tses-1\tA\tDementia\tn/a\tM\t{other.name}\tn/a\n"
    )
    return path


@pytest.fixture
def synthesize(pasta: Callable[..., Outcome], model: Path) -> Callable[..., Outcome]:
    """Synthesise with success."""

    def run(*words: object) -> Outcome:
        said = pasta("synthesize", "--model", model, *words)
        assert (said.status, said.err) == (0, "")
        return said

    return run


def pets(folder: Path, kind: str = "desc-synthetic_pet") -> list[Path]:
    return sorted(folder.rglob(f"*{kind}.nii.gz"))


def pet(folder: Path, kind: str = "desc-synthetic_pet") -> np.ndarray:
    (path,) = pets(folder, kind)
    return np.asarray(nib.load(path).dataobj)


def sidecar(path: Path) -> dict:
    return json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def check(path: Path, mri: Path) -> None:
    """Lies where the MRI lies, holds SUVR, and says that no scanner made it."""
    made, source = nib.load(path), nib.load(mri)
    assert made.shape == source.shape
    np.testing.assert_array_equal(made.affine, source.affine)
    suvr = np.asarray(made.dataobj)
    assert np.isfinite(suvr).all()
    assert 0 <= suvr.min() < suvr.max() < 20
    assert "SYNTHETIC" in made.header["descrip"].item().decode()


# --- What is synthesised --------------------------------------------------------------------


def test_lone_mri(synthesize, mri: Path, out: Path, model: Path) -> None:
    said = synthesize(mri, out, "--clinical", "age=71", "--clinical", "sex=F")
    assert said.out.splitlines()[-1] == f"{out}: 1 synthetic PETs"
    (path,) = pets(out)
    assert path.name.startswith("sub-01_")
    check(path, mri)
    about = sidecar(path)
    assert about["ModelSha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert about["MriSha256"] == hashlib.sha256(mri.read_bytes()).hexdigest()
    assert about["Clinical"] == {"age": 71, "sex": 1}
    assert about["Settings"]["network.shape"].startswith("slices 5, width 8")
    assert about["Sampling"].items() >= {"steps": 2, "hop": 4, "solver": "ddim", "samples": 1}.items()
    assert (about["Seed"], about["Synthetic"], about["Units"]) == (0, True, "SUVR")
    assert about["Versions"].keys() >= {"torch", "numpy", "nibabel"}
    assert 0 < about["DurationSeconds"] < 600
    assert len(everything(out)) == 2


def test_space_is_named_once(synthesize, mri: Path, out: Path) -> None:
    synthesize(mri.rename(mri.with_name("sub-01_ses-1_space-MNI152_T1w.nii.gz")), out)
    assert pets(out)[0].name == "sub-01_ses-1_space-MNI152_trc-18FFDG_desc-synthetic_pet.nii.gz"


def test_clinical_values_are_seen(synthesize, mri: Path, out: Path) -> None:
    for age in (40, 90):
        synthesize(mri, out / str(age), "--clinical", f"age={age}")
    assert np.abs(pet(out / "40") - pet(out / "90")).max() > 0


def test_several_lone_mris(synthesize, mri: Path, other: Path, out: Path) -> None:
    synthesize(mri, other, out)
    assert [path.name.split("_")[0] for path in pets(out)] == ["sub-01", "sub-02"]
    for path, source in zip(pets(out), (mri, other), strict=True):
        check(path, source)
    synthesize(other, out / "alone")
    assert pets(out / "alone")[0].read_bytes() == pets(out)[-1].read_bytes(), "company changes nothing"


def test_manifest(synthesize, manifest: Path, mri: Path, other: Path, out: Path) -> None:
    said = synthesize(manifest, out)
    assert "2 of 2" in said.out, "progress is told where no one watches too"
    assert said.out.splitlines()[-1] == f"{out}: 2 synthetic PETs"
    for path, source in zip(pets(out), (mri, other), strict=True):
        check(path, source)
    assert [sidecar(path)["Clinical"]["age"] for path in pets(out)] == [71, None]


def test_mri_stored_from_left_to_right_keeps_its_affine(synthesize, mri: Path, out: Path) -> None:
    image = nib.load(mri)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = image.shape[0] - 1
    nib.Nifti1Image(np.asarray(image.dataobj)[::-1].copy(), image.affine @ flip).to_filename(mri)
    synthesize(mri, out)
    check(pets(out)[0], mri)


def test_seed_decides(synthesize, mri: Path, out: Path) -> None:
    for place, seed in (("a", 5), ("b", 5), ("c", 6)):
        synthesize(mri, out / place, "--seed", seed)
    a, b, c = (pets(out / place)[0].read_bytes() for place in "abc")
    assert a == b
    assert a != c
    assert [sidecar(path)["Seed"] for path in pets(out)] == [5, 5, 6]


def test_samples_give_mean_and_spread(synthesize, mri: Path, out: Path) -> None:
    synthesize(mri, out / "one")
    synthesize(mri, out / "two", "--samples", 2)
    mean, spread, one = pet(out / "two"), pet(out / "two", "Spread_pet"), pet(out / "one")
    for path in pets(out / "two", ""):
        check(path, mri)
    assert (spread >= 0).all()
    assert spread.max() > 0
    assert np.abs(mean - one).max() > 0
    # The lone sample is one of the two, so it lies half their difference, sqrt(2) / 2 spread, off the mean.
    np.testing.assert_allclose(np.abs(mean - one), spread * 2**-0.5, atol=1e-5)
    about = sidecar(pets(out / "two")[0])
    assert about["Sampling"]["samples"] == 2
    assert "standard deviation" in about["Uncertainty"]
    synthesize(mri, out / "two")
    assert not pets(out / "two", "Spread_pet"), "the spread of an earlier run would be another model's"


def test_preview_is_one_pass_without_noise(synthesize, mri: Path, out: Path) -> None:
    for place, words in (("a", ["--preview"]), ("b", ["--preview", "--seed", 9]), ("c", [])):
        synthesize(mri, out / place, *words)
    check(pets(out / "a")[0], mri)
    assert sidecar(pets(out / "a")[0])["Method"] == "preview"
    np.testing.assert_array_equal(pet(out / "a"), pet(out / "b"))
    assert np.abs(pet(out / "a") - pet(out / "c")).max() > 0


def test_sampling_can_be_changed_and_is_recorded(synthesize, mri: Path, out: Path) -> None:
    synthesize(mri, out / "own")
    synthesize(mri, out / "changed", "--steps", 3, "--hop", 2, "--solver", "dpm++2m")
    about = sidecar(pets(out / "changed")[0])
    assert about["Sampling"].items() >= {"steps": 3, "hop": 2, "solver": "dpm++2m"}.items()
    assert np.abs(pet(out / "own") - pet(out / "changed")).max() > 0


def test_any_sampling_setting_can_be_set(synthesize, mri: Path, out: Path) -> None:
    synthesize(mri, out / "own")
    synthesize(mri, out / "short", "--set", "start=500", "--set", "clip-quantile=0.99")
    about = sidecar(pets(out / "short")[0])
    assert about["Sampling"].items() >= {"start": 500, "clip-quantile": 0.99}.items()
    assert np.abs(pet(out / "own") - pet(out / "short")).max() > 0


def test_published_procedure_is_recorded(synthesize, mri: Path, out: Path) -> None:
    synthesize(mri, out, "--published")
    wanted = {"solver": "ddim", "steps": 100, "hop": 1, "fusion": "end", "noise": "slab"}
    assert sidecar(pets(out)[0])["Sampling"].items() >= {**wanted, "published-timesteps": True}.items()
    synthesize(mri, out, "--published", "--steps", 2)
    assert sidecar(pets(out)[0])["Sampling"].items() >= {**wanted, "steps": 2}.items()


# --- Stopped, and going on ------------------------------------------------------------------


def test_what_is_complete_is_kept(synthesize, manifest: Path, out: Path) -> None:
    synthesize(manifest, out, "--samples", 2)
    before = times(out)
    assert len(before) == 6
    synthesize(manifest, out, "--samples", 2)
    assert times(out) == before


@pytest.mark.parametrize("kind", ["synthetic_pet.json", "synthetic_pet.nii.gz", "Spread_pet.nii.gz"])
@pytest.mark.parametrize("fault", ["deleted", "truncated"])
def test_what_is_incomplete_is_made_again(kind: str, fault: str, synthesize, manifest, out: Path) -> None:
    synthesize(manifest, out, "--samples", 2)
    whole, before = everything(out), times(out)
    spoilt = next(out.rglob(f"sub-02*{kind}"))
    if fault == "deleted":
        spoilt.unlink()
    else:
        spoilt.write_bytes(spoilt.read_bytes()[:100])
    synthesize(manifest, out, "--samples", 2)
    after = everything(out)
    assert after.keys() == whole.keys(), "nothing is left over"
    assert all(after[name] == whole[name] for name in whole if name.endswith(".nii.gz"))
    assert times(out)[pets(out)[0]] == before[pets(out)[0]], "the other subject's is kept"
    assert sidecar(pets(out)[1])["Synthetic"] is True


STOPS = {
    "in the network": (SourceSlabs, "denoise", 4),  # the first subject takes 2 calls
    "while the PET is packed": (volume.gzip, "compress", 2),
    "before the sidecar": (derivatives, "write_json", 2),
}


@pytest.mark.parametrize("moment", STOPS)
def test_stopped_by_the_user(moment: str, synthesize, pasta, model, manifest, out: Path, monkeypatch) -> None:
    place, name, call = STOPS[moment]
    real, calls = getattr(place, name), []

    def stop(*values: object, **words: object) -> object:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*values, **words)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, stop)
        said = pasta("synthesize", "--model", model, manifest, out)
    assert said.status == 130
    assert "the same command goes on from here" in said.err
    assert "Traceback" not in said.err
    left = {path.name for path in times(out)}
    assert not [name for name in left if name.startswith(".") or "partial" in name]
    for path in pets(out):
        assert np.isfinite(np.asarray(nib.load(path).dataobj)).all(), "each file that is there is whole"
    first = times(out / "sub-01")
    assert len(first) == 2
    synthesize(manifest, out)
    assert times(out / "sub-01") == first
    assert len(times(out)) == 4


def test_sidecar_never_tells_of_an_earlier_pet(synthesize, pasta, model, mri, out, monkeypatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    synthesize(mri, out, "--seed", 1)
    wanted = pet(out)
    with monkeypatch.context() as patch:
        patch.setattr(derivatives, "write_json", stop)
        assert pasta("synthesize", "--model", model, mri, out, "--seed", 2).status == 130
    synthesize(mri, out, "--seed", 1)
    np.testing.assert_array_equal(pet(out), wanted)
