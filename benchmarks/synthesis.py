# SPDX-License-Identifier: Apache-2.0
"""Time of one full-size volume of `base`: the published procedure against our default, the same weights.

Run: python -m benchmarks.synthesis
The published procedure (one slab a slice: 96 of them, 100 DDIM steps, float32, own noise per slab, one slab
at a time, the plain network) is linear in its slabs: some are walked to their end, and the time is scaled.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.hardware import Rows, describe, float32_alone, seconds
from benchmarks.plain import PLAIN_SETTINGS, plain_network
from pasta_model.checkpoint import Checkpoint, new_network, new_translator
from pasta_model.config import Scalar, Settings, sampling_of, settings_from_flat
from pasta_model.console import run_command
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.data.grid import template
from pasta_model.data.volume import Volume
from pasta_model.diffusion.volumes import VolumeTranslator
from pasta_model.placement import has_bfloat16
from pasta_model.synthesis import Synthesiser

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
CLINICAL = {"age": 74.0, "sex": 1.0, "education": 16.0, "mmse": 24.0, "adas13": 20.0, "apoe4": 1.0}
PUBLISHED = "published procedure"
VARIANTS: dict[str, dict[str, Scalar]] = {
    "ours: the default": {},
    "ours, float32": {"training.dtype": "float32"},
    "ours, one sample instead of a pair": {"sampling.antithetic": False},
    "ours, 10 steps": {"sampling.steps": 10},
    "ours, one slab at a time": {"sampling.batch-slabs": 1},
    "ours, torch.compile": {"training.compile": True},
}


def model(settings: Settings) -> Checkpoint:
    """Return a network that was not trained; a pass takes as long."""
    columns = len(SCHEMES[settings.data.clinical].columns)
    standard = Standardisation((0.0,) * columns, (1.0,) * columns)
    return Checkpoint(new_network(settings).state_dict(), settings, standard, 0)


def scan(settings: Settings) -> Volume:
    """Return a head of noise on the model's grid."""
    head = template(settings.data.spacing).head
    data = np.random.default_rng(0).random(head.shape, dtype=np.float32)
    return Volume(data, head.affine)


def ours(settings: Settings, checkpoint: Checkpoint, repeats: int) -> float:
    """Time MRI to SUVR of a whole volume, the model loaded."""
    maker, mri = Synthesiser(replace(checkpoint, settings=settings)), scan(settings)
    return seconds(
        lambda: maker.synthesise(mri, CLINICAL),
        device=settings.training.device,
        repeats=repeats,
        warm_up=1,
    )


def published(settings: Settings, checkpoint: Checkpoint, slabs: int) -> tuple[float, int]:
    """Time some slabs of the published procedure; scaled to all of a volume, and how many were walked."""
    sampling = sampling_of(settings, published=True, changes={"batch-slabs": 1})
    device, size = settings.training.device, settings.network.slab_slices
    rows, columns, depth = template(settings.data.spacing).size
    slabs = min(slabs or depth, depth - size + 1)  # those that lie wholly in the volume
    with plain_network():
        volumes = VolumeTranslator(new_translator(settings, checkpoint.state), sampling)
        source = torch.rand(size + slabs - 1, rows, columns, device=device)  # a volume of so many slabs
        clinical = torch.randn(SCHEMES[settings.data.clinical].length, device=device)
        generator = torch.Generator().manual_seed(0)
        volumes.preview(source[:size])  # what a device does once, it has done now
        time = seconds(
            lambda: volumes.sample(source, clinical, generator=generator),
            device=device,
            repeats=1,
            warm_up=0,
        )
    return time * depth / slabs, slabs


@app.command()
def main(
    *,
    size: str = "base",
    device: str = "cpu",
    repeats: int = 1,
    slabs: Annotated[int, typer.Option(help="Slabs of the published procedure to walk; 0: most.")] = 1,
    variants: Annotated[bool, typer.Option(help="Variants of our default too.")] = True,
    output: Annotated[Path | None, typer.Option(help="Write the rows as JSON too.")] = None,
) -> None:
    """Print the time of a volume, as a ratio to the published procedure."""
    spacing = 1.5 if size == "base" else 3.0
    shared: dict[str, Scalar] = {"network.size": size, "data.spacing": spacing, "training.device": device}
    settings = settings_from_flat(shared)
    checkpoint = model(settings)
    float32_alone()
    rows = Rows(output, {"hardware": describe(device), "size": size})
    if PUBLISHED not in rows:
        plain = settings_from_flat({**shared, **PLAIN_SETTINGS})
        time, walked = published(plain, checkpoint, slabs)
        rows.add(PUBLISHED, seconds=time, slabs=walked)
    for name, changes in VARIANTS.items() if variants else list(VARIANTS.items())[:1]:
        if name in rows or (name == "ours, float32" and not has_bfloat16(device)):
            continue  # where there are no units for bfloat16, the default is float32
        try:
            rows.add(name, seconds=ours(settings_from_flat({**shared, **changes}), checkpoint, repeats))
        except RuntimeError as error:  # a compiler that is not there, or no memory
            rows.add(name, seconds=None, why=str(error).splitlines()[0][:80])
    print(table(rows.found))


def table(found: dict) -> str:
    """Return the rows as Markdown."""
    first = found["rows"][0]["seconds"]
    lines = [
        f"{found['hardware']}; `{found['size']}`",
        "",
        "| procedure | seconds a volume | times faster |",
        "|---|---|---|",
    ]
    for row in found["rows"]:
        if row["seconds"] is None:
            lines.append(f"| {row['name']} | not measured: {row['why']} | |")
            continue
        name = row["name"] + (f" (from {row['slabs']} slabs)" if "slabs" in row else "")
        lines.append(f"| {name} | {row['seconds']:.1f} | {first / row['seconds']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(app)
