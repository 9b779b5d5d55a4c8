# SPDX-License-Identifier: Apache-2.0
"""`pasta prepare`: from a hospital's own scans to a prepared site."""

import os
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

Source = Annotated[list[Path], Argument(help="A BIDS folder, a table of paths, or HDF5 files.")]
Output = Annotated[Path, Argument(help="Where the prepared scans, tables and sites go.")]
Site = Annotated[str | None, Option(help="Name of the hospital, in place of the source's.")]
Registration = Annotated[str, Option(help="Of MRI to template: affine, deformable, none (is in MNI space).")]
Reference = Annotated[str, Option(help="Region of SUVR 1: pons-vermis, pons, vermis, cerebellum.")]
Spacing = Annotated[float, Option(help="Voxel size in mm: 1.5 or 3.")]
Days = Annotated[float, Option(min=0, help="Most days between an MRI and its PET.")]
Unpaired = Annotated[bool, Option("--allow-unpaired", help="Subjects without a PET are no mistake.")]
MetaRoi = Annotated[Path | None, Option(help="Your own MetaROI map, NIfTI in MNI space.")]
Splits = Annotated[Path | None, Option(help="A table of splits to keep to.")]
Valid = Annotated[float, Option(min=0, max=1, help="Share of subjects that validate.")]
Test = Annotated[float, Option(min=0, max=1, help="Share of subjects held out.")]
Partition = Annotated[str, Option(help="Sites of a simulated federation: site, phase, site-phase, one.")]
Smallest = Annotated[int, Option(min=0, help="Pool sites with fewer subjects than this.")]
Workers = Annotated[int | None, Option(min=1, help="Processes; default: one a core.")]
Seed = Annotated[int, Option(min=0, help="The same seed gives the same result.")]


def prepare(
    source: Source,
    output: Output,
    *,
    site: Site = None,
    registration: Registration = "affine",
    reference: Reference = "pons-vermis",
    spacing: Spacing = 1.5,
    limit_days: Days = 180.0,
    allow_unpaired: Unpaired = False,
    metaroi: MetaRoi = None,
    splits: Splits = None,
    valid: Valid = 0.1,
    test: Test = 0.2,
    partition: Partition = "site",
    smallest: Smallest = 0,
    workers: Workers = None,
    seed: Seed = 2026,
) -> None:
    """From a hospital's own MRIs and PETs to a prepared site; goes on where it was stopped."""
    from pasta_model.prepare.settings import prepare_settings

    settings = prepare_settings(registration=registration, reference=reference, spacing=spacing, seed=seed)
    _prepare(
        tuple(source),
        output,
        settings=settings,
        site=site,
        limit_days=limit_days,
        unpaired=allow_unpaired,
        metaroi=metaroi,
        splits=splits,
        valid=valid,
        test=test,
        seed=seed,
        partition=partition,
        smallest=smallest,
        workers=workers or os.cpu_count() or 1,
    )


def _prepare(source: tuple[Path, ...], output: Path, **job: Any) -> None:
    from rich.console import Console

    from pasta_model.console import progress_bar
    from pasta_model.prepare.site import PrepareJob, prepare_site
    from pasta_model.report.decisions import decisions_table

    console = Console()
    with progress_bar(console, "prepare") as progress:
        made = prepare_site(PrepareJob(source, output, **job), progress=progress)
    console.print(decisions_table(made.decisions))
    for path in made.sites:
        console.print(f"prepared site: {path}", markup=False, soft_wrap=True)
    console.print(
        f"look at {output / 'qc' / 'index.html'}; to leave a session out, write exclude into"
        f" {output / 'qc.tsv'} and run the same command again",
        markup=False,
        soft_wrap=True,
    )
    made.raise_if_refused()
