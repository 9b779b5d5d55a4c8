# SPDX-License-Identifier: Apache-2.0
"""Rivals' PETs on disk: where PASTA's would be, complete or absent, and made once."""

import json

import numpy as np
import pytest

from pasta_model.data.store import SiteStore, prepare_store
from pasta_model.data.volume import read_volume
from pasta_model.derivatives import synthetic_path
from pasta_model.errors import ConfigError, StoreError, VolumeError
from simulation.baselines import mean_pet
from simulation.rivals import folders
from simulation.rivals.folders import mean_pet_folder, synthesise_rival


@pytest.fixture
def model(trained):
    return trained("concatenation", steps=1) / "model.safetensors"


@pytest.fixture
def sessions(make_session):
    return [make_session("sub-X1", split="test"), make_session("sub-X2", split="test")]


def sidecar(path):
    return json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())


def stamps(paths):
    return [path.stat().st_mtime_ns for path in paths]


def test_pets_lie_where_pastas_would(model, sessions, tmp_path) -> None:
    seen = []
    paths = synthesise_rival(
        model, sessions, tmp_path / "pets", seed=3, progress=lambda done, total: seen.append((done, total))
    )
    assert paths == [synthetic_path(tmp_path / "pets", session) for session in sessions]
    assert seen == [(1, 2), (2, 2)]
    for path in paths:
        assert read_volume(path, unit="SUVR").data.min() >= 0
        about = sidecar(path)
        assert about["Synthetic"] is True
        assert about["Method"] == "concatenation"
        assert about["Seed"] == 3
        assert "not a medical device" in about["Description"]
    assert not np.array_equal(*(read_volume(path).data for path in paths))


def test_what_is_done_is_kept_and_what_is_not_is_made(model, sessions, tmp_path) -> None:
    def make(seed=0):
        return synthesise_rival(model, sessions, tmp_path / "pets", seed=seed)

    paths = make()
    before, wanted = stamps(paths), [read_volume(path).data for path in paths]
    assert stamps(make()) == before
    paths[0].write_bytes(b"damaged")
    after = stamps(make())
    assert after[0] != before[0]
    assert after[1] == before[1]
    np.testing.assert_array_equal(read_volume(paths[0]).data, wanted[0])
    paths[1].with_name(paths[1].name.replace(".nii.gz", ".json")).unlink()  # killed before the sidecar
    assert stamps(make())[1] != after[1]
    assert not np.array_equal(read_volume(make(seed=1)[0]).data, wanted[0]), "another seed, another PET"


def test_changed_mri_or_value_makes_a_pet_stale(model, sessions, write_scan, make_session, tmp_path) -> None:
    first = stamps(synthesise_rival(model, sessions, tmp_path / "pets"))
    write_scan(sessions[0].mri, seed=99, gain=300.0)
    second = stamps(synthesise_rival(model, sessions, tmp_path / "pets"))
    assert second[0] != first[0]
    assert second[1] == first[1]
    older = make_session("sub-X2", split="test", clinical={"age": 99.0})
    third = stamps(synthesise_rival(model, [sessions[0], older], tmp_path / "pets"))
    assert third[0] == second[0]
    assert third[1] != second[1]


def test_scans_that_cannot_be_used_are_named_and_the_others_done(model, sessions, tmp_path) -> None:
    sessions[0].mri.unlink()
    with pytest.raises(VolumeError, match="no such file") as refused:
        synthesise_rival(model, sessions, tmp_path / "pets")
    assert "1 problem(s)" in str(refused.value)
    assert sessions[0].name in str(refused.value)
    assert synthetic_path(tmp_path / "pets", sessions[1]).is_file()


def test_mean_pet_is_everybodys(stores, sessions, tmp_path) -> None:
    paths = mean_pet_folder(stores, sessions, tmp_path / "mean")
    wanted = mean_pet([SiteStore(path) for path in stores])
    for path, session in zip(paths, sessions, strict=True):
        assert path == synthetic_path(tmp_path / "mean", session)
        np.testing.assert_allclose(read_volume(path).data, wanted.data, rtol=1e-6)
        assert sidecar(path)["TrainingSessions"] == 6
        assert sidecar(path)["Method"] == "mean PET"
    before = stamps(paths)
    assert stamps(mean_pet_folder(stores[::-1], sessions, tmp_path / "mean")) == before
    assert stamps(mean_pet_folder(stores[:1], sessions, tmp_path / "mean")) != before


def test_mean_of_nobody_is_refused(make_session, sessions, tmp_path) -> None:
    tested = prepare_store(tmp_path / "C", [make_session("sub-C1", site="C", split="test")], spacing=3.0)
    with pytest.raises(StoreError, match=r"no training session in 1 store"):
        mean_pet_folder([tested.path], sessions, tmp_path / "mean")
    with pytest.raises(StoreError, match=r"no training session in 0 store"):
        mean_pet_folder([], sessions, tmp_path / "mean")


def test_folder_that_is_a_file_is_refused_before_any_work(model, sessions, tmp_path, monkeypatch) -> None:
    (tmp_path / "pets").write_text("")
    monkeypatch.setattr(folders, "RivalSynthesiser", None)
    with pytest.raises(ConfigError, match="is a file, wanted a folder"):
        synthesise_rival(model, sessions, tmp_path / "pets")
