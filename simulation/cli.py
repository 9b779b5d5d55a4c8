# SPDX-License-Identifier: Apache-2.0
"""`pasta-sim`: a whole federation on one machine."""

from pathlib import Path
from typing import Annotated

import typer

from pasta_model.console import resumable, run_command

app = typer.Typer(
    help="A whole federation on one machine, with digital twins: these are not patients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
SIGNS = {"yes": "✓", "no": "✗", "open": "~"}  # of a statement: it holds, it does not, they are not told apart
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")]


@app.command()
@resumable
def demo(
    *,
    output: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("outputs/demo"),
    seed: Annotated[int | None, typer.Option(min=0, help="Overrides the file; 2026 by default.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with settings.")] = None,
    fresh: Annotated[bool, typer.Option(help="Start again instead of going on.")] = False,
    twins: Annotated[Path | None, typer.Option(help="A TOML file with the sites of the cohort.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes besides Flower's.")] = 2,
) -> None:
    """Twins, federated training, baselines, synthesis, evaluation and a report, in one go."""
    import shutil
    import time

    from rich.console import Console

    from pasta_model.console import log_to_console
    from pasta_model.report.table import scores_table
    from server.deployment.processes import terminate_as_exit
    from simulation.demo import Demo
    from simulation.demo_report import write_demo_report
    from simulation.demo_settings import demo_cohort, demo_settings

    log_to_console(verbose=False)
    console = Console()
    output = output.resolve()
    settings = demo_settings(output, seed=seed, config=config)
    if fresh and (output / "demo.json").is_file():
        shutil.rmtree(output)
    start = time.monotonic()
    run = Demo(
        app=Path(__file__).resolve().parents[1],
        output=output,
        settings=settings,
        cohort=demo_cohort(seed=settings.run.seed, spacing=settings.data.spacing, sites=twins),
        console=console,
        workers=workers,
    )
    with terminate_as_exit():  # SIGTERM, too, leaves no process behind
        scores = run.run()
    rows, said = write_demo_report(run, scores)
    console.print(
        scores_table(rows, title=f"Held-out digital twins (not patients), seed {settings.run.seed}")
    )
    for each in said:
        console.print(f"{SIGNS[each.mark]} {each.text}", markup=False, highlight=False)
    minutes = (time.monotonic() - start) / 60
    console.print(f"\nreport: {output / 'report.html'}   ({minutes:.1f} minutes)", soft_wrap=True)


@app.command()
def cohort(
    output: Annotated[Path, typer.Argument(help="A new folder, one subfolder a site.")],
    seed: Seed = 2026,
    spacing: Annotated[float, typer.Option(help="Voxel size in mm: 3 or 1.5.")] = 3.0,
    twins: Annotated[Path | None, typer.Option(help="A TOML file with the sites of the cohort.")] = None,
    workers: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Build a cohort of digital twins as NIfTI files with a participants table a site."""
    from rich.console import Console

    from pasta_model.console import progress_bar
    from simulation.demo_settings import demo_cohort
    from simulation.twins.cohort import build_cohort

    settings = demo_cohort(seed=seed, spacing=spacing, sites=twins)
    console = Console()
    with progress_bar(console, "twins") as progress:
        tables = build_cohort(settings, output, workers=workers, progress=progress)
    for table in tables:
        console.print(str(table), soft_wrap=True)


@app.command()
@resumable
def study(
    file: Annotated[Path, typer.Argument(help="The study: a TOML file, see docs/evaluation.md.")],
    *,
    output: Annotated[
        Path | None, typer.Option(help="Its folder; default: outputs/NAME OF THE FILE.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")] = 2,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1, mps; auto: a GPU if there is one.")
    ] = "auto",
) -> None:
    """Train, synthesise, measure and report all methods of a study; goes on where it was stopped."""
    from rich.console import Console

    from pasta_model.console import log_to_console
    from server.deployment.processes import terminate_as_exit
    from simulation.study.command import run_study

    log_to_console(verbose=False)
    with terminate_as_exit():
        run_study(
            file, output or Path("outputs") / file.stem, workers=workers, device=device, console=Console()
        )


def main() -> None:
    """Entry point of `pasta-sim`."""
    run_command(app)
