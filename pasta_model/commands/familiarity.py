# SPDX-License-Identifier: Apache-2.0
"""`pasta familiarity`: whether MRIs are like those that a federation trained on."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

app = typer.Typer(no_args_is_help=True, help="Whether MRIs are like those that a federation trained on.")
Places = Annotated[
    list[Path], Argument(help="Prepared sites (folders) or manifests; their training persons.")
]
Scans = Annotated[list[Path], Argument(help="A manifest (.tsv, .csv), or prepared MRIs (.nii, .nii.gz).")]


@app.command()
def build(
    places: Places,
    *,
    output: Annotated[Path, Option(help="The reference to write.")] = Path("familiarity.safetensors"),
) -> None:
    """Learn what is usual from the MRIs of training persons; what is kept is a mean and a covariance."""
    from rich.console import Console

    from pasta_model.console import progress_bar
    from pasta_model.familiarity.model import UNLIKE, Familiarity, save_familiarity
    from pasta_model.familiarity.scans import feature_table, first_scans, one_spacing, scans_of
    from pasta_model.familiarity.sums import FeatureSums

    sites = [scans_of(place) for place in places]
    training = [scan for site in sites for scan in first_scans(site, "train")]
    spacing, console = one_spacing(training), Console(soft_wrap=True)
    with progress_bar(console, "features") as progress:
        made = Familiarity.of(FeatureSums.of(feature_table(training, progress=progress)), spacing=spacing)
    held_out = [scan for site in sites for scan in first_scans(site, "valid")]
    flagged = sum(made.check(row).unlike for row in feature_table(held_out))
    save_familiarity(output, made)  # last: stopped before, nothing is written
    console.print(f"{output}: {made.persons} persons, {len(made.names)} features", markup=False)
    if held_out:
        console.print(
            f"false alarms: {flagged} of {len(held_out)} validation persons are flagged;"
            f" {(100 - UNLIKE) / 100:.1%} are meant to be",
            markup=False,
            highlight=False,
        )


@app.command()
def check(
    scans: Scans,
    *,
    reference: Annotated[Path, Option(help="A familiarity.safetensors.")],
    output: Annotated[Path, Option(help="Table with a row an MRI.")] = Path("familiarity.tsv"),
) -> None:
    """Say of each MRI how far it lies from the training federation, and why where that is too far."""
    from rich.console import Console

    from pasta_model.console import progress_bar
    from pasta_model.data.manifest import read_scans
    from pasta_model.familiarity.model import load_familiarity
    from pasta_model.familiarity.table import judge_sessions, write_verdicts
    from pasta_model.files import refuse_input_as_output

    refuse_input_as_output(output, [*scans, reference])
    known, console = load_familiarity(reference), Console(soft_wrap=True)
    sessions = read_scans(scans, [])
    with progress_bar(console, "familiarity") as progress:
        found = judge_sessions(sessions, known, progress=progress)
    write_verdicts(output, found)
    for session, verdict in found:
        if verdict.unlike:
            console.print(
                f"{session.name}: unlike the training federation: {'; '.join(verdict.reasons)}", markup=False
            )
    flagged = sum(verdict.unlike for _, verdict in found)
    console.print(
        f"{output}: {flagged} of {len(found)} MRIs are unlike those of {known.persons} training persons",
        markup=False,
        highlight=False,
    )
