# SPDX-License-Identifier: Apache-2.0
"""Synthesis of whole sessions: NIfTI in, NIfTI and provenance out."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pasta_model import derivatives
from pasta_model.checkpoint import Checkpoint, load_checkpoint, new_network, save_checkpoint
from pasta_model.data.clinical import Standardisation
from pasta_model.data.grid import template
from pasta_model.data.volume import read_volume
from pasta_model.derivatives import SynthesisJob, synthesise_sessions
from pasta_model.errors import CheckpointError, VolumeError
from pasta_model.sections import SamplingSettings
from pasta_model.synthesis import Synthesiser

QUICK = SamplingSettings(steps=1, hop=11, batch_slabs=4)
GRID = template(3.0)


@pytest.fixture
def job(tmp_path: Path, make_settings) -> SynthesisJob:
    settings = make_settings()
    state = new_network(settings).state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {n: t + 0.05 * torch.randn(t.shape, generator=generator) for n, t in state.items()}
    standardisation = Standardisation((65.0, 0.0, 14.0, 0.0, 0.0, 0.0), (10.0,) * 6)
    save_checkpoint(tmp_path / "model.safetensors", Checkpoint(state, settings, standardisation, 1))
    return SynthesisJob(tmp_path / "model.safetensors", tmp_path / "out", sampling=QUICK)


def test_pet_lies_where_the_mri_lies_and_is_suvr(job, make_session) -> None:
    session = make_session("ann")
    (path,) = synthesise_sessions(job, [session])
    pet, mri = nib.load(path), nib.load(session.mri)
    assert pet.shape == mri.shape == GRID.head.shape
    np.testing.assert_allclose(pet.affine, mri.affine, atol=1e-5)  # METHOD, fault 9
    data = pet.get_fdata()
    assert data.min() >= 0
    assert 0.05 < data[GRID.slices].mean() < 10
    outside = np.ones(GRID.head.shape, bool)
    outside[GRID.slices] = False
    assert not data[outside].any()
    assert "SYNTHETIC" in pet.header["descrip"].item().decode()


def test_mri_stored_left_to_right_comes_out_at_the_same_place(job, make_session, tmp_path: Path) -> None:
    session = make_session("ann")
    image = nib.load(session.mri)
    affine = image.affine.copy()
    affine[0] = [-3, 0, 0, affine[0, 3] + 3 * (image.shape[0] - 1)]
    nib.Nifti1Image(np.asarray(image.dataobj)[::-1].copy(), affine).to_filename(tmp_path / "las.nii")
    (ras,) = synthesise_sessions(job, [session])
    other = replace(job, output=tmp_path / "las")
    (las,) = synthesise_sessions(other, [replace(session, mri=tmp_path / "las.nii")])
    np.testing.assert_allclose(read_volume(las).affine, read_volume(ras).affine)
    np.testing.assert_allclose(read_volume(las).data, read_volume(ras).data, atol=1e-5)


def test_sidecar_says_where_it_comes_from(job, make_session) -> None:
    (path,) = synthesise_sessions(job, [make_session("ann")])
    about = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert about["Synthetic"] is True
    assert about["Units"] == "SUVR"
    assert about["Seed"] == 0
    assert about["Sampling"].items() >= {"steps": 1, "hop": 11, "batch-slabs": 4}.items()
    assert about["Settings"]["network.size"] == "tiny"
    assert len(about["ModelSha256"]) == 64


class TestResume:
    @pytest.fixture
    def made(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Names of the sessions that are really synthesised."""
        names: list[str] = []
        real = Synthesiser.synthesise_samples

        def note(self, mri, clinical, **words):
            names.append(words["name"])
            return real(self, mri, clinical, **words)

        monkeypatch.setattr(Synthesiser, "synthesise_samples", note)
        return names

    def test_keeps_the_complete_and_redoes_the_incomplete(self, job, make_session, made) -> None:
        sessions = [make_session("ann"), make_session("bob"), make_session("cyd")]
        first = synthesise_sessions(job, sessions)
        whole = [path.read_bytes() for path in first]
        assert len(set(whole)) == 3
        first[0].unlink()
        first[1].with_name(first[1].name.replace(".nii.gz", ".json")).unlink()
        made.clear()
        assert synthesise_sessions(job, sessions) == first
        assert made == ["ann_bl", "bob_bl"]
        assert [path.read_bytes() for path in first] == whole

    def test_another_seed_or_model_is_made_again(self, job, make_session, made) -> None:
        session = make_session("ann")
        (path,) = synthesise_sessions(job, [session])
        before = path.read_bytes()
        synthesise_sessions(replace(job, seed=1), [session])
        assert path.read_bytes() != before
        checkpoint = load_checkpoint(job.model)
        save_checkpoint(job.model, replace(checkpoint, round=2))
        synthesise_sessions(job, [session])
        assert made == ["ann_bl"] * 3

    def test_changed_mri_or_clinical_value_is_made_again(self, job, make_session, write_scan, made) -> None:
        session = make_session("ann")
        synthesise_sessions(job, [session])
        synthesise_sessions(job, [replace(session, clinical={**session.clinical, "age": 99.0})])
        write_scan(session.mri, seed=99, gain=300.0)
        synthesise_sessions(job, [session])
        assert len(made) == 3

    def test_damaged_sidecar_is_made_again(self, job, make_session, made) -> None:
        (path,) = synthesise_sessions(job, [make_session("ann")])
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text("{")
        synthesise_sessions(job, [make_session("ann")])
        assert len(made) == 2


def test_bad_scans_are_reported_at_the_end_and_the_others_are_done(
    job, make_session, write_scan, tmp_path
) -> None:
    bad = make_session("bad", mri=write_scan(tmp_path / "flat.nii", data=np.zeros(GRID.head.shape)))
    fine = template(1.5).head
    other = make_session(
        "fine", mri=write_scan(tmp_path / "fine.nii", data=np.ones(fine.shape), affine=fine.affine)
    )
    good = make_session("good", pet=Path())
    seen = []
    with pytest.raises(VolumeError, match=r"(?s)2 problem.*bad_bl: .*no voxel above zero.*fine_bl: .*1.5 mm"):
        synthesise_sessions(job, [bad, other, good], progress=lambda done, total: seen.append((done, total)))
    assert job.pet_path(good).is_file()
    assert not job.pet_path(bad).exists()
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_missing_model(job, make_session) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        synthesise_sessions(replace(job, model=Path("nowhere.safetensors")), [make_session("ann")])


def test_two_lines_are_enough_for_a_strangers_script(job, make_session) -> None:
    session = make_session("ann")
    synthesiser = Synthesiser(load_checkpoint(job.model), sampling=QUICK)
    pet = synthesiser.synthesise(read_volume(session.mri), {"age": 70.0}, name="ann_bl")
    assert pet.unit == "SUVR"
    again = synthesiser.synthesise(read_volume(session.mri), {"age": 70.0}, name="ann_bl")
    np.testing.assert_array_equal(pet.data, again.data)
    other = synthesiser.synthesise(read_volume(session.mri), {"age": 50.0, "mmse": 20.0}, name="ann_bl")
    assert np.abs(pet.data - other.data).max() > 0


def test_description_fits_a_nifti_header() -> None:
    assert len(derivatives.DESCRIPTION.encode()) <= 79
