# SPDX-License-Identifier: Apache-2.0
"""A CycleEx training step against the plain version of the same network: time, memory, share of the peak.

Run: python -m benchmarks.training_step --size base
Every variant runs in a process of its own, so that its memory is its own; ratios are to the first.
"""

import json
import resource
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.hardware import Rows, describe, float32_alone, peak, seconds
from benchmarks.plain import PLAIN_SETTINGS, plain_network
from pasta_model.checkpoint import new_translator
from pasta_model.config import Scalar, Settings, settings_from_flat
from pasta_model.console import run_command
from pasta_model.costs import slab_shape
from pasta_model.data.clinical import SCHEMES
from pasta_model.data.slabs import Batch
from pasta_model.diffusion.cycle import step_loss
from pasta_model.files import write_json
from pasta_model.placement import has_bfloat16
from pasta_model.training import make_optimizer

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
FLOAT = {"training.dtype": "float32"}
HALF = {"training.dtype": "bfloat16"}
PLAIN = "plain: float32, contiguous, eager"
VARIANTS: dict[str, dict[str, Scalar]] = {
    PLAIN: dict(PLAIN_SETTINGS),
    "ours, float32, contiguous": {**FLOAT, "training.channels-last": False},
    "ours, float32, channels-last": {**FLOAT},
    "ours, bfloat16, contiguous": {**HALF, "training.channels-last": False},
    "ours, bfloat16, channels-last": {**HALF},
    "ours, default dtype, checkpointing": {"training.checkpointing": True},
    "ours, default dtype, torch.compile": {"training.compile": True},
}


def worth_measuring(name: str, device: str) -> bool:
    """Whether the device can do it; bfloat16 that is imitated takes a hundred times longer."""
    return "bfloat16" not in name or has_bfloat16(device)


def random_batch(settings: Settings, batch_size: int) -> Batch:
    """Return slabs of noise."""
    slabs = [torch.rand(batch_size, *slab_shape(settings)) for _ in range(3)]
    clinical = torch.randn(batch_size, SCHEMES[settings.data.clinical].length)
    return Batch(slabs[0], slabs[1], slabs[2], clinical)


def measure(name: str, settings: Settings, batch_size: int, repeats: int) -> dict[str, float | str]:
    """Time a variant's step in this process."""
    device = settings.training.device
    float32_alone()
    with plain_network() if name == PLAIN else nullcontext():
        translator = new_translator(settings)
        optimizer = make_optimizer(translator.network, settings.training)
        generator = torch.Generator(device).manual_seed(0)
        batch = random_batch(settings, batch_size)
        batch = batch.to(device, channels_last=settings.training.channels_last)

        def run() -> None:
            optimizer.zero_grad(set_to_none=True)
            step_loss(translator, batch, settings=settings.loss, generator=generator).backward()
            optimizer.step()

        time = seconds(run, device=device, repeats=repeats)
    if device.startswith("cuda"):
        memory = torch.cuda.max_memory_allocated(device)
    else:
        memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"name": name, "seconds": time, "memory": memory, "dtype": str(translator.dtype)}


def step_flops(settings: Settings, batch_size: int) -> float:
    """FLOP of a step's products and convolutions, counted on the plain network, forward and backward."""
    with plain_network(), FlopCounterMode(display=False) as counter:
        translator = new_translator(settings)
        batch = random_batch(settings, batch_size)
        generator = torch.Generator().manual_seed(0)
        step_loss(translator, batch, settings=settings.loss, generator=generator).backward()
    return float(counter.get_total_flops())


@app.command()
def main(
    *,
    size: str = "base",
    batch_size: int = 1,
    repeats: int = 2,
    device: str = "cpu",
    output: Annotated[Path | None, typer.Option(help="Write the rows as JSON too.")] = None,
    variant: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print each variant's time as a ratio to the plain version."""
    spacing = 1.5 if size == "base" else 3.0
    shared = {"network.size": size, "data.spacing": spacing, "training.device": device}
    if variant:
        settings = settings_from_flat({**shared, **VARIANTS[variant]})
        print(json.dumps(measure(variant, settings, batch_size, repeats)))
        return
    best = torch.bfloat16 if has_bfloat16(device) else torch.float32
    about = {"hardware": describe(device), "size": size, "batch_size": batch_size, "peak_dtype": str(best)}
    rows = Rows(output, about)
    for name in VARIANTS:
        if name in rows:
            continue
        if not worth_measuring(name, device):
            rows.add(name, seconds=None, why="no such units here")
            continue
        command = [sys.executable, "-m", "benchmarks.training_step", "--variant", name, "--size", size]
        command += ["--batch-size", str(batch_size), "--repeats", str(repeats), "--device", device]
        told = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        if told.returncode:
            rows.add(name, seconds=None, why=f"ended with status {told.returncode}")
        else:
            rows.add(**json.loads(told.stdout.splitlines()[-1]))
    if "flops" not in rows.found:
        plain = settings_from_flat({"network.size": size, "data.spacing": spacing})
        rows.found |= {"flops": step_flops(plain, batch_size), "peak": peak(best, device=device)}
    print(table(rows.found))
    if output:
        write_json(output, rows.found)


def table(found: dict) -> str:
    """Return the rows as Markdown."""
    first = found["rows"][0]["seconds"]
    dtype = found["peak_dtype"].removeprefix("torch.")
    about = f"`{found['size']}`, {found['batch_size']} slab(s) a step, {found['flops'] / 1e9:,.0f} GFLOP"
    lines = [
        f"{found['hardware']}; measured {dtype} peak {found['peak'] / 1e9:,.0f} GFLOP/s; {about}",
        "",
        "| variant | s a step | ratio | memory (GB) | share of peak |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        if row["seconds"] is None:
            lines.append(f"| {row['name']} | not measured: {row['why']} | | | |")
            continue
        share = found["flops"] / row["seconds"] / found["peak"]
        lines.append(
            f"| {row['name']} | {row['seconds']:.2f} | {first / row['seconds']:.2f} x"
            f" | {row['memory'] / 1e9:.2f} | {share:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(app)
