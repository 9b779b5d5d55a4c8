# SPDX-License-Identifier: Apache-2.0
"""A prepared site: what it holds, and that it is made whole or not at all."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.data.metaroi import metaroi_map
from pasta_model.data.scaling import PET_SCALE, Scale
from pasta_model.data.store import SiteStore, prepare_store
from pasta_model.data.volume import read_volume
from pasta_model.errors import SplitError, StoreError, VolumeError

GRID = template(3.0)


class TestContent:
    def test_slab_is_the_volumes_slab(self, make_session, tmp_path: Path) -> None:
        sessions = [make_session("ann"), make_session("bob", split="valid")]
        store = prepare_store(tmp_path / "store", sessions, spacing=3.0)
        for index, session in enumerate(sessions):
            mri, pet = store.slab(index, 20, 5)
            assert mri.dtype == pet.dtype == np.float32
            assert mri.shape == pet.shape == (5, 48, 56)
            # Slice 20 of the network is axial slice 24 of the head; x and y start at 4 and 6.
            real = read_volume(session.pet).data[4:52, 6:62, 24:29]
            np.testing.assert_allclose(PET_SCALE.to_file(pet), np.moveaxis(real, 2, 0), atol=3.0 / 2 * 2**-11)
            raw = read_volume(session.mri).data[4:52, 6:62, 24:29]
            scale = Scale(store.entries[index].mri_full)
            np.testing.assert_allclose(
                scale.to_file(mri), np.moveaxis(raw, 2, 0), atol=scale.full / 2 * 2**-10
            )

    def test_background_of_the_mri_is_exactly_minus_one(self, make_store) -> None:
        store = make_store()
        mri, _ = store.slab(0, 0, store.slices)
        assert mri.min() == -1
        assert mri[0, 0, 0] == -1

    def test_index_remembers_the_sessions(self, make_session, tmp_path: Path) -> None:
        sessions = [make_session("ann"), make_session("bob", split="test", diagnosis="MCI")]
        prepare_store(tmp_path / "store", sessions, spacing=3.0)
        store = SiteStore(tmp_path / "store")
        assert store.site == "A"
        assert store.template is GRID
        assert store.slices == 48
        assert [(e.subject, e.split, e.diagnosis) for e in store.entries] == [
            ("ann", "train", "CN"),
            ("bob", "test", "MCI"),
        ]
        assert store.entries[0].clinical == dict(sessions[0].clinical)
        assert store.indices("test") == [1]
        assert store.indices("valid") == []

    def test_a_store_from_before_persons_were_kept_knows_subjects(self, make_store, tmp_path: Path) -> None:
        make_store()
        path = tmp_path / "sites" / "A" / "index.json"
        index = json.loads(path.read_text())
        for entry in index["entries"]:
            del entry["person"]
        path.write_text(json.dumps(index))
        entries = SiteStore(path.parent).entries
        assert [entry.person for entry in entries] == [entry.subject for entry in entries]

    def test_arrays_are_read_from_the_disk_not_held(self, make_store) -> None:
        store = make_store()
        assert isinstance(store._mri, np.memmap)
        assert isinstance(store._pet, np.memmap)

    def test_a_session_costs_two_bytes_a_voxel(self, make_store, tmp_path: Path) -> None:
        make_store()
        for name in ("mri.npy", "pet.npy"):
            assert (tmp_path / "sites" / "A" / name).stat().st_size == 128 + 4 * 2 * 48 * 48 * 56

    def test_same_scans_same_bytes(self, make_session, tmp_path: Path) -> None:
        session = make_session("ann")
        for name in ("one", "two"):
            prepare_store(tmp_path / name, [session], spacing=3.0)
        for name in ("mri.npy", "pet.npy", "index.json"):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

    def test_progress_counts_sessions(self, make_session, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        sessions = [make_session("ann"), make_session("bob")]
        prepare_store(
            tmp_path / "s", sessions, spacing=3.0, progress=lambda done, total: seen.append((done, total))
        )
        assert seen == [(1, 2), (2, 2)]


class TestMetaroi:
    def test_the_atlas_map_lies_as_the_volumes_do(self, make_store, tmp_path: Path) -> None:
        store = make_store()
        np.testing.assert_array_equal(store.metaroi, np.moveaxis(metaroi_map(GRID.crop), 2, 0))
        assert store.metaroi.dtype == np.float32
        index = json.loads((tmp_path / "sites" / "A" / "index.json").read_text())
        assert index["metaroi"] == "atlas"

    def test_a_users_map_is_kept_with_its_name_and_digest(self, make_session, write_scan, tmp_path) -> None:
        data = np.random.default_rng(0).uniform(0, 1, GRID.head.shape)
        own = write_scan(tmp_path / "own.nii", data=data)
        prepare_store(tmp_path / "store", [make_session("ann")], spacing=3.0, metaroi=own)
        digest = hashlib.sha256(own.read_bytes()).hexdigest()
        own.unlink()  # the store needs it no more
        store = SiteStore(tmp_path / "store")
        np.testing.assert_allclose(store.metaroi, GRID.to_network(data), atol=1e-6)
        index = json.loads((tmp_path / "store" / "index.json").read_text())
        assert index["metaroi"] == {"file": "own.nii", "sha256": digest}

    def test_a_map_that_cannot_be_used_leaves_nothing(self, make_session, write_scan, tmp_path) -> None:
        labels = write_scan(tmp_path / "labels.nii", data=np.full(GRID.head.shape, 3.0))
        with pytest.raises(VolumeError, match="wanted values from 0 to 1"):
            prepare_store(tmp_path / "store", [make_session("ann")], spacing=3.0, metaroi=labels)
        assert not (tmp_path / "store").exists()

    def test_a_store_from_before_maps_were_kept_uses_the_atlas(self, make_store, tmp_path: Path) -> None:
        wanted = make_store().metaroi
        folder = tmp_path / "sites" / "A"
        (folder / "metaroi.npy").unlink()
        index = json.loads((folder / "index.json").read_text())
        del index["metaroi"]
        (folder / "index.json").write_text(json.dumps(index))
        np.testing.assert_array_equal(SiteStore(folder).metaroi, wanted)

    @pytest.mark.parametrize(
        ("damage", "text"),
        [
            (Path.unlink, "metaroi.npy cannot be read"),
            (lambda path: path.write_bytes(b"\x93NUMPY"), "metaroi.npy cannot be read"),
            (lambda path: np.save(path, np.zeros((2, 3, 4))), r"found a MetaROI map \(2, 3, 4\), wanted"),
        ],
    )
    def test_a_lost_map_is_not_replaced_in_silence(self, make_store, tmp_path: Path, damage, text) -> None:
        make_store()
        damage(tmp_path / "sites" / "A" / "metaroi.npy")
        with pytest.raises(StoreError, match=text):
            _ = SiteStore(tmp_path / "sites" / "A").metaroi


class TestRefusals:
    def test_every_bad_scan_at_once_and_nothing_left(self, make_session, write_scan, tmp_path: Path) -> None:
        scans = tmp_path / "scans"
        moved = GRID.head.affine.copy()
        moved[0, 3] += 3
        hole = np.ones(GRID.head.shape, np.float32)
        hole[5, 5, 5] = np.nan
        fine = template(1.5).head
        both = write_scan(scans / "fine.nii", data=np.ones(fine.shape), affine=fine.affine)
        ones = np.ones(GRID.head.shape)
        sessions = [
            make_session("good"),
            make_session("moved", pet=write_scan(scans / "moved.nii", affine=moved, data=ones)),
            make_session("hole", pet=write_scan(scans / "hole.nii", data=hole)),
            make_session("fine", mri=both, pet=both),
            make_session("empty", pet=write_scan(scans / "empty.nii", data=0 * ones)),
            make_session("black", mri=write_scan(scans / "black.nii", data=0 * ones)),
            make_session("gone"),
            make_session("cut"),
        ]
        sessions[6].pet.unlink()
        sessions[7].mri.write_bytes(sessions[7].mri.read_bytes()[:100_000])
        with pytest.raises(VolumeError) as error:
            prepare_store(tmp_path / "sites" / "A", sessions, spacing=3.0)
        heading, *lines = str(error.value).split("\n  - ")
        assert heading == "site A: scans that cannot be used: 7 problem(s)"
        wanted = {
            "moved_bl": "different grids",
            "hole_bl": "1 of 213248 voxels are NaN",
            "fine_bl": "found MNI152 1.5 mm, wanted MNI152 3 mm",
            "empty_bl": "the PET is empty",
            "black_bl": "no voxel above zero",
            "gone_bl": "no such file",
            "cut_bl": "truncated",
        }
        for line, (name, text) in zip(lines, wanted.items(), strict=True):
            assert line.startswith(f"{name}: ")
            assert text in line
        assert list((tmp_path / "sites").iterdir()) == []

    def test_failure_leaves_the_old_store(self, make_session, tmp_path: Path) -> None:
        good, bad = make_session("good"), make_session("bad")
        prepare_store(tmp_path / "store", [good], spacing=3.0)
        bad.pet.unlink()
        with pytest.raises(VolumeError):
            prepare_store(tmp_path / "store", [good, bad], spacing=3.0)
        assert [e.subject for e in SiteStore(tmp_path / "store").entries] == ["good"]

    def test_empty_site(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="no session"):
            prepare_store(tmp_path / "store", [], spacing=3.0)
        assert not (tmp_path / "store").exists()

    def test_no_split_and_two_sites(self, make_session, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="without a split"):
            prepare_store(tmp_path / "s", [make_session("ann", split=None)], spacing=3.0)
        with pytest.raises(StoreError, match="sites A, B"):
            prepare_store(tmp_path / "s", [make_session("ann"), make_session("bob", site="B")], spacing=3.0)

    def test_subject_in_two_splits(self, make_session, tmp_path: Path) -> None:
        twice = [make_session("ann"), make_session("ann", session="m12", split="test")]
        with pytest.raises(SplitError, match="ann: in splits test, train"):
            prepare_store(tmp_path / "s", twice, spacing=3.0)


class TestDamagedStore:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="no prepared site here"):
            SiteStore(tmp_path)

    @pytest.mark.parametrize(
        ("name", "content", "text"),
        [
            ("index.json", b"{", "index.json is damaged"),
            ("index.json", b'{"format": 0}', "format 0, wanted 1"),
            ("mri.npy", b"\x93NUMPY", "cannot be read"),
            pytest.param("pet.npy", b"", "cannot be read"),
        ],
    )
    def test_damaged(self, make_store, tmp_path: Path, name: str, content: bytes, text: str) -> None:
        make_store()
        (tmp_path / "sites" / "A" / name).write_bytes(content)
        with pytest.raises(StoreError, match=text):
            SiteStore(tmp_path / "sites" / "A")

    def test_index_and_arrays_that_do_not_fit(self, make_store, tmp_path: Path) -> None:
        make_store()
        path = tmp_path / "sites" / "A" / "index.json"
        index = json.loads(path.read_text())
        index["entries"].pop()
        path.write_text(json.dumps(index))
        with pytest.raises(StoreError, match=r"found arrays \(4, 48, 48, 56\), wanted \(3, 48, 48, 56\)"):
            SiteStore(path.parent)
