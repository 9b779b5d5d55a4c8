# SPDX-License-Identifier: Apache-2.0
"""`pasta norms`: norms of healthy metabolism by age, and z maps of PETs against them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pasta_model.norms.sums import NormPerson

app = typer.Typer(
    help="Abnormality maps: what metabolism is normal at an age, and where a PET, real or synthetic, is below"
    " it. Research software, not a medical device.",
    no_args_is_help=True,
)
_DESCRIPTION = "z of FDG-PET against norms by age, by PASTA; not a medical device"


@app.command()
def build(
    manifests: Annotated[list[Path], Argument(help="Manifests of one or more sites.")],
    *,
    output: Annotated[Path, Option(help="The norms.safetensors to write.")],
    split: Annotated[
        str | None, Option(help="Only people of that split, such as train; by default everybody.")
    ] = None,
    fwhm: Annotated[float, Option(min=0, max=30, help="Smoothing that makes scanners alike, mm.")] = 8.0,
    spacing: Annotated[
        float | None, Option(help="Voxel size in mm: 1.5 or 3; default: the scans' own.")
    ] = None,
) -> None:
    """Make age-adjusted norms of the cognitively normal people of these tables.

    A person counts once, with the first visit, and only if cognitively normal at every visit. Keep people out
    (--split) whose own PETs are to be compared with the norms.
    """
    from rich.console import Console

    from pasta_model.console import progress_bar
    from pasta_model.data.manifest import read_manifest
    from pasta_model.data.splits import refuse_leakage
    from pasta_model.data.store import spacing_of
    from pasta_model.errors import ConfigError
    from pasta_model.files import refuse_input_as_output, refuse_unwritable
    from pasta_model.norms.model import Norms, refuse_few
    from pasta_model.norms.people import choose_sessions, people_of_sessions
    from pasta_model.norms.sums import NormSums

    refuse_input_as_output(output, manifests)
    refuse_unwritable(output.parent)
    sessions = [s for manifest in manifests for s in read_manifest(manifest)]
    refuse_leakage(sessions)
    chosen = choose_sessions(sessions, split=split)
    if split and not any(s.split == split for s in sessions):
        raise ConfigError(f"nobody is in split {split!r}; wanted a column 'split' that says so")
    refuse_few(len(chosen.rows))
    grid = spacing or spacing_of(sessions[chosen.rows[0]])
    console = Console(soft_wrap=True)
    with progress_bar(console, "norms") as progress:
        people = _counted(people_of_sessions(sessions, split=split), len(chosen.rows), progress)
        sums = NormSums.of(people, spacing=grid, fwhm=fwhm)
    norms = Norms.of(sums, sites=sorted({sessions[row].site for row in chosen.rows}))
    norms.save(output)
    left = f"; left out for want of an age: {chosen.ageless}" if chosen.ageless else ""
    console.print(f"{output}: {norms.title}{left}", markup=False, highlight=False)


@app.command("map")
def z_map(
    pet: Annotated[Path, Argument(help="PET in SUVR in MNI space, real or synthetic (.nii.gz).")],
    *,
    age: Annotated[float, Option(min=18, max=120, help="Of the person, in years.")],
    norms: Annotated[Path, Option(help="Norms made with 'pasta norms build', or by a federation.")],
    output: Annotated[Path, Option(help="The z map to write (.nii.gz).")],
    mri: Annotated[
        Path | None, Option(help="The person's prepared MRI: says where the brain is. Recommended.")
    ] = None,
    surfaces: Annotated[Path | None, Option(help="Picture of the eight views to write (.png).")] = None,
) -> None:
    """Map how many standard deviations a PET is from healthy people of that age, voxel by voxel."""
    from rich.console import Console

    from pasta_model.data.volume import read_volume, write_volume
    from pasta_model.files import atomic_path, refuse_input_as_output, refuse_unwritable
    from pasta_model.metrics.similarity import brain_mask
    from pasta_model.norms.model import Norms

    _refuse_other_endings(output, surfaces)
    for target in (output, surfaces or output):
        refuse_input_as_output(target, [pet, norms, *([mri] if mri else [])])
        refuse_unwritable(target.parent)
    brain = brain_mask(read_volume(mri).data) if mri else None
    known = Norms.load(norms)
    found = known.z_map(read_volume(pet, unit="SUVR"), age, brain=brain)
    if surfaces:
        from pasta_model.report.surfaces import surface_picture

        png = surface_picture({"PET": found}, title=f"{pet.name}, {age:g} years")
        with atomic_path(surfaces) as temporary:
            temporary.write_bytes(png)
    write_volume(output, found, description=_DESCRIPTION)
    inside = found.data[known.brain_on(found)]
    below = float((inside < -2).sum()) * known.spacing**3 / 1000
    Console(soft_wrap=True).print(
        f"{output}: lowest z {inside.min():.1f}, {below:.1f} ml below -2, against {known.title}",
        markup=False,
        highlight=False,
    )


def _refuse_other_endings(output: Path, surfaces: Path | None) -> None:
    from pasta_model.errors import ConfigError

    if not output.name.endswith((".nii", ".nii.gz")):
        raise ConfigError(f"--output {output}: wanted a name that ends in .nii.gz")
    if surfaces and surfaces.suffix != ".png":
        raise ConfigError(f"--surfaces {surfaces}: wanted a name that ends in .png")


def _counted(
    people: Iterable[NormPerson], total: int, progress: Callable[[int, int], None]
) -> Iterator[NormPerson]:
    for done, one in enumerate(people, start=1):
        yield one
        progress(done, total)
