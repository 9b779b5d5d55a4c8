# SPDX-License-Identifier: Apache-2.0
"""`pasta-client approve`: a person looks at what a bundle of code contains, and lets it run here or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from client.bundles import Bundle, BundleFile
    from client.kit import Kit

Site = Annotated[Path, typer.Argument(help="The kit's site.toml.")]
Word = Annotated[str, typer.Argument(help="A .fab file, or the first letters of the hash of one that waits.")]
Diff = Annotated[bool, typer.Option("--diff", help="Show what differs from the installed package.")]
Yes = Annotated[bool, typer.Option("--yes", help="Approve without asking.")]
List = Annotated[bool, typer.Option("--list", help="Show what is approved and what waits.")]
Hash = Annotated[str, typer.Option(help="Let the bundle with this hash run no more.")]


def approve(
    kit: Site,
    bundle: Word = "",
    *,
    diff: Diff = False,
    yes: Yes = False,
    listing: List = False,
    withdraw: Hash = "",
) -> None:
    """Show what a bundle of code contains, ask, and let it run at this site."""
    from rich.console import Console

    from client import approvals
    from client.bundles import read_bundle
    from client.kit import read_kit

    site, console = read_kit(kit, files=False), Console()
    if listing:
        _show_list(site, console)
    elif withdraw:
        gone = approvals.withdraw(site.guard.approved, withdraw)
        _note(site, "withdrawn", gone.hash, gone.name)
        console.print(f"withdrawn: {gone.name} ({gone.hash}); its next message is refused", markup=False)
    elif bundle:
        found = read_bundle(approvals.bundle_of(bundle, site.guard.quarantine))
        _show(found, console, diff=diff)
        if not yes:
            typer.confirm("Let this code run at your site, with the rights of whoever starts it?", abort=True)
        approval = approvals.approve(site.guard.approved, found)
        _note(site, "approved", found.hash, found.title)
        console.print(f"approved by {approval.by}: {found.title} ({found.hash})", markup=False)
    else:
        raise typer.BadParameter("name a bundle, or give --list or --withdraw HASH")


def _note(kit: Kit, event: str, digest: str, name: str) -> None:
    import getpass

    from client.audit import AuditLog

    log = AuditLog(kit.guard.audit, site=kit.site.name, consortium=kit.site.consortium)
    log.append({"event": event, "bundle": digest, "name": name, "by": getpass.getuser()})


def _show(bundle: Bundle, console: Console, *, diff: bool) -> None:
    from client.bundles import OWN_APP, Standing

    console.print(f"{bundle.title}\nSHA-256 {bundle.hash}", markup=False, highlight=False)
    warn = "" if bundle.client_app == OWN_APP else f"   NOT {OWN_APP}"
    console.print(f"runs here: {bundle.client_app}{warn}", markup=False, highlight=False)
    console.print(_files(bundle))
    console.print(_settings(bundle))
    if diff:
        for file in bundle.of(Standing.CHANGED) + bundle.of(Standing.NEW):
            for line in file.diff():
                colour = {"+": "green", "-": "red"}.get(line[:1])
                console.print(line, style=colour, markup=False, highlight=False, soft_wrap=True)
    same, changed, new = (len(bundle.of(standing)) for standing in Standing)
    running = sum(f.runs_here and f.standing is not Standing.SAME for f in bundle.files)
    console.print(
        f"{same} files are the same as installed here, {changed} are changed, {new} are new;"
        f" of those, {running} would run at this site"
        + ("" if diff or same == len(bundle.files) else " (--diff)"),
        highlight=False,
    )


def _files(bundle: Bundle) -> Table:
    """Return a table of every file; those that would run here and are not as installed come first."""
    from rich.table import Table

    from client.bundles import Standing

    def order(file: BundleFile) -> tuple[bool, bool, str]:
        return file.standing is Standing.SAME, not file.runs_here, file.path

    table = Table("file", "bytes", "compared with here", "runs here", "SHA-256", box=None)
    colours = {Standing.SAME: "dim", Standing.CHANGED: "yellow", Standing.NEW: "red"}
    for file in sorted(bundle.files, key=order):
        cells = (file.path, f"{len(file.content):,}", str(file.standing), "yes" if file.runs_here else "")
        table.add_row(*map(_plain, (*cells, file.digest)), style=colours[file.standing])
    return table


def _settings(bundle: Bundle) -> Table:
    """Return a table of the settings of a run that changes none: first how the sites are averaged."""
    from rich.table import Table

    from client.bundles import visible
    from pasta_model.config import Settings

    usual = Settings().flat()
    first = ("aggregation.", "federation.", "exchange.")
    shown = [name for name in bundle.config if name.startswith(first)]
    shown += [name for name, value in bundle.config.items() if name not in shown and usual.get(name) != value]
    table = Table("setting (a run may change it)", "in the bundle", "installed here", box=None)
    for name in shown:
        table.add_row(
            *map(_plain, (visible(name), visible(repr(bundle.config[name])), repr(usual.get(name))))
        )
    return table


def _show_list(kit: Kit, console: Console) -> None:
    from rich.table import Table

    from client.approvals import read_approved

    approved = read_approved(kit.guard.approved)
    table = Table("SHA-256", "bundle", "approved", "by", box=None)
    for one in approved.values():
        table.add_row(*map(_plain, (one.hash, one.name, one.approved, one.by)))
    for path in sorted(kit.guard.quarantine.glob("*.fab")):
        if path.stem not in approved:
            table.add_row(_plain(path.stem), _plain("waits in quarantine"), "no", "")
    console.print(table if table.row_count else "nothing is approved, nothing waits")


def _plain(text: str) -> str:
    """Keep a table from taking words of a bundle for its own markup."""
    from rich.markup import escape

    return escape(text)
