# SPDX-License-Identifier: Apache-2.0
"""The server's peak memory at full size, by the number of sites; bytes and seconds of a round beside it.

python -m benchmarks.server_memory --sites 4 16 64

Each number of sites is a process of its own. Its sites are stand-ins that answer with an encoded update from
a file, one at a time, as Flower's grid hands replies over; everything behind that is the real server: checks,
spool, aggregation, server optimizer, moving average, encoding of the next step, and the folder on disk.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.hardware import describe
from pasta_model.checkpoint import exchanged_layout
from pasta_model.config import Settings, settings_from_flat
from pasta_model.data.clinical import SCHEMES, Moments
from pasta_model.exchange.contents import JOIN, SITES, TRAIN, NodeReport, Parcel, SiteReport, TrainReport
from pasta_model.exchange.steps import Step, encode_step
from pasta_model.exchange.vectors import float_buffers
from server.rounds import Federation


class Standins:
    """A node that serves `count` sites, all of which answer with the update in a file."""

    settle_checks = 0

    def __init__(self, settings: Settings, count: int, update: Path) -> None:
        self.settings = settings
        self.names = [f"site-{n:03d}" for n in range(count)]
        self.update = update

    def nodes(self) -> dict[int, str]:
        return {1: ""}

    def ask(
        self, parcels: Mapping[str, tuple[int, Parcel]], message_type: str
    ) -> Iterator[tuple[str, Parcel | str]]:
        for name, (_, parcel) in parcels.items():
            yield name, self._answer(name, parcel, message_type)

    def _answer(self, name: str, parcel: Parcel, message_type: str) -> Parcel:
        if message_type == SITES:
            return NodeReport(tuple(self.names)).parcel()
        if message_type == JOIN:
            zero = np.zeros(len(SCHEMES[self.settings.data.clinical].columns))
            # "holds" nothing that the server knows: one full broadcast is part of what is measured
            return SiteReport(name, 50, 5, Moments(zero, zero, zero)).parcel()
        number = int(parcel.values["round"])
        if message_type == TRAIN:
            update = Step(self.settings.exchange.uplink, load_file(self.update))
            return TrainReport(name, number, 50, 1.0, 0.2, 1.0, update).parcel()
        return TrainReport(name, number, 5, None, 0.2, 1.0, None).parcel()


def settings_for(folder: Path, words: argparse.Namespace, count: int) -> Settings:
    """Settings of a run at full size with so many sites, whose names are on the list."""
    for n in range(count):
        index = folder / "sites" / f"site-{n:03d}" / "index.json"
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_text(json.dumps({"site": f"site-{n:03d}"}))
    return settings_from_flat(
        {
            "run.output": str(folder / f"run-{count}"),
            "data.sites": str(folder / "sites"),
            "network.size": words.size,
            "federation.rounds": 2,
            "federation.join-deadline": 5.0,
            "aggregation.rule": words.rule,
            "exchange.uplink": words.codec,
            "exchange.downlink": words.codec,
        }
    )


def child(folder: Path, words: argparse.Namespace, count: int) -> None:
    """Run a federation with stand-ins and print what it took."""
    settings = settings_for(folder, words, count)
    before, start = _peak(), time.monotonic()
    progress = Federation(Standins(settings, count, folder / "update.safetensors"), settings).run()
    last = progress.history[1]
    size = 4 * sum(float_buffers(exchanged_layout(settings)).values())
    found = {
        "sites": count,
        "copies": (_peak() - before) / size,
        "peak": _peak(),
        "down": max(last.bytes_down.values()) / size,
        "up": max(last.bytes_up.values()) / size,
        "seconds": last.seconds,
        "total": time.monotonic() - start,
    }
    print(json.dumps(found))


def _peak() -> int:
    """Most bytes in memory so far. `getrusage` would begin with those of the parent: Linux inherits them."""
    (line,) = (s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def make_update(folder: Path, words: argparse.Namespace) -> None:
    """Write an update as training makes them: Gaussian, with another size in every buffer."""
    sizes = float_buffers(exchanged_layout(settings_for(folder, words, 0)))
    rng = np.random.default_rng(0)
    drawn = ((b, 1e-4 * rng.standard_normal(n, np.float32)) for b, n in sizes.items())
    save_file(encode_step(words.codec, drawn)[0].arrays, folder / "update.safetensors")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--size", default="base")
    parser.add_argument("--codec", default="int4")
    parser.add_argument("--rule", default="fedavg")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.child:
        child(words.child, words, words.sites[0])
        return
    print(describe("cpu"))
    print("| sites | peak above start, model copies | peak, GB | down, share of float32 | up | s a round |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        make_update(Path(name), words)
        for count in words.sites:
            command = [
                sys.executable,
                "-m",
                "benchmarks.server_memory",
                "--child",
                name,
                "--size",
                words.size,
            ]
            command += ["--codec", words.codec, "--rule", words.rule, "--sites", str(count)]
            answer = subprocess.run(command, capture_output=True, text=True, check=True)
            f = json.loads(answer.stdout.splitlines()[-1])
            cells = (f["copies"], f["peak"] / 1e9, f["down"], f["up"], f["seconds"])
            print(f"| {count} | " + " | ".join(f"{cell:.3g}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
