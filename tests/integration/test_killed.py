# SPDX-License-Identifier: Apache-2.0
"""Killed with SIGKILL at random moments, many times: the run goes on and ends as if nothing had been.

`PASTA_KILL_SEED` gives other moments than the usual ones, `PASTA_KILLS` more of them.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from server.rounds import Federation
from simulation.consortium import RUN, SUPERLINK, LocalConsortium
from simulation.direct import DirectPost
from tests.support.killable import harassed, undisturbed
from tests.support.runs import TWINS, assert_same_run, audit, build_bundle, events, prepare_sites

SEED = int(os.environ.get("PASTA_KILL_SEED", "2026"))
KILLS = int(os.environ.get("PASTA_KILLS", "12"))
LONGEST_S = 15.0
ASKED = "site asked"
SMALLEST = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"
EVERYTHING: dict[str, bool | float | str] = {
    "aggregation__rule": "fedadam",
    "aggregation__learning_rate": 1e-3,
    "exchange__uplink": "int8",
    "exchange__downlink": "int4",
    "exchange__personal": "norms",
}

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def sites(make_store: Callable[..., SiteStore]) -> Path:
    for name in ("alder", "birch"):
        store = make_store(name)
    return store.path.parent


@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["plain", "everything"])
def test_killed_federation_ends_as_if_nothing_had_been(
    sites: Path,
    tmp_path: Path,
    make_settings: Callable[..., Settings],
    changes: dict[str, bool | float | str],
) -> None:
    def settings(name: str) -> dict[str, bool | int | float | str]:
        quick: dict[str, bool | float | str] = {
            "run__name": name,
            "run__output": str(tmp_path / name),
            "run__resume": True,
            "data__sites": str(sites),
            "network__shape": SMALLEST,
            "sampling__hop": 4,
            "training__local_steps": 1,
            "federation__rounds": 4,
        }
        return make_settings(**(quick | changes)).flat()

    random, kills, runs = Random(SEED), 0, 0
    longest = undisturbed(settings("undisturbed"))
    while kills < KILLS:
        name = f"killed-{runs}"
        with seed_told():
            kills += harassed(settings(name), random=random, longest_s=longest)
            assert_same_run(tmp_path / name, tmp_path / "undisturbed")
            assert half_written(tmp_path / name, sites) == []
        shutil.rmtree(tmp_path / name)
        runs += 1


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two prepared sites."""
    stores = prepare_sites(tmp_path_factory.mktemp("twins"))
    shutil.rmtree(stores.pop("cedar"))
    return stores


def test_killed_deployment_ends_as_if_nothing_had_been(
    twins: dict[str, Path],
    tmp_path: Path,
    make_settings: Callable[..., Settings],
    left_behind: Callable[[], list[str]],
) -> None:
    """A site, the ServerApp and SuperLink are killed while they work; the same commands go on."""
    random = Random(SEED)

    def settings(name: str) -> Settings:
        return make_settings(
            run__name=name,
            run__output=str(tmp_path / name),
            data__sites=str(twins["alder"].parent),
            training__local_steps=1,
            training__threads=1,
            federation__rounds=2,
            federation__min_sites=2,
            federation__join_deadline=300.0,
            federation__patience=300.0,
        )

    direct = settings("direct")
    Federation(DirectPost(direct, {"partition-id": 0, "num-partitions": 1}), direct).run()
    output = tmp_path / "killed"
    with seed_told(), LocalConsortium(tmp_path / "loopback", twins, policy=TWINS) as consortium:
        bundle = build_bundle(tmp_path / "bundle")
        for site in twins:
            consortium.approve(site, bundle)
            consortium.start_site(site)
        consortium.wait_online(list(twins))

        run = consortium.start_run(settings("killed"))
        at_work(output, run, random, asked=0)
        consortium.kill("birch")
        with suppress(ProcessLookupError):  # where it was so fast as to have ended
            os.kill(json.loads((output / "status.json").read_text())["pid"], signal.SIGKILL)
        consortium.kill(RUN)
        asked = len(events(output, ASKED))
        run = consortium.start_run(settings("killed"))
        consortium.revive("birch")

        at_work(output, run, random, asked=asked)
        consortium.kill(SUPERLINK)
        assert run.wait() in (0, 2), consortium.log(RUN).read_text()
        consortium.start_superlink()

        consortium.run(settings("killed"))
        assert_same_run(output, tmp_path / "direct")
        assert half_written(output, *twins.values()) == []
        for site in twins:
            assert audit(consortium.kit(site))
    assert left_behind() == []


def at_work(output: Path, run: subprocess.Popen[bytes], random: Random, *, asked: int) -> None:
    """Wait until sites were asked to train more often than so, and a random while longer."""
    while len(events(output, ASKED)) <= asked:
        assert run.poll() is None, "it ended"
        time.sleep(0.05)
    time.sleep(random.uniform(0, LONGEST_S))


@contextmanager
def seed_told() -> Iterator[None]:
    """Name the seed with whatever goes wrong."""
    try:
        yield
    except Exception as error:
        error.add_note(f"PASTA_KILL_SEED={SEED} gives these moments again")
        raise


def half_written(*folders: Path) -> list[Path]:
    """What a killed process left and nobody cleared."""
    return [path for folder in folders for path in folder.rglob(".partial-*")]
