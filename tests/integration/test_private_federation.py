# SPDX-License-Identifier: Apache-2.0
"""A private federation, killed in the middle of a private step: what was released is what was counted."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opacus.accountants import RDPAccountant

from client.people import default_ledger, open_ledger
from client.private import TRAINING
from client.spending import Limit
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from tests.support.runs import SITES, history, prepare_sites

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SMALLEST = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"
ROUNDS, STEPS = 2, 3
FEDERATE = """
import json, os, signal, sys
import client.private
from tests.support.killable import federate

real = client.private.private_steps

def at_the_worst_moment(*arguments, place, **words):
    loss = real(*arguments, place=place, **words)
    if (place.site, place.round) == (sys.argv[1], 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return loss

client.private.private_steps = at_the_worst_moment
federate(json.loads(sys.argv[2]))
"""

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three prepared sites of six digital twins each."""
    return prepare_sites(tmp_path_factory.mktemp("twins"))


@pytest.fixture
def settings(sites: dict[str, Path], tmp_path: Path, make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(
        run__output=str(tmp_path / "run"),
        run__resume=True,
        data__sites=str(sites["alder"].parent),
        network__shape=SMALLEST,
        sampling__hop=4,
        training__local_steps=STEPS,
        training__threads=1,
        federation__rounds=ROUNDS,
        federation__min_sites=3,
        privacy__unit="subject",
        privacy__epsilon=6.0,
        privacy__delta=1e-3,
        privacy__subjects_per_step=2,
        privacy__slabs_per_subject=1,
        privacy__accountant="rdp",
    )


def federate(settings: Settings, *, kill: str = "") -> int:
    """Run it to the end, or until it dies at this site in the last round; return the exit status."""
    words = [sys.executable, "-c", FEDERATE, kill, json.dumps(settings.flat())]
    return subprocess.run(words, cwd=ROOT, check=False).returncode


def lines(store: Path, event: str) -> list[dict[str, Any]]:
    entries = map(json.loads, default_ledger(store).read_text().splitlines())
    return [entry for entry in entries if entry["event"] == event]


def budget(store: Path) -> dict[str, Any]:
    words = [str(BIN / "pasta-client"), "budget", str(store), "--json"]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def test_what_was_released_is_what_was_counted(
    sites: dict[str, Path], settings: Settings, tmp_path: Path
) -> None:
    killed = "birch"
    assert federate(settings, kill=killed) == -signal.SIGKILL
    # The step was made, and its update never left: it is reserved, and counts already.
    assert [len(lines(sites[killed], event)) for event in ("reserved", "released")] == [2, 1]
    assert [len(lines(sites["alder"], event)) for event in ("reserved", "released")] == [2, 2]
    assert [len(lines(sites["cedar"], event)) for event in ("reserved", "released")] == [1, 1]

    assert federate(settings) == 0
    rounds = history(tmp_path / "run")
    assert [record["round"] for record in rounds] == [0, 1, 2]
    assert [sorted(record["shares"]) for record in rounds[:2]] == [list(SITES)] * 2
    assert all(record["failures"] == {} for record in rounds)
    assert [record["loss"] for record in rounds] == [{}] * 3
    assert [record["valid_mae"] for record in rounds] == [{}] * 3
    for path in sites.values():
        check_account(path, settings)

    before = {site: default_ledger(path).read_bytes() for site, path in sites.items()}
    assert federate(settings) == 0  # asked to go on once more: nothing is left to do, and nothing is spent
    assert {site: default_ledger(path).read_bytes() for site, path in sites.items()} == before


def check_account(path: Path, settings: Settings) -> None:
    """The ledger has the plan, no more and no less, and whoever asks gets the same number."""
    store = SiteStore(path)
    ledger, trained = open_ledger(default_ledger(path), store), store.persons("train")
    (plan,) = ledger.plans.values()
    assert plan["subjects"] == len(trained)
    assert [s.mechanism for s in ledger.spendings] == [TRAINING] * ROUNDS
    assert [len(lines(path, event)) for event in ("reserved", "released")] == [ROUNDS, ROUNDS]

    accountant = RDPAccountant()
    for _ in range(ROUNDS * STEPS):
        accountant.step(noise_multiplier=plan["noise_multiplier"], sample_rate=2 / len(trained))
    wanted = accountant.get_epsilon(delta=1e-3)
    limit = Limit(settings.privacy.epsilon, settings.privacy.delta, accountant="rdp")
    spent = ledger.spent(trained, limit)
    assert spent == pytest.approx(wanted, rel=1e-9)
    assert spent == plan["epsilon"]
    assert 5.9 < spent <= settings.privacy.epsilon

    told = budget(path)
    assert told["spent"]["those who train"][1] == spent
    (row,) = told["rows"]
    assert (row["rounds"], row["steps"]) == (ROUNDS, ROUNDS * STEPS)
    assert row["noise_multiplier"] == plan["noise_multiplier"]
    assert (told["delta"], told["hash"]) == (1e-3, ledger.chain.hash)
