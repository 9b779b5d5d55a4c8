# SPDX-License-Identifier: Apache-2.0
"""A real Flower simulation: SuperLink, Ray, ServerApp and ClientApps, against the same run without them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pasta_model.checkpoint import load_checkpoint, new_network
from pasta_model.config import Settings
from pasta_model.errors import FederationError
from server.rounds import Federation
from simulation.direct import DirectPost
from simulation.federation import run_simulation
from tests.support.runs import SITES, assert_same_run, history, prepare_sites

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three prepared sites of six digital twins each."""
    return prepare_sites(tmp_path_factory.mktemp("twins"))["alder"].parent


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
    # Bit for bit: one core a node in both, float32, sites added in the order of their names.
    assert_same_run(tmp_path / "flower", tmp_path / "direct")
    rounds = history(tmp_path / "flower")
    assert [record["round"] for record in rounds] == [0, 1, 2]
    assert [sorted(record["loss"]) for record in rounds] == [list(SITES), list(SITES), []]
    assert [sorted(record["valid_mae"]) for record in rounds] == [list(SITES)] * 3
    assert all(record["failures"] == {} for record in rounds)
    initial = new_network(flower).state_dict()
    last = load_checkpoint(tmp_path / "flower" / "last.safetensors").state
    assert not all(torch.equal(last[key], initial[key]) for key in initial), "nothing was learnt"


def test_run_that_cannot_start_is_an_error_with_its_reason(
    run_settings: Callable[..., Settings], tmp_path: Path, left_behind: Callable[[], list[str]]
) -> None:
    settings = run_settings("lost", federation__min_sites=4)
    with pytest.raises(FederationError) as error:
        run_simulation(ROOT, run_config=settings.flat(), nodes=1, state=tmp_path / "state")
    assert left_behind() == []
    assert "the federation's run ended as 'finished:failed'" in str(error.value)
    log = (tmp_path / "state" / "flower.log").read_text()
    said = "3 site(s) joined (alder, birch, cedar), wanted at least 4"
    assert said in log
    status = json.loads((tmp_path / "lost" / "status.json").read_text())
    assert (status["state"], status["rounds"]) == ("failed", 2)
    assert status["why"].startswith(said)
    assert not (tmp_path / "lost" / "settings.json").exists(), "no run was begun"


def test_run_to_which_nobody_is_invited_is_an_error_with_its_reason(
    run_settings: Callable[..., Settings], tmp_path: Path, left_behind: Callable[[], list[str]]
) -> None:
    (tmp_path / "nothing").mkdir()
    settings = run_settings("lost", data__sites=str(tmp_path / "nothing"))
    with pytest.raises(FederationError, match="nobody is invited"):
        run_simulation(ROOT, run_config=settings.flat(), nodes=1, state=tmp_path / "state")
    assert left_behind() == []
    log = (tmp_path / "state" / "flower.log").read_text()
    assert "data.sites must hold prepared sites" in log
    assert "Traceback" not in log
