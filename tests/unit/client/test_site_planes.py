# SPDX-License-Identifier: Apache-2.0
"""A site trains on the planes that the settings name, for synthesis trusts that it did."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from client.site import Site
from pasta_model.data.clinical import Standardisation
from pasta_model.data.metaroi import metaroi_map
from pasta_model.data.planes import SLICE_AXIS
from pasta_model.data.store import SiteStore

PLAIN = Standardisation((65.0, 0.0, 14.0, 0.0, 0.0, 0.0), (10.0,) * 6)


def is_cut_from(slab: np.ndarray, volume: np.ndarray, plane: str) -> bool:
    """Whether the slab is a run of neighbouring slices of the volume in this plane."""
    turned = np.moveaxis(volume, SLICE_AXIS[plane], 0)
    if turned.shape[1:] != slab.shape[1:]:
        return False
    starts = range(len(turned) - len(slab) + 1)
    return any(np.array_equal(turned[start : start + len(slab)], slab) for start in starts)


@pytest.mark.parametrize("planes", ["axial", "coronal", "sagittal"])
def test_slabs_are_cut_in_the_plane_of_the_settings(
    make_store, make_settings, tmp_path: Path, planes: str
) -> None:
    make_store()
    settings = make_settings(data__planes=planes, data__sites=str(tmp_path / "sites"))
    loader = Site(tmp_path / "sites" / "A", settings)._loader("train", PLAIN)
    batch = next(loader.batches(1, rng=np.random.default_rng(0)))
    store = SiteStore(tmp_path / "sites" / "A")
    for number, slab in enumerate((batch.mri, batch.pet)):
        stored = [store.slab(i, 0, store.slices)[number] for i in store.indices("train")]
        assert any(is_cut_from(slab[0].numpy(), volume, planes) for volume in stored)


def test_all_planes_are_drawn_evenly_and_each_with_its_metaroi(
    make_store, make_settings, tmp_path: Path
) -> None:
    make_store()
    settings = make_settings(data__planes="all", data__sites=str(tmp_path / "sites"))
    loader = Site(tmp_path / "sites" / "A", settings)._loader("train", PLAIN)
    batches = loader.batches(1, rng=np.random.default_rng(0))
    whole = np.moveaxis(metaroi_map(loader.store.template.crop), 2, 0)
    found = Counter()
    for batch in (next(batches) for _ in range(90)):
        slab = batch.metaroi[0].numpy()
        fitting = [plane for plane in SLICE_AXIS if is_cut_from(slab, whole, plane)]
        assert fitting
        found[fitting[0]] += len(fitting) == 1
    assert min(found[plane] for plane in SLICE_AXIS) > 10
