# SPDX-License-Identifier: Apache-2.0
"""The start-up kit of a site: its keys, its settings, its policy, two scripts and what to do with them."""

from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from pasta_model.files import atomic_path, write_text
from server.provision.authority import Credentials
from server.provision.consortium import Plan, SiteEntry
from server.provision.keys import NodeKey
from server.provision.private import write_private
from server.provision.rendering import render

_SAME_VERSION = ("pasta-federated", "flwr", "torch")
_SCRIPTS = ("check.sh", "start.sh")


def write_kit(
    kit: Path, plan: Plan, site: SiteEntry, *, authority: Credentials, client: Credentials, node: NodeKey
) -> None:
    """Fill a new folder, which exists and is its owner's alone, with all that a site needs."""
    write_text(kit / "site.toml", render("site.toml.j2", plan=plan, site=site, versions=_versions()))
    write_text(kit / "policy.toml", render("policy.toml.j2", site=site))
    for name in _SCRIPTS:
        write_text(kit / name, render(f"{name}.j2"))
        mode = (kit / name).stat().st_mode
        (kit / name).chmod(mode | (mode & 0o444) >> 2)  # who may read it may run it
    write_keys(kit, authority=authority, client=client, node=node)
    _write_readme(kit, plan, site, authority=authority, client=client, renewed=False)


def renew_kit(
    kit: Path,
    plan: Plan,
    site: SiteEntry,
    *,
    authority: Credentials,
    client: Credentials,
    node: NodeKey | None,
) -> None:
    """Put new keys into a kit; its policy.toml and site.toml stay as they are.

    Where the kit was handed over and deleted, the new folder holds the keys alone.
    """
    write_keys(kit, authority=authority, client=client, node=node)
    _write_readme(kit, plan, site, authority=authority, client=client, renewed=True)


def write_keys(kit: Path, *, authority: Credentials, client: Credentials, node: NodeKey | None) -> None:
    """Write certificates and private keys; without a node key the one that is there stays."""
    keys = kit / "keys"
    for folder in (kit, keys):
        folder.mkdir(mode=0o700, exist_ok=True)
    write_public(keys / "ca.crt", authority.certificate_pem)
    write_private(keys / "client.key", client.key_pem)
    write_public(keys / "client.crt", client.certificate_pem)
    if node:
        write_private(keys / "node.key", node.private)
        write_public(keys / "node.pub", f"{node.public}\n".encode())


def write_public(target: Path, content: bytes) -> None:
    """Write what may be read by anyone, atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def _versions() -> dict[str, str]:
    """Return what the sites should have, too; a build for other hardware (`+cpu`) is the same version."""
    return {package: version(package).partition("+")[0] for package in _SAME_VERSION}


def _write_readme(
    kit: Path, plan: Plan, site: SiteEntry, *, authority: Credentials, client: Credentials, renewed: bool
) -> None:
    expiry: dict[str, datetime] = {
        "client": client.certificate.not_valid_after_utc,
        "authority": authority.certificate.not_valid_after_utc,
    }
    node = (kit / "keys" / "node.key").exists()
    text = render("kit.md.j2", plan=plan, site=site, expiry=expiry, renewed=renewed, node=node)
    write_text(kit / "README.md", text)
