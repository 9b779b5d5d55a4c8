# SPDX-License-Identifier: Apache-2.0
"""A real Flower simulation: SuperLink, Ray, ServerApp and ClientApps, against the same run without them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pasta_model.checkpoint import load_checkpoint, new_network
from pasta_model.config import Settings
from pasta_model.data.manifest import read_manifest
from pasta_model.data.splits import apply_splits, assign_splits
from pasta_model.data.store import prepare_store
from pasta_model.errors import FederationError
from server.rounds import Federation
from simulation.direct import DirectPost
from simulation.federation import run_simulation
from simulation.twins.cohort import build_cohort
from tests.integration.conftest import COHORT

ROOT = Path(__file__).parents[2]
SITES = ["alder", "birch", "cedar"]

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three prepared sites of six digital twins each."""
    root = tmp_path_factory.mktemp("twins")
    tables = build_cohort(COHORT, root / "cohort", workers=1)
    sessions = [session for table in tables for session in read_manifest(table)]
    split = apply_splits(sessions, assign_splits(sessions, seed=COHORT.seed))
    for site in SITES:
        prepare_store(root / "sites" / site, [s for s in split if s.site == site], spacing=3.0)
    return root / "sites"


@pytest.fixture
def run_settings(
    sites: Path, tmp_path: Path, make_settings: Callable[..., Settings]
) -> Callable[[str], Settings]:
    """Settings of two rounds of one step; the name keeps what a site remembers of each run apart."""

    def make(name: str, **changes: bool | float | str) -> Settings:
        own: dict[str, bool | float | str] = {
            "run__name": name,
            "run__output": str(tmp_path / name),
            "data__sites": str(sites),
            "training__local_steps": 1,
            "training__threads": 1,  # Ray gives a node one core
            "federation__min_sites": 3,
            "federation__join_deadline": 20.0,
        }
        return make_settings(**(own | changes))

    return make


def test_two_nodes_train_three_sites_to_the_weights_of_a_run_without_flower(
    run_settings: Callable[..., Settings], tmp_path: Path, left_behind: Callable[[], list[str]]
) -> None:
    flower, direct = run_settings("flower"), run_settings("direct")
    lines: list[str] = []
    run_simulation(ROOT, run_config=flower.flat(), nodes=2, state=tmp_path / "state", on_line=lines.append)
    assert left_behind() == []
    assert [n for n in (1, 2) if any(f"round {n} of 2 done" in line for line in lines)] == [1, 2]

    Federation(DirectPost(direct, {"partition-id": 0, "num-partitions": 1}), direct).run()
    histories = []
    for output in (tmp_path / "flower", tmp_path / "direct"):
        history = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
        assert [record["round"] for record in history] == [0, 1, 2]
        assert [sorted(record["loss"]) for record in history] == [SITES, SITES, []]
        assert [sorted(record["valid_mae"]) for record in history] == [SITES] * 3
        assert all(record["failures"] == {} for record in history)
        histories.append([(r["loss"], r["valid_mae"], r["shares"]) for r in history])
    assert histories[0] == histories[1]
    initial = new_network(flower).state_dict()
    for name in ("model", "last", "average"):
        # Bit for bit: one core a node in both, float32, sites added in the order of their names.
        found, wanted = (
            load_checkpoint(tmp_path / run / f"{name}.safetensors") for run in ("flower", "direct")
        )
        assert found.round == wanted.round
        assert found.standardisation == wanted.standardisation
        assert found.state.keys() == initial.keys()
        assert all(torch.equal(found.state[key], wanted.state[key]) for key in initial), name
    last = load_checkpoint(tmp_path / "flower" / "last.safetensors").state
    assert not all(torch.equal(last[key], initial[key]) for key in initial), "nothing was learnt"


def test_run_that_cannot_start_is_an_error_with_its_reason(
    run_settings: Callable[..., Settings], tmp_path: Path, left_behind: Callable[[], list[str]]
) -> None:
    (tmp_path / "nothing").mkdir()
    settings = run_settings("lost", data__sites=str(tmp_path / "nothing"))
    with pytest.raises(FederationError) as error:
        run_simulation(ROOT, run_config=settings.flat(), nodes=1, state=tmp_path / "state")
    assert left_behind() == []
    assert "the federation's run ended as 'finished:failed'" in str(error.value)
    log = (tmp_path / "state" / "flower.log").read_text()
    assert "0 site(s) joined (none), wanted at least 3" in log
    assert "no prepared site here" in log, "a site's own log says why it refused"
    assert not (tmp_path / "lost").exists()
