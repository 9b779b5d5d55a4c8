# SPDX-License-Identifier: Apache-2.0
"""`pasta-server provision` and what changes a consortium later: add, renew and revoke."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.provision.steps import Expiry

Plan = Annotated[Path, Argument(help="consortium.toml: the server's names and ports, and the sites.")]
NewFolder = Annotated[Path, Argument(help="A new folder for keys, certificates and kits.")]
Folder = Annotated[Path, Argument(help="The consortium's folder, made by 'pasta-server provision'.")]
Site = Annotated[str, Argument(help="The site's name.")]
MaxSubjects = Annotated[int | None, Option(min=1, help="Most subjects that the site may claim.")]
Contact = Annotated[str | None, Option(help="Whom to ask at the site.")]
NodeKey = Annotated[bool, Option("--node-key", help="A new node key too, not only a new certificate.")]


def provision(plan: Plan, folder: NewFolder) -> None:
    """Make a consortium: authority, server's certificate and proxy, and a kit for each site."""
    from server.provision.steps import provision as make

    expiries = make(plan, folder)
    _show(
        expiries,
        f"made {folder}: {len(expiries) - 2} kits in {folder / 'kits'}",
        f"keep {folder / 'authority'} to yourself; {folder / 'server' / 'README.md'} says how to go on",
    )


def add_site(
    folder: Folder, site: Site, *, max_subjects: MaxSubjects = None, contact: Contact = None
) -> None:
    """Invite one more site and make its kit."""
    from server.provision.consortium import site_entry
    from server.provision.steps import add_site as add

    _show(
        add(folder, site_entry(site, max_subjects=max_subjects, contact=contact)),
        f"{site} is invited: hand {folder / 'kits' / site} over to it",
    )


def renew_site(folder: Folder, site: Site, *, node_key: NodeKey = False) -> None:
    """Give a site a new certificate (and node key); the ones before are revoked."""
    from server.provision.steps import renew_site as renew

    after = ["its old node key is shut out at once: until it has the new one, the site cannot take part"]
    _show(
        renew(folder, site, node_key=node_key),
        f"hand {folder / 'kits' / site / 'keys'} over to {site}; its site.toml and policy.toml stay",
        f"when it is there, shut out the old certificate: {_reload(folder)}",
        *(after if node_key else ()),
    )


def renew_server(folder: Folder) -> None:
    """Make a new certificate for the server, with the names in the folder's consortium.toml."""
    from server.provision.steps import renew_server as renew

    _show(
        renew(folder),
        f"bring it into use, between two runs: {_reload(folder)}",
        f"and start 'pasta-server superlink {folder}' again",
    )


def revoke_site(folder: Folder, site: Site) -> None:
    """Shut a site out: revoke its certificates, invite its node key no longer, delete its kit."""
    from server.provision.steps import revoke_site as revoke

    revoke(folder, site)
    _show(
        (),
        f"{site} is revoked: it is invited no longer, and SuperLink forgets its key",
        f"close the door to its certificate too: {_reload(folder)}",
    )


def _reload(folder: Path) -> str:
    return f"nginx -p {(folder / 'server').absolute()} -c nginx.conf -s reload"


def _show(expiries: "Sequence[Expiry]", *lines: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from server.provision.rendering import day

    console = Console()
    if expiries:
        table = Table("certificate", "valid until")
        for expiry in expiries:
            table.add_row(expiry.what, day(expiry.until))
        console.print(table)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
