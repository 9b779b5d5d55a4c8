# SPDX-License-Identifier: Apache-2.0
"""`pasta-client audit`: what left, what came, and whether the log of it is whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pasta_model.console import EXIT_MISTAKE

if TYPE_CHECKING:
    from rich.table import Table

    from client.chain import Entry

SHOWN = 20

Site = Annotated[Path, typer.Argument(help="The kit's site.toml.")]
Last = Annotated[int, typer.Option(min=0, help="How many exchanges to show.")]
AsJson = Annotated[bool, typer.Option("--json", help="Everything, for programs.")]


def audit(kit: Site, *, last: Last = SHOWN, as_json: AsJson = False) -> None:
    """Show the log of exchanges and check its chain; exit status 2 when it is broken."""
    from rich.console import Console

    from client.audit import AuditLog
    from client.kit import read_kit

    site = read_kit(kit, files=False)
    log = AuditLog(site.guard.audit, site=site.site.name, consortium=site.site.consortium)
    chain, entries, console = log.verify(), list(log.entries()), Console()
    if as_json:
        told = {**asdict(chain), "holds": chain.holds, "runs": _totals(entries), "entries": entries}
        typer.echo(json.dumps(told, indent=2))
    else:
        console.print(_exchanges(entries[len(entries) - last :] if last else []))
        console.print(_runs(entries))
    if not chain.holds:
        typer.echo(f"line {chain.broken_line} breaks the chain: {chain.reason}", err=True)
        raise typer.Exit(EXIT_MISTAKE)
    if not as_json:
        later = "; a killed process left half a line, the next one keeps it aside" if chain.torn else ""
        typer.echo(f"chain of {chain.lines} lines holds{later}")
        typer.echo(
            f"note this elsewhere, to see later that nobody wrote all anew: {chain.lines} {chain.hash}"
        )


def _totals(entries: Iterable[Entry]) -> dict[str, dict[str, Any]]:
    """Sum up the exchanges of each run."""
    runs: dict[str, Counter[str]] = {}
    for entry in entries:
        if "run" in entry:
            counted = runs.setdefault(str(entry["run"]), Counter())
            counted[str(entry.get("event"))] += 1
            counted[f"bytes {entry.get('direction')}"] += int(entry.get("bytes", 0))
    return {run: dict(counted) for run, counted in runs.items()}


def _exchanges(entries: Iterable[Entry]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "line", "time (UTC)", "event", "run", "type", "bytes", "arrays", "left, or why not", box=None
    )
    for entry in entries:
        when = str(entry.get("time", ""))[:19].replace("T", " ")
        cells = [entry.get(name, "") for name in ("number", "event", "run", "kind", "bytes", "arrays")]
        cells.insert(1, when)
        table.add_row(*(escape(_short(cell)) for cell in (*cells, _story(entry))))
    return table


def _runs(entries: Iterable[Entry]) -> Table:
    from rich.table import Table

    events = ("received", "sent", "failed", "refused")
    table = Table("run", *events, "bytes in", "bytes out", box=None)
    for run, counted in _totals(entries).items():
        table.add_row(run, *(f"{counted.get(name, 0):,}" for name in (*events, "bytes in", "bytes out")))
    return table


def _story(entry: Entry) -> str:
    if "reason" in entry:
        return f"{entry['reason']} (reference {entry.get('reference')})"
    if "values" in entry:
        kept = f"; kept back: {', '.join(entry['withheld'])}" if entry.get("withheld") else ""
        return ", ".join(entry["values"]) + kept
    return str(entry.get("name", f"with code {entry['bundle'][:12]}" if "bundle" in entry else ""))


def _short(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
