# SPDX-License-Identifier: Apache-2.0
"""Pictures of a trained model on one held-out twin: its training's curves, ways of sampling side by side.

Run: python -m benchmarks.pictures MODEL FOLDER
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import typer
from matplotlib.figure import Figure

from benchmarks.quality import PREVIEW, REFERENCE, Bench, volume_of
from pasta_model.console import run_command
from pasta_model.data.manifest import Session
from pasta_model.data.volume import Volume, read_volume, write_volume
from pasta_model.files import atomic_path
from pasta_model.metrics.similarity import brain_mask
from pasta_model.metrics.texture import power_spectrum, roughness
from pasta_model.report.charts import curves
from pasta_model.report.style import figure_style, to_png
from pasta_model.sections import SamplingSettings
from pasta_model.synthesis import Synthesiser

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


def kept(folder: Path, session: Session, make: Callable[[], Volume]) -> Volume:
    """Return the reference of a session, made once: it takes 100 times as long as all the others."""
    path = folder / "pictures" / f"{session.name}_published.nii.gz"
    if not path.is_file():
        write_volume(path, make())
    return read_volume(path, unit="SUVR")


def side_by_side(mri: Volume, pets: dict[str, Volume]) -> bytes:
    """Draw a coronal and a sagittal cut of each PET, their roughness, and all power spectra."""
    mask = brain_mask(mri.data)
    middle = [round(float(np.mean(np.nonzero(mask)[axis]))) for axis in range(2)]
    with figure_style():
        figure = Figure(figsize=(2.5 * len(pets) + 4.2, 5.4), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=(2.5 * len(pets), 4.2))
        axes = left.subplots(2, len(pets))
        for column, (name, pet) in enumerate(pets.items()):
            cuts = (pet.data[:, middle[1]].T, pet.data[middle[0]].T)
            for row, cut in enumerate(cuts):
                axes[row, column].imshow(cut, origin="lower", cmap="inferno", vmin=0, vmax=2.2)
                axes[row, column].set_axis_off()
            rough = roughness(pet.data, mask=mask)
            axes[0, column].set_title(f"{name}\nroughness {rough:.3f} SUVR", fontsize=9)
        plot = right.subplots()
        for name, pet in pets.items():
            power = power_spectrum(pet.data, mask=mask)
            frequency = (np.arange(len(power)) + 0.5) / len(power) / 2
            plot.plot(frequency, 10 * np.log10(power), label=name, linewidth=2 if name == "real PET" else 1.2)
        plot.set_xlabel("cycles a voxel")
        plot.set_ylabel("power (dB)")
        plot.legend(fontsize=8)
        return to_png(figure)


@app.command()
def main(
    model: Path,
    folder: Path,
    *,
    subject: int = 0,
    device: str = "cpu",
    output: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("benchmarks/pictures"),
) -> None:
    """Draw curves.png (where the run's history is beside the model) and sampling.png."""
    mpl.use("Agg")
    bench = Bench(model, folder, device=device)
    session = bench.sessions[subject]
    mri, real = read_volume(session.mri), read_volume(session.pet, unit="SUVR")
    masked = replace(real, data=np.where(brain_mask(mri.data), real.data, 0))
    own = SamplingSettings()
    default = Synthesiser(bench.checkpoint, sampling=own, device=device)
    pets = {
        "real PET": masked,
        "published procedure": kept(folder, session, lambda: volume_of(bench, session, REFERENCE)),
        f"default: {own.solver}, {own.steps} steps, hop {own.hop}": default.synthesise(
            mri, session.clinical, seed=1, name=session.name
        ),
        "preview": volume_of(bench, session, PREVIEW),
    }
    drawn = {"sampling.png": side_by_side(mri, pets)}
    history = model.with_name("history.jsonl")
    if history.is_file():
        lines = history.read_text(encoding="utf-8").splitlines()
        drawn["curves.png"] = curves([json.loads(line) for line in lines])
    for name, picture in drawn.items():
        with atomic_path(output / name) as temporary:
            temporary.write_bytes(picture)
        print(output / name)


if __name__ == "__main__":
    run_command(app)
