# SPDX-License-Identifier: Apache-2.0
"""`pasta`: prepare a site, look at a model, synthesise, evaluate."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pasta_model.config import Scalar
from pasta_model.console import run_command

app = typer.Typer(
    help="MRI to synthetic FDG-PET, trained together without sharing a scan. Research software, not a"
    " medical device. See also: pasta-sim (a federation on this machine), pasta-client (a site),"
    " pasta-server (the coordinator).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Manifest = Annotated[Path, typer.Argument(help="participants.tsv or .csv of one site.")]
RAW_SAMPLES = 4  # of a raw scan, unless asked otherwise: their spread is the uncertainty map
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]


@app.command()
def validate(
    manifest: Manifest,
    scans: Annotated[bool, typer.Option(help="Open every scan too.")] = False,
) -> None:
    """Check a manifest: every problem of the table, or of the scans, at once."""
    from collections import Counter

    from rich.console import Console

    from pasta_model.data.manifest import read_manifest
    from pasta_model.data.splits import refuse_leakage
    from pasta_model.data.store import check_scans, spacing_of

    sessions = read_manifest(manifest)
    refuse_leakage(sessions, where=str(manifest))
    if scans:
        check_scans(sessions, spacing=spacing_of(sessions[0]))
    found = Counter(s.diagnosis for s in sessions)
    groups = ", ".join(f"{n} {name}" for name, n in sorted(found.items()))
    subjects = len({s.subject for s in sessions})
    Console().print(
        f"{manifest}: {len(sessions)} sessions of {subjects} subjects ({groups}), no problem", markup=False
    )


@app.command()
def split(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests of one or more sites.")],
    output: Annotated[Path, typer.Option(help="Where the table of splits goes.")] = Path("splits.tsv"),
    valid: Annotated[float, typer.Option(min=0, max=1)] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1)] = 0.2,
    seed: Seed = 2026,
) -> None:
    """Split subjects into train, valid and test, by site and diagnosis."""
    from collections import Counter

    from rich.console import Console

    from pasta_model.data.manifest import read_manifest, write_splits
    from pasta_model.data.splits import assign_splits

    sessions = [s for manifest in manifests for s in read_manifest(manifest)]
    splits = assign_splits(sessions, valid=valid, test=test, seed=seed)
    write_splits(output, splits)
    counts = Counter(splits.values())
    Console().print(
        f"{output}: " + ", ".join(f"{counts[n]} {n}" for n in ("train", "valid", "test")), markup=False
    )


@app.command()
def store(
    manifest: Manifest,
    output: Annotated[Path, typer.Argument(help="The prepared site: a new folder.")],
    splits: Annotated[
        Path | None, typer.Option(help="Table made by 'pasta split'; not needed with a column 'split'.")
    ] = None,
    spacing: Annotated[float | None, typer.Option(help="Voxel size in mm; default: the scans' own.")] = None,
) -> None:
    """Prepare a site for training: reads every scan once, writes whole or not at all."""
    from rich.console import Console

    from pasta_model.console import progress_bar
    from pasta_model.data.manifest import read_manifest, read_splits
    from pasta_model.data.splits import apply_splits
    from pasta_model.data.store import prepare_store, spacing_of

    sessions = read_manifest(manifest)
    if splits:
        sessions = apply_splits(sessions, read_splits(splits))
    console = Console()
    with progress_bar(console, f"prepare {sessions[0].site}") as progress:
        made = prepare_store(output, sessions, spacing=spacing or spacing_of(sessions[0]), progress=progress)
    console.print(f"{output}: site {made.site}, {len(made.entries)} sessions", markup=False)


@app.command()
def prepare(
    source: Annotated[list[Path], typer.Argument(help="A BIDS folder, a table of paths, or HDF5 files.")],
    output: Annotated[Path, typer.Argument(help="Where the prepared scans, tables and sites go.")],
    site: Annotated[str | None, typer.Option(help="Name of the hospital, in place of the source's.")] = None,
    registration: Annotated[
        str, typer.Option(help="Of MRI to template: affine, deformable, none (is in MNI space).")
    ] = "affine",
    reference: Annotated[
        str, typer.Option(help="Region of SUVR 1: pons-vermis, pons, vermis, cerebellum.")
    ] = "pons-vermis",
    spacing: Annotated[float, typer.Option(help="Voxel size in mm: 1.5 or 3.")] = 1.5,
    limit_days: Annotated[float, typer.Option(min=0, help="Most days between an MRI and its PET.")] = 180.0,
    allow_unpaired: Annotated[
        bool, typer.Option("--allow-unpaired", help="Subjects without a PET are no mistake.")
    ] = False,
    metaroi: Annotated[Path | None, typer.Option(help="Your own MetaROI map, NIfTI in MNI space.")] = None,
    splits: Annotated[Path | None, typer.Option(help="A table of splits to keep to.")] = None,
    valid: Annotated[float, typer.Option(min=0, max=1, help="Share of subjects that validate.")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share of subjects held out.")] = 0.2,
    partition: Annotated[
        str, typer.Option(help="Sites of a simulated federation: site, phase, site-phase, one.")
    ] = "site",
    smallest: Annotated[int, typer.Option(min=0, help="Pool sites with fewer subjects than this.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
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


@app.command()
def info(
    model: Annotated[Path | None, typer.Option(help="A model.safetensors.")] = None,
    size: Annotated[str, typer.Option(help="tiny, small or base.")] = "tiny",
    spacing: Annotated[
        float | None, typer.Option(help="Voxel size in mm: 1.5 or 3; default: the model's, 1.5 for base.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Slabs of a training step.")] = 1,
) -> None:
    """Say what a model is: parameters by part, work, bytes on the wire, memory, settings."""
    from rich.console import Console

    from pasta_model.checkpoint import load_checkpoint
    from pasta_model.config import settings_from_flat
    from pasta_model.report.info import info_table

    checkpoint = load_checkpoint(model) if model else None
    settings = checkpoint.settings if checkpoint else settings_from_flat({"network.size": size})
    if spacing or not checkpoint:
        grid = spacing or (1.5 if size == "base" else settings.data.spacing)
        settings = settings_from_flat({**settings.flat(), "data.spacing": grid})
    title = str(model or f"network of size {size}")
    rounds = checkpoint.round if checkpoint else None
    console = Console()
    console.print(f"{title}: {settings.title}", markup=False, highlight=False, soft_wrap=True)
    console.print(info_table(settings, batch_size=batch_size, rounds=rounds))


@app.command()
def import_checkpoint(
    published: Annotated[Path, typer.Argument(help="model.pt, trained with the published PASTA code.")],
    output: Annotated[Path, typer.Argument(help="The model.safetensors to write.")],
    ema: Annotated[bool, typer.Option("--ema", help="Take the moving average of the weights.")] = False,
    shape: Annotated[
        str, typer.Option(help="What the file cannot tell, if not as published: 'heads 4, groups 32'.")
    ] = "",
) -> None:
    """Bring in a checkpoint that was trained with the published PASTA code."""
    from rich.console import Console

    from pasta_model.checkpoint import save_checkpoint
    from pasta_model.published import import_published

    imported = import_published(published, ema=ema, shape=shape)
    save_checkpoint(output, imported.checkpoint)
    values = sum(t.numel() for t in imported.checkpoint.state.values())
    console = Console(soft_wrap=True)
    console.print(f"{output}: {values:,} parameters, {imported.shape.words()}", markup=False, highlight=False)
    if imported.dropped:
        console.print(
            f"left out: {len(imported.dropped)} tensors that the published forward pass never uses",
            markup=False,
            highlight=False,
        )
    console.print(
        "not in the file: mean and spread of the clinical values (0 and 1 are assumed: give z-scores) and"
        " the intensity scale (synthesis takes [-1, 1] as SUVR 0 to 3)",
        markup=False,
        highlight=False,
    )


@app.command()
def synthesize(
    *,
    model: Annotated[Path, typer.Option(help="A model.safetensors.")],
    scans: Annotated[
        list[Path] | None,
        typer.Argument(
            help="A manifest (.tsv, .csv), or prepared MRIs (.nii, .nii.gz); none with --mri.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Argument(help="Where the synthetic PETs go, as BIDS derivatives.", show_default=False)
    ],
    mri: Annotated[
        list[Path] | None,
        typer.Option(
            help="A raw T1, as it comes from the scanner; the PET goes back to its space. Repeatable."
        ),
    ] = None,
    registration: Annotated[
        str, typer.Option(help="Of a raw T1 to the template: affine or deformable.")
    ] = "affine",
    clinical: Annotated[
        list[str] | None, typer.Option(help="A clinical value of a lone MRI, as age=71; may be repeated.")
    ] = None,
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="Leave out clinical values that the model does not know.")
    ] = False,
    seed: Seed = 0,
    samples: Annotated[int | None, typer.Option(min=1, help="Of several: their mean and spread.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.")] = None,
    hop: Annotated[int | None, typer.Option(min=1, help="Slices from slab to slab.")] = None,
    solver: Annotated[str | None, typer.Option(help="ddim or dpm++2m.")] = None,
    planes: Annotated[
        str | None, typer.Option(help="axial, coronal, sagittal, or all: their mean; as trained.")
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other sampling setting, as start=500; may be repeated."),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="The conditioner's own PET, in one pass.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Sample as the published code did, faults and all.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda; by default as trained.")] = None,
) -> None:
    """Synthesise the PET of every session of a manifest, or of MRIs; goes on where it was stopped."""
    _synthesize(
        model,
        _either(scans or [], mri or []),
        output,
        registration=registration if mri else None,
        clinical=clinical or [],
        ignore=ignore_unknown,
        changes={"samples": samples, "steps": steps, "hop": hop, "solver": solver, "planes": planes},
        more=more or [],
        published=published,
        seed=seed,
        device=device,
        preview=preview,
    )


def _either(prepared: Sequence[Path], raw: Sequence[Path]) -> Sequence[Path]:
    from pasta_model.errors import ManifestError

    if prepared and raw:
        raise ManifestError("found prepared scans and raw ones (--mri); wanted either: run the command twice")
    return raw or prepared


def _synthesize(
    model: Path,
    scans: Sequence[Path],
    output: Path,
    *,
    clinical: Sequence[str],
    ignore: bool,
    changes: Mapping[str, Scalar | None],
    more: Sequence[str],
    published: bool,
    registration: str | None,
    **job: Any,
) -> None:
    from rich.console import Console

    from pasta_model.checkpoint import load_checkpoint
    from pasta_model.config import changes_of, sampling_of
    from pasta_model.console import progress_bar
    from pasta_model.data.clinical import SCHEMES, known_values
    from pasta_model.data.manifest import read_scans
    from pasta_model.derivatives import SynthesisJob, synthesise_sessions
    from pasta_model.errors import ManifestError
    from pasta_model.prepare.settings import prepare_settings

    if not scans:
        raise ManifestError("nothing to synthesise; give a manifest, prepared MRIs, or raw ones with --mri")
    settings = load_checkpoint(model).settings
    sessions = known_values(read_scans(scans, clinical), SCHEMES[settings.data.clinical], ignore=ignore)
    prepare = None
    if registration:  # raw scans
        prepare = prepare_settings(registration=registration, spacing=settings.data.spacing)
        changes = {**changes, "samples": changes["samples"] or RAW_SAMPLES}
    sampling = sampling_of(settings, published=published, changes={**changes, **changes_of(more)})
    console = Console()
    one = len(sessions) == 1 and console.is_terminal  # of one session, its steps are worth showing
    with progress_bar(console, "steps" if one else "synthesis") as progress:
        paths = synthesise_sessions(
            SynthesisJob(model, output, sampling=sampling, prepare=prepare, **job),
            sessions,
            **{"step_progress" if one else "progress": progress},
        )
    console.print(f"{output}: {len(paths)} synthetic PETs", markup=False)


@app.command()
def evaluate(
    manifest: Manifest,
    synthetic: Annotated[Path, typer.Argument(help="Folder written by 'pasta synthesize'.")],
    output: Annotated[Path, typer.Option(help="Table with a row a session.")] = Path("scores.tsv"),
) -> None:
    """Compare synthetic with real PETs: MAE, PSNR, SSIM in the brain, MetaROI SUVR error."""
    from rich.console import Console

    from pasta_model.comparison import evaluate_folder
    from pasta_model.console import progress_bar
    from pasta_model.data.manifest import read_manifest
    from pasta_model.evaluation import summarise, write_scores
    from pasta_model.report.table import scores_table

    console = Console()
    with progress_bar(console, "evaluation") as progress:
        sessions = read_manifest(manifest)
        scores = evaluate_folder(sessions, synthetic, method="synthetic", progress=progress)
    write_scores(output, scores)
    console.print(scores_table(summarise(scores)))


def main() -> None:
    """Entry point of `pasta`."""
    run_command(app)
