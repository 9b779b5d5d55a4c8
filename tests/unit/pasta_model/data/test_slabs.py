# SPDX-License-Identifier: Apache-2.0
"""Batches of slabs: who is drawn, from where, in which form."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.data.grid import template
from pasta_model.data.metaroi import metaroi_map
from pasta_model.data.slabs import SlabLoader
from pasta_model.data.store import prepare_store
from pasta_model.errors import StoreError

PLAIN = Standardisation((0.0,) * 6, (1.0,) * 6)


def loader(store, *, split: str = "train", scheme: str = "adni", length: int = 15) -> SlabLoader:
    standardisation = PLAIN if scheme == "adni" else Standardisation((), ())
    return SlabLoader(
        store, split=split, slab_slices=length, scheme=SCHEMES[scheme], standardisation=standardisation
    )


def places(batches: SlabLoader, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Note where slabs are taken instead of taking them."""
    taken: list[tuple[int, int]] = []
    monkeypatch.setattr(batches, "at", lambda places, **_: taken.extend(places))
    return taken


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_every_subject_is_seen_before_any_is_repeated(make_store, monkeypatch, batch_size: int) -> None:
    source = loader(make_store())
    taken = places(source, monkeypatch)
    list(islice(source.batches(batch_size, rng=np.random.default_rng(0)), 12))
    order = [index for index, _ in taken]
    for start in range(0, len(order) - 2, 3):
        assert sorted(order[start : start + 3]) == [0, 1, 2]
    assert len({tuple(order[i : i + 3]) for i in range(0, len(order) - 2, 3)}) > 1


def test_a_subject_with_more_visits_is_not_drawn_more_often(make_session, tmp_path, monkeypatch) -> None:
    sessions = [make_session("ann"), *(make_session("bob", session=f"m{i}") for i in range(3))]
    source = loader(prepare_store(tmp_path / "s", sessions, spacing=3.0))
    taken = places(source, monkeypatch)
    list(islice(source.batches(2, rng=np.random.default_rng(0)), 6))
    drawn = Counter(source.store.entries[index].subject for index, _ in taken)
    assert drawn["ann"] == drawn["bob"] == 6


def test_a_person_of_two_names_is_drawn_as_one(make_session, tmp_path, monkeypatch) -> None:
    names = {"ann": "", "bob": "7", "rob": "07"}
    sessions = [make_session(name, rid=rid) for name, rid in names.items()]
    source = loader(prepare_store(tmp_path / "s", sessions, spacing=3.0))
    taken = places(source, monkeypatch)
    list(islice(source.batches(2, rng=np.random.default_rng(0)), 6))
    assert [entry.person for entry in source.store.entries] == ["ann", "rid:7", "rid:7"]
    assert sum(index == 0 for index, _ in taken) == 6


def test_starts_cover_the_whole_volume_evenly(make_store, monkeypatch) -> None:
    source = loader(make_store())
    taken = places(source, monkeypatch)
    list(islice(source.batches(4, rng=np.random.default_rng(0)), 850))
    drawn = Counter(start for _, start in taken)
    assert sorted(drawn) == list(range(48 - 15 + 1))
    # 3,400 draws over 34 places: 100 each, four standard deviations are 40.
    assert max(abs(count - 100) for count in drawn.values()) < 40


def test_only_the_asked_split_is_drawn(make_store, monkeypatch) -> None:
    source = loader(make_store(), split="valid")
    taken = places(source, monkeypatch)
    list(islice(source.batches(2, rng=np.random.default_rng(0)), 5))
    assert {index for index, _ in taken} == {3}


def test_batch_holds_the_slabs_of_its_places(make_store) -> None:
    source = loader(make_store())
    batch = source.at([(2, 7), (0, 33)])
    assert batch.mri.shape == batch.pet.shape == batch.metaroi.shape == (2, 15, 48, 56)
    mri, pet = source.store.slab(2, 7, 15)
    np.testing.assert_array_equal(batch.mri[0].numpy(), mri)
    np.testing.assert_array_equal(batch.pet[0].numpy(), pet)
    roi = metaroi_map(source.store.template.crop)
    np.testing.assert_array_equal(batch.metaroi[1].numpy(), np.moveaxis(roi[:, :, 33:48], 2, 0))
    clinical = source.store.entries[2].clinical
    np.testing.assert_allclose(
        batch.clinical[0], [clinical["age"], 1, clinical["education"], 0, 0, 0, 0, 0, 0]
    )


def test_the_map_of_the_store_is_what_weighs(make_session, write_scan, tmp_path) -> None:
    # A user's map that is 1 from z = 0 on: network slices 20 to 47 (the crop starts at z = -57.75).
    crop = template(3.0).crop
    upper = (template(3.0).head.coordinates()[..., 2] > 0).astype(np.float32)
    own = write_scan(tmp_path / "own.nii", data=upper)
    store = prepare_store(tmp_path / "s", [make_session("ann")], spacing=3.0, metaroi=own)
    metaroi = loader(store).at([(0, 12)]).metaroi[0]
    heights = crop.origin[2] + 3.0 * np.arange(12, 27)
    np.testing.assert_array_equal(metaroi.amax(dim=(1, 2)), (heights > 0).astype(np.float32))


def test_same_generator_same_batches(make_store) -> None:
    source = loader(make_store())
    one, same, other = (next(source.batches(2, rng=np.random.default_rng(seed))).pet for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_model_without_clinical_data_gets_none(make_store) -> None:
    assert loader(make_store(), scheme="none").at([(0, 0)]).clinical is None


def test_layout_changes_and_values_stay(make_store) -> None:
    batch = loader(make_store()).at([(0, 10), (1, 11)])
    moved = batch.to("cpu", channels_last=True)
    assert moved.pet.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved.pet, batch.pet)
    assert moved.to("cpu", channels_last=False).pet.is_contiguous()


def test_split_without_a_session_and_slab_thicker_than_the_volume(make_store) -> None:
    store = make_store()
    with pytest.raises(StoreError, match="no session in split 'test'"):
        loader(store, split="test")
    with pytest.raises(StoreError, match="48 axial slices are thinner than a slab of 49"):
        loader(store, length=49)
