# SPDX-License-Identifier: Apache-2.0
"""A round's bytes, seconds and memory at full size: a consortium of ours beside plain Flower.

python -m benchmarks.transport /path/of/two/prepared/stores

Real processes on loopback, one way of working after the other, two sites each. Plain Flower is Flower as its
examples use it: FedAvg over the state dict, training and evaluation in every round, no TLS, the SuperLink's
state in memory (its default) or, as a consortium needs it, in a database. Ours: nginx with mutual TLS,
SuperLink with TLS, node authentication and database, the sites' guards and logs. Training is Gaussian noise
everywhere: what is left is transport. The first round of each, which starts up, is left out.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.hardware import describe
from benchmarks.meter import ROLES, Meter
from pasta_model.checkpoint import exchanged_layout
from pasta_model.config import Settings, settings_from_flat
from server.deployment.flower import Flower, follow_run, quiet_environment, run_command, script, to_toml
from server.deployment.processes import free_port, stop_trees
from simulation.consortium import LocalConsortium

ROOT = Path(__file__).parents[1]
PLAIN, DATABASE = "plain", "plain, database"
ROUNDS = 3
MB = 1e6

# Put behind the real functions in a copy of the repository: the sites approve that copy's bundle.
NO_TRAINING = '''

@torch.no_grad()
def train_steps(translator, loader, optimizer, *, settings, place, on_step=None):
    """Stand in for training: add small Gaussian noise."""
    generator = torch_generator(settings.run.seed, "noise", place.site, place.round)
    for parameter in translator.network.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=1e-4)
    return 1.0
'''
NO_VALIDATION = '''

def validation_mae(translator, loader, *, settings):
    """Stand in for validation."""
    return 0.2
'''


@dataclass
class Found:
    """What one way of working took: the ends of its rounds, its traffic, its processes."""

    ends: list[float]
    meter: Meter
    weights: tuple[float, float]  # bytes of weights alone, down and up, a site and round

    @property
    def seconds(self) -> float:
        """Median of the rounds after the first."""
        return statistics.median(b - a for a, b in zip(self.ends[1:], self.ends[2:], strict=False))

    @property
    def wire(self) -> tuple[float, float]:
        """Bytes down and up, a site and round, as the SuperLink counted them."""
        first, last = self.meter.traffic_until(self.ends[1]), self.meter.traffic_until(self.ends[-1])
        rounds = len(self.ends) - 2
        down, up = ((b - a) / rounds / 2 for a, b in zip(first, last, strict=True))
        return down, up


class Consortium(LocalConsortium):
    """A consortium whose runs take their app from a folder of our own."""

    app = ROOT

    def roots(self) -> list[int]:
        """Return the processes that were started."""
        return [process.pid for process in list(self._running.values())]

    def start_run(self, settings: Settings, *, name: str = "run") -> subprocess.Popen[bytes]:
        path = self.folder / f"{name}.toml"
        path.write_text(to_toml(settings.flat()), encoding="utf-8")
        words = ["run", str(path), "--consortium", str(self.house), "--app", str(self.app)]
        return self._start(name, [script("pasta-server"), *words])


def noise_app(folder: Path) -> Path:
    """Copy the app without its training and validation."""
    for name in ("client", "pasta_model", "server", "simulation"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name, text in (("training.py", NO_TRAINING), ("validation.py", NO_VALIDATION)):
        with (folder / "pasta_model" / name).open("a", encoding="utf-8") as file:
            file.write(text)
    return folder


def ours(work: Path, stores: Mapping[str, Path], words: argparse.Namespace, codec: str) -> Found:
    """Run a federation through everything."""
    app = noise_app(work / "app")
    subprocess.run([script("flwr"), "build", "--app", str(app)], cwd=work, check=True, capture_output=True)
    (bundle,) = work.glob("*.fab")
    settings = settings_from_flat(
        {
            "run.name": f"transport-{codec}",
            "run.output": str(work / "run"),
            "data.sites": str(next(iter(stores.values())).parent),
            "network.size": words.size,
            "exchange.uplink": codec,
            "exchange.downlink": codec,
            "federation.rounds": ROUNDS,
            "federation.min-sites": len(stores),
            "federation.join-deadline": 600.0,
        }
    )
    policy = {"min-subjects": "1", "metrics-min-subjects": "1"}
    with Consortium(work / "consortium", stores, policy=policy, size=words.size) as consortium:
        consortium.app = app
        for site in stores:
            consortium.approve(site, bundle)
            consortium.start_site(site)
        consortium.wait_online(list(stores))
        with Meter(consortium.roots, consortium.deployment.flower) as meter:
            consortium.run(settings)
    events = [json.loads(line) for line in (work / "run" / "events.jsonl").read_text().splitlines()]
    ends = [event["time"] for event in events if event["event"] in ("started", "round done")]
    history = [json.loads(line) for line in (work / "run" / "history.jsonl").read_text().splitlines()]
    told = [history[n][way] for way in ("bytes_down", "bytes_up") for n in range(1, ROUNDS)]
    down, up = (
        statistics.mean(v for record in part for v in record.values())
        for part in (told[: ROUNDS - 1], told[ROUNDS - 1 :])
    )
    return Found(ends, meter, (down, up))


@contextmanager
def plain_flower(work: Path, *, database: bool) -> Iterator[tuple[Flower, list[int]]]:
    """Start a SuperLink and two SuperNodes as the examples' README says; stop them at the end."""
    work.mkdir(parents=True)
    address = f"127.0.0.1:{free_port()}"
    flower = Flower(state=work, address=address, environment=quiet_environment(work))
    flower.write_connection()
    kept = ["--database", str(work / "state.db")] if database else []
    link = [script("flower-superlink"), "--insecure", "--port", address.rpartition(":")[2], *kept]
    with ExitStack() as stack:
        log = stack.enter_context((work / "processes.log").open("wb"))

        def start(command: list[str]) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=work, env=flower.environment, start_new_session=True
            )
            stack.callback(stop_trees, [process])
            return process

        processes = [start(link)]
        flower.wait_until_healthy(processes[0])
        for part in range(2):
            node = [script("flower-supernode"), "--insecure", "--superlink", address]
            told = f"partition-id={part} num-partitions=2"
            processes.append(start([*node, "--port", str(free_port()), "--node-config", told]))
        yield flower, [process.pid for process in processes]


