# SPDX-License-Identifier: Apache-2.0
"""`pasta-client check`: a table of ticks, and what to do for each cross."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

Site = Annotated[Path, Argument(help="The kit's site.toml, or its folder.")]
AsJson = Annotated[bool, Option("--json", help="Print the findings as JSON.")]


def check(site: Site, *, as_json: AsJson = False) -> None:
    """See whether this site is ready to join; exit status 0 when all are ticks, 2 otherwise."""
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from client.check import check_site
    from pasta_model.console import EXIT_MISTAKE

    console = Console()
    with Console(stderr=True).status("checking"):
        findings = list(check_site(site))
    ready = all(finding.good for finding in findings)
    if as_json:
        found = {"ready": ready, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        table = Table("", "check", "found", "what to do")
        for finding in findings:
            mark = Text("✓", style="green") if finding.good else Text("✗", style="bold red")
            table.add_row(mark, finding.check, Text(finding.found), Text(finding.advice))
        console.print(table)
        crosses = sum(not finding.good for finding in findings)
        console.print("ready to join" if ready else f"not ready: {crosses} cross(es)")
    if not ready:
        raise typer.Exit(EXIT_MISTAKE)
