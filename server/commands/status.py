# SPDX-License-Identifier: Apache-2.0
"""`pasta-server status` and `pasta-server rounds`: how a run stands, and how it went."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.markup import escape
from typer import Argument, Option

from pasta_model.errors import FederationError

if TYPE_CHECKING:
    from rich.table import Table

Run = Annotated[Path, Argument(help="Output folder of a run.")]
LATE_AFTER = 2.0  # a site is late when it needs so many times as long as the slowest round before


def status(
    run: Run,
    *,
    watch: Annotated[bool, Option(help="Show it again every few seconds, until the run is over.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print status.json as it is.")] = False,
) -> None:
    """Show how a run stands: its round, how long it will take, each site, bytes, whom it waits for."""
    from rich.console import Console, Group
    from rich.live import Live

    console = Console()
    if as_json:
        console.print_json(data=_status(run))
        return

    def shown() -> Group:
        found = _status(run)
        return Group(*headline(found, now=time.time()), sites_table(found, now=time.time()))

    if not watch:
        console.print(shown())
        return
    with Live(shown(), console=console, auto_refresh=False) as live:
        while _status(run)["state"] not in ("finished", "failed"):
            time.sleep(2.0)
            live.update(shown(), refresh=True)


def headline(status: dict[str, Any], *, now: float) -> list[str]:
    """Say in a few lines how the run stands.

    Parameters
    ----------
    status
        Content of `status.json`.
    now
        Seconds since 1970.
    """
    lines = [f"run {status['run']}: {status['state']}, round {status['round']} of {status['rounds']}"]
    past = status["round_seconds"]
    left = status["rounds"] - status["round"]
    if past and left > 0 and status["state"] not in ("finished", "failed"):
        # The median: a round that waited for a site says little about the next.
        seconds = sorted(past)[len(past) // 2] * left
        lines.append(f"about {_duration(seconds)} to go ({_duration(sorted(past)[len(past) // 2])} a round)")
    if privacy := status.get("privacy"):
        lines.append(
            f"privacy of every {privacy['unit']}: epsilon {privacy['spent']:.2f} of {privacy['epsilon']:g}"
            f" spent, delta {privacy['delta']:g}"
        )
    lines += [_reference(what, facts) for what, facts in status.get("references", {}).items()]
    if status["waiting_for"]:
        lines.append(f"waiting for: {', '.join(status['waiting_for'])}")
    if status.get("why"):
        lines.append(escape(str(status["why"])))
    quiet = now - status["time"]
    if status["state"] not in ("finished", "failed"):
        lines.append(f"last change {_duration(quiet)} ago")
    return lines


def sites_table(status: dict[str, Any], *, now: float) -> "Table":
    """Return a table of the sites; one that takes much longer than usual is called late."""
    from rich.table import Table

    table = Table("site", "state", "for", "round", "subjects", "MB to it", "MB from it", "why")
    slowest = max(status["round_seconds"], default=0.0)
    for name, site in sorted(status["sites"].items()):
        age = now - site["since"]
        late = site["state"] == "asked" and slowest and age > LATE_AFTER * slowest
        table.add_row(
            name,
            "late" if late else site["state"],
            _duration(age),
            str(site.get("round", "-")),
            str(site.get("subjects", "-")),
            f"{site.get('bytes_down', 0) / 1e6:.1f}",
            f"{site.get('bytes_up', 0) / 1e6:.1f}",
            escape(str(site.get("why", ""))) if site["state"] not in ("answered", "asked", "joined") else "",
        )
    return table


def rounds(run: Run) -> None:
    """Show the rounds of a run: who answered, loss, validation error, time, bytes, who failed and why."""
    from rich.console import Console
    from rich.table import Table

    try:
        lines = (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
    except OSError as error:
        if (run / "status.json").is_file():
            raise FederationError(
                f"{run}: no round is complete yet; see 'pasta-server status {run}'"
            ) from error
        raise FederationError(f"{run}: no history.jsonl here; give the run's output folder") from error
    except ValueError as error:
        raise FederationError(f"{run}: history.jsonl is damaged ({error})") from error
    private = any(record.get("epsilon") is not None for record in records)
    columns = ("epsilon",) if private else ()
    table = Table("round", "sites", "mean loss", "mean SUVR error", "seconds", "MB", *columns, "missing")
    for record in records:
        loss, mae = record["loss"].values(), record["valid_mae"].values()
        table.add_row(
            str(record["round"]),
            str(len(record["norms"]) or len(mae)),
            f"{sum(loss) / len(loss):.4f}" if loss else "-",
            f"{sum(mae) / len(mae):.4f}" if mae else "-",
            f"{record['seconds']:.1f}",
            f"{record['bytes'] / 1e6:.1f}",
            *([f"{record['epsilon']:.2f}"] if private else []),
            escape("; ".join(f"{name}: {why}" for name, why in record["failures"].items())),
        )
    Console().print(table)


def _reference(what: str, facts: dict[str, Any]) -> str:
    """Say whose sums are in the norms, or in what is familiar, and whose are not."""
    sites = facts["sites"]
    said = f"{what}: {facts['persons']} persons of {', '.join(sites)}" if sites else f"{what}: not made"
    why = [str(facts["why"])] if facts.get("why") else []
    why += [f"without {name}: {reason}" for name, reason in facts.get("left_out", {}).items()]
    return escape("; ".join([said, *why]))


def _status(run: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((run / "status.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise FederationError(f"{run}: no status.json here; give the run's output folder") from error
    except ValueError as error:
        raise FederationError(f"{run}: status.json is damaged ({error})") from error
    return found


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    )
