# SPDX-License-Identifier: Apache-2.0
"""Which stores a node serves."""

from pathlib import Path

import pytest

from client.site import Site, local_sites
from pasta_model.errors import StoreError


@pytest.fixture
def settings(tmp_path: Path, make_settings, make_store):
    make_store()
    return make_settings(data__sites=str(tmp_path / "sites"))


def test_stores_are_dealt_out_to_the_nodes(settings, make_store) -> None:
    for name in "BC":
        make_store(name)
    found = [sorted(local_sites(settings, {"partition-id": n, "num-partitions": 2})) for n in (0, 1)]
    assert found == [["A", "C"], ["B"]]


def test_more_nodes_than_sites(settings) -> None:
    assert local_sites(settings, {"partition-id": 3, "num-partitions": 4}) == {}


def test_deployed_node_names_its_own_store(settings, make_store, tmp_path: Path) -> None:
    make_store("B", root=tmp_path / "elsewhere")
    found = local_sites(settings, {"site-store": str(tmp_path / "elsewhere" / "B")})
    assert found == {"B": tmp_path / "elsewhere" / "B"}


def test_nothing_there(make_settings, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no prepared site here"):
        local_sites(make_settings(data__sites=str(tmp_path)), {"partition-id": 0, "num-partitions": 1})


def test_two_stores_of_one_site(settings, make_store, tmp_path: Path) -> None:
    make_store("A", root=tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "A").rename(tmp_path / "sites" / "again")
    with pytest.raises(StoreError, match=r"are both site 'A'; remove one"):
        local_sites(settings, {"partition-id": 0, "num-partitions": 1})


def test_other_spacing_than_the_runs(settings, make_settings) -> None:
    fine = make_settings(data__sites=settings.data.sites, data__spacing=1.5)
    with pytest.raises(StoreError, match=r"prepared at 3.0 mm, wanted 1.5 mm"):
        Site(Path(settings.data.sites) / "A", fine)
