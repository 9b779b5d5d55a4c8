# SPDX-License-Identifier: Apache-2.0
"""`pasta`: prepare a site, look at a model, synthesise, evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from pasta_model.commands.attack import app as attack
from pasta_model.commands.diagnose import diagnose
from pasta_model.commands.evaluate import evaluate
from pasta_model.commands.familiarity import app as familiarity
from pasta_model.commands.norms import app as norms
from pasta_model.commands.plan import plan
from pasta_model.commands.prepare import prepare
from pasta_model.commands.synthesize import synthesize
from pasta_model.console import resumable, run_command

app = typer.Typer(
    help="MRI to synthetic FDG-PET, trained together without sharing a scan. Research software, not a"
    " medical device. See also: pasta-sim (a federation on this machine), pasta-client (a site),"
    " pasta-server (the coordinator).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Manifest = Annotated[Path, typer.Argument(help="participants.tsv or .csv of one site.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]

app.command()(resumable(prepare))
app.command()(plan)


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
    subjects = len({s.person for s in sessions})
    Console().print(
        f"{manifest}: {len(sessions)} sessions of {subjects} subjects ({groups}), no problem", markup=False
    )


@app.command()
def split(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests of one or more sites.")],
    *,
    output: Annotated[Path, typer.Option(help="Where the table of splits goes.")] = Path("splits.tsv"),
    valid: Annotated[float, typer.Option(min=0, max=1)] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1)] = 0.2,
    given: Annotated[
        Path | None, typer.Option(help="A table of splits to keep to; new subjects are added.")
    ] = None,
    seed: Seed = 2026,
) -> None:
    """Split subjects into train, valid and test, by site and diagnosis."""
    from collections import Counter

    from rich.console import Console

    from pasta_model.data.manifest import read_manifest, read_splits, write_splits
    from pasta_model.data.splits import assign_splits
    from pasta_model.files import refuse_input_as_output

    refuse_input_as_output(output, manifests)
    sessions = [s for manifest in manifests for s in read_manifest(manifest)]
    kept = read_splits(given) if given else {}
    splits = assign_splits(sessions, valid=valid, test=test, seed=seed, given=kept)
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
    metaroi: Annotated[Path | None, typer.Option(help="Your own MetaROI map, NIfTI in MNI space.")] = None,
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
        grid = spacing or spacing_of(sessions[0])
        made = prepare_store(output, sessions, spacing=grid, metaroi=metaroi, progress=progress)
    console.print(f"{output}: site {made.site}, {len(made.entries)} sessions", markup=False)


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


app.command()(resumable(synthesize))
app.command()(evaluate)
app.command()(resumable(diagnose))
app.add_typer(attack, name="attack")
app.add_typer(familiarity, name="familiarity")
app.add_typer(norms, name="norms")


def main() -> None:
    """Entry point of `pasta`."""
    run_command(app)
