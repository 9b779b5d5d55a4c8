# SPDX-License-Identifier: Apache-2.0
"""Every benchmark of a machine, in calls of a few minutes: run it again until it says that all is done.

Run: python -m benchmarks.run FOLDER --device cuda --minutes 9 --train-minutes 12
Each stage goes on where an earlier call stopped it. On a GPU `base` is trained on twins of 1.5 mm, on a CPU
`small` on twins of 3 mm. Tables and pictures go into FOLDER/RESULTS.md and beside it.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import typer

from benchmarks import privacy, private_step, quality, synthesis, training_step
from pasta_model.console import run_command
from pasta_model.errors import ConfigError
from pasta_model.files import write_json, write_text

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
GRACE = 30.0  # seconds that a stage has to end after it was asked to


def stages(folder: Path, device: str) -> dict[str, list[str]]:
    """Return the command of each stage, in order; training ends by its time, the others by themselves."""
    gpu = device.startswith("cuda")
    model = str(folder / "model" / "model.safetensors")
    train = ["benchmarks.train", str(folder), "--device", device, "--dtype", "auto"]
    if gpu:
        train += ["--size", "base", "--spacing", "1.5", "--batch-size", "8", "--learning-rate", "2e-4"]
        train += ["--cycle", "--local-steps", "200"]
    scores = ["benchmarks.quality", model, str(folder), "--device", device]
    repeats = ["--repeats", "5"] if gpu else []
    timed = {
        name: [f"benchmarks.{name}", "--device", device, "--output", str(folder / f"{name}.json"), *repeats]
        for name in ("training_step", "synthesis", "private_step")
    }
    timed["synthesis"] += ["--slabs", "8" if gpu else "1"]
    timed["training_step"] += ["--batch-size", "8"] if gpu else []
    return {
        **timed,
        "twins": [*train, "--prepare-only"],
        "train": [*train, "--rounds", "20" if gpu else "40"],
        "quality": [*scores, "--subjects", "0-1"],
        "quality of more subjects": [*scores, "--subjects", "2-9", "--few"],
        "pictures": ["benchmarks.pictures", model, str(folder), "--output", str(folder), "--device", device],
        # a small network on 3 mm: nothing for a GPU to do
        **({} if gpu else {"privacy": ["benchmarks.privacy", str(folder / "privacy")]}),
    }


def run_stage(command: list[str], seconds: float) -> bool:
    """Run a stage for at most so long; whether it came to its end."""
    process = subprocess.Popen([sys.executable, "-m", *command])
    try:
        code = process.wait(timeout=max(1.0, seconds - GRACE))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return False
    if code:
        print(f"{' '.join(command)} ended with status {code}; its rows say 'not measured'", flush=True)
    return True


def read_state(note: Path, device: str) -> dict[str, Any]:
    """Return what is done, and how many seconds were trained.

    Raises
    ------
    ConfigError
        When the folder holds another device's results.
    """
    if not note.is_file():
        return {"device": device, "done": [], "trained": 0.0}
    state: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    if state["device"] != device:
        raise ConfigError(f"{note}: results of {state['device']}; choose another folder for {device}")
    return state


@app.command()
def main(folder: Path, *, device: str = "cpu", minutes: float = 9.0, train_minutes: float = 12.0) -> None:
    """Go on with the benchmarks for so many minutes."""
    start, note = time.monotonic(), folder / "stages.json"
    folder.mkdir(parents=True, exist_ok=True)
    state = read_state(note, device)
    for name, command in stages(folder, device).items():
        left = 60 * minutes - (time.monotonic() - start)
        if name in state["done"]:
            continue
        if left < 2 * GRACE:
            break
        print(f"== {name}", flush=True)
        training = name == "train"
        if training:
            left = min(left, 60 * train_minutes - state["trained"])
        begun = time.monotonic()
        ended = run_stage(command, left)
        if training:
            state["trained"] += time.monotonic() - begun
            ended = ended or state["trained"] >= 60 * train_minutes - 2 * GRACE
        if ended:
            state["done"].append(name)
        write_json(note, state)
    write_text(folder / "RESULTS.md", results(folder, device))
    whole = len(state["done"]) == len(stages(folder, device))
    print("all done" if whole else "not all done yet: run the same command again", flush=True)


def results(folder: Path, device: str) -> str:
    """Return all tables of a folder as Markdown."""
    parts = ["# Results of one machine"]
    told = {"training_step": training_step, "synthesis": synthesis, "private_step": private_step}
    for name, module in told.items():
        file = folder / f"{name}.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        said = module.table(found) if found else "not measured"
        parts.append(f"## `python -m benchmarks.{name} --device {device}`\n\n{said}")
    cells = quality.read_rows(folder / "cells.jsonl")
    said = quality.table(cells) if cells else "not measured"
    parts.append(f"## Quality: `python -m benchmarks.quality`\n\n{said}")
    own = folder / "privacy"
    said = privacy.whole_table(own) if (own / "results").is_dir() else "not measured"
    parts.append(f"## Privacy: `python -m benchmarks.privacy`\n\n{said}")
    parts += [f"![{p.stem}]({p.name})" for p in sorted(folder.glob("*.png"))]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    run_command(app)
