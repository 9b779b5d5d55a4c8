# SPDX-License-Identifier: Apache-2.0
"""Pooled slabs: those of one store are PASTA's own; of several, everybody's, and as often."""

from itertools import islice

import numpy as np
import pytest
import torch

from pasta_model.data.clinical import SCHEMES, Moments, clinical_table
from pasta_model.data.slabs import SlabLoader
from pasta_model.data.store import prepare_store
from pasta_model.errors import StoreError
from simulation.rivals.pool import Pool, joined


@pytest.mark.parametrize("planes", ["axial", "all"])
def test_one_store_gives_the_slabs_that_pasta_sees(make_store, quick, planes) -> None:
    store, settings = make_store("A"), quick(data__planes=planes)
    pool = Pool([store.path], settings)
    loader = SlabLoader(
        store,
        split="train",
        slab_slices=5,
        scheme=SCHEMES["adni"],
        standardisation=pool.standardisation,
        planes=planes,
    )
    ours, theirs = (source.batches(2, rng=np.random.default_rng(4)) for source in (pool, loader))
    for found, wanted in islice(zip(ours, theirs, strict=True), 6):
        for name in ("mri", "pet", "metaroi", "clinical"):
            assert torch.equal(getattr(found, name), getattr(wanted, name))
    assert pool.name == "A"


def test_persons_of_all_sites_come_once_before_any_comes_again(stores, quick) -> None:
    pool = Pool(stores[::-1], quick(data__clinical="demographics"))
    assert pool.name == "A+B", "the order in which stores are named changes nothing"
    drawn = pool.batches(3, rng=np.random.default_rng(0))
    # Ages and education tell who it is: all six training subjects differ.
    rows = [tuple(row.tolist()) for batch in islice(drawn, 4) for row in batch.clinical]
    assert len(set(rows[:6])) == len(set(rows[6:])) == 6
    assert set(rows[:6]) == set(rows[6:])


def test_standardisation_is_that_of_one_table(stores, quick) -> None:
    pool = Pool(stores, quick())
    scheme = SCHEMES["adni"]
    rows = [s.entries[i].clinical for s in pool.stores for i in range(4) if s.entries[i].split == "train"]
    wanted = Moments.of(clinical_table(rows, scheme)).standardisation()
    np.testing.assert_allclose(pool.standardisation.mean, wanted.mean)
    np.testing.assert_allclose(pool.standardisation.spread, wanted.spread)


def test_shares_count_training_persons(make_store, make_session, tmp_path, quick) -> None:
    make_store("A")
    alone = prepare_store(tmp_path / "sites" / "B", [make_session("sub-B1", site="B")], spacing=3.0)
    pool = Pool([tmp_path / "sites" / "A", alone.path], quick())
    assert pool.shares() == {"A": 0.75, "B": 0.25}
    assert [loader.store.site for loader in pool.validating()] == ["A"]
    assert [loader.store.site for loader in Pool([alone.path], quick()).validating()] == ["B"]


def test_all_that_cannot_be_pooled_is_named_at_once(make_store, make_session, tmp_path, quick) -> None:
    make_store("A")
    make_store("A", root=tmp_path / "again")
    tested = [make_session("sub-C1", site="C", split="test")]
    prepare_store(tmp_path / "C", tested, spacing=3.0)
    paths = [tmp_path / "sites" / "A", tmp_path / "again" / "A", tmp_path / "C"]
    with pytest.raises(StoreError) as refused:
        Pool(paths, quick(data__spacing=1.5))
    said = str(refused.value)
    assert "5 problem(s)" in said
    assert "2 stores are of site 'A'" in said
    assert said.count("is prepared at 3.0 mm, wanted 1.5 mm") == 3
    assert "site C has no training session" in said
    with pytest.raises(StoreError, match="found no store, wanted at least one"):
        Pool([], quick())


def test_joined_batches_keep_their_order(stores, quick) -> None:
    loader = Pool(stores, quick()).training()[0]
    both = joined([loader.at([(0, 3)]), loader.at([(1, 7)])])
    wanted = loader.at([(0, 3), (1, 7)])
    assert torch.equal(both.pet, wanted.pet)
    assert torch.equal(both.clinical, wanted.clinical)
    without = Pool(stores, quick(data__clinical="none")).training()[0]
    assert joined([without.at([(0, 0)])] * 2).clinical is None