def plain(work: Path, words: argparse.Namespace, *, database: bool) -> Found:
    """Run plain Flower."""
    marks, run = work / "marks.jsonl", work / "run.toml"
    with plain_flower(work, database=database) as (flower, pids):
        values = {"size": words.size, "marks": str(marks), "output": str(work / "final_model.pt")}
        run.write_text(to_toml(values | {"num-server-rounds": ROUNDS}), encoding="utf-8")
        with Meter(lambda: pids, flower) as meter:
            follow_run(flower, run_command(ROOT / "benchmarks" / "plain_flower", run), lambda _: None)
    ends, size = (
        [json.loads(line)["time"] for line in marks.read_text().splitlines()],
        model_bytes(words.size),
    )
    return Found(ends, meter, (2 * size, size))


def model_bytes(size: str) -> int:
    """Bytes of a network's weights."""
    layout = exchanged_layout(settings_from_flat({"network.size": size}))
    return 4 * sum(layout.sizes().values())


def figures(found: Found) -> dict[str, float]:
    """Numbers of a way of working, by what they are."""
    meter = found.meter
    node = max(meter.peak("SuperNode"), meter.peak("SuperNode, guarded"))
    return {
        "down, MB a site and round": found.wire[0] / MB,
        "up, MB a site and round": found.wire[1] / MB,
        "weights alone, down": found.weights[0] / MB,
        "weights alone, up": found.weights[1] / MB,
        "seconds a round": found.seconds,
        "server app, peak MB": meter.peak("server app") / MB,
        "SuperLink, peak MB": meter.peak("SuperLink") / MB,
        "SuperNode, peak MB": node / MB,
        "client app, peak MB": meter.peak("client app") / MB,
        "all processes at once, peak MB": meter.together / MB,
        "processor seconds, whole run": sum(meter.processor_seconds(role) for role in (*ROLES, "other")),
    }


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return the numbers and, in brackets, their ratio to the first way's."""
    first = next(iter(rows.values()))
    lines = ["| | " + " | ".join(rows) + " |", "|---" * (1 + len(rows)) + "|"]
    for name in first:
        cells = [f"{row[name]:.4g} ({row[name] / first[name]:.3g})" for row in rows.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def details(name: str, found: Found) -> dict[str, Any]:
    """Return what is not in the table."""
    spent = {role: found.meter.processor_seconds(role) for role in (*ROLES, "other")}
    rounds = [round(b - a, 1) for a, b in zip(found.ends, found.ends[1:], strict=False)]
    return {"way": name, "rounds": rounds, "processor seconds": {r: s for r, s in spent.items() if s}}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stores", type=Path, help="a folder with two prepared stores; they are copied")
    parser.add_argument("--size", default="base")
    parser.add_argument("--ways", nargs="+", default=[PLAIN, DATABASE, "float32", "int4"])
    parser.add_argument("--work", type=Path, help="where to work (some GB); by default a temporary folder")
    parser.add_argument("--keep", action="store_true", help="leave what the runs wrote")
    words = parser.parse_args()
    print(f"{describe('cpu')}; a model is {model_bytes(words.size) / MB:.4g} MB\n", flush=True)
    rows: dict[str, dict[str, float]] = {}
    name = tempfile.mkdtemp(prefix="transport-", dir=words.work)
    try:
        for way in words.ways:
            work = Path(name) / way.replace(", ", "-")
            if way in (PLAIN, DATABASE):
                found = plain(work, words, database=way == DATABASE)
            else:
                work.mkdir()
                found = ours(work, copied(words.stores, work / "stores"), words, way)
            rows[way] = figures(found)
            print(json.dumps(details(way, found) | rows[way]), flush=True)
            if not words.keep:
                shutil.rmtree(work)
    finally:
        if not words.keep:
            shutil.rmtree(name)
    print(f"\n{table(rows)}")


def copied(stores: Path, folder: Path) -> dict[str, Path]:
    """Copy two stores without what sites remember of earlier runs."""
    names = sorted(path.parent.name for path in stores.glob("[!.]*/index.json"))[:2]
    for name in names:
        shutil.copytree(stores / name, folder / name, ignore=shutil.ignore_patterns("state"))
    return {name: folder / name for name in names}


if __name__ == "__main__":
    main()
