# SPDX-License-Identifier: Apache-2.0
"""What a coordinator does with a consortium: make it, let sites in, renew them, shut them out.

Each step writes in such an order that, stopped at any moment, the same command completes it: a site is let in
by the last file that is written, and shut out by the first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pasta_model.errors import ConfigError
from pasta_model.files import write_text
from server.provision import registry
from server.provision.authority import Authority, Credentials
from server.provision.consortium import Consortium, Plan, SiteEntry, read_consortium, with_site
from server.provision.keys import new_node_key
from server.provision.kits import renew_kit, write_kit, write_public
from server.provision.private import new_private_folder, remove_private_folder, write_private
from server.provision.proxy import write_proxy
from server.provision.rendering import render


@dataclass(frozen=True)
class Expiry:
    """Until when a certificate is valid."""

    what: str
    until: datetime


@dataclass(frozen=True)
class House:
    """The folder of a consortium, and where things lie in it."""

    root: Path

    @property
    def plan(self) -> Path:
        """The copy of consortium.toml; add-site extends it."""
        return self.root / "consortium.toml"

    @property
    def authority(self) -> Path:
        """The authority's folder: its key is the consortium's secret."""
        return self.root / "authority"

    @property
    def server(self) -> Path:
        """What runs at the coordinator: SuperLink and nginx read it."""
        return self.root / "server"

    def kit(self, site: str) -> Path:
        """Return where the kit of a site lies."""
        return self.root / "kits" / site


def provision(source: Path, folder: Path) -> list[Expiry]:
    """Make a consortium in a new folder, whole or not at all.

    Raises
    ------
    ConfigError
        When `source` cannot be used, or `folder` is there already.
    """
    if folder.exists() or folder.is_symlink():
        raise ConfigError(
            f"{folder}: is there already, and nothing is overwritten; choose another name, or change what is"
            " there with add-site, renew-site, renew-server or revoke-site"
        )
    consortium = read_consortium(source)
    with new_private_folder(folder) as temporary:
        return _fill(House(temporary), consortium, source.read_text(encoding="utf-8"))


def add_site(folder: Path, entry: SiteEntry) -> list[Expiry]:
    """Invite one more site, or again one that was revoked, and make its kit.

    Raises
    ------
    ConfigError
        When the site is invited already, or consortium.toml says something else about it.
    """
    house, consortium, authority = _open(folder)
    invited = registry.read_invited(house.server)
    if entry.name in invited:
        raise ConfigError(f"{entry.name}: takes part already; for new keys use renew-site")
    known = consortium.site(entry.name)
    given = {name: value for name, value in entry if name != "name" and value is not None}
    if known and any(getattr(known, name) != value for name, value in given.items()):
        raise ConfigError(
            f"{entry.name}: {house.plan} says something else about this site; change it there, then give"
            " its name alone"
        )
    text = None if known else with_site(house.plan, entry)
    site = known or entry
    remove_private_folder(house.kit(site.name))  # not invited: its keys open nothing
    expiry, invitation = _make_kit(house, consortium.consortium, site, authority)
    if text:
        write_text(house.plan, text)
    registry.write_invited(house.server, invited | {site.name: invitation})
    return [expiry]


def renew_site(folder: Path, name: str, *, node_key: bool) -> list[Expiry]:
    """Make a new certificate, and if wanted a new node key, for a site; revoke what they replace.

    Raises
    ------
    ConfigError
        When the site is not invited.
    """
    house, consortium, authority = _open(folder)
    invited = registry.read_invited(house.server)
    before, site = _invited(name, invited), consortium.site(name) or SiteEntry(name=name)
    plan = consortium.consortium
    client = authority.client(plan.name, name, days=plan.valid_days)
    registry.add_issued(house.authority, [(name, client.certificate)])
    node = new_node_key() if node_key else None
    renew_kit(house.kit(name), plan, site, authority=authority.credentials, client=client, node=node)
    if node:
        registry.add_revoked(house.server, name, before)
        now = registry.invitation(node.public, max_subjects=before.max_subjects)
        registry.write_invited(house.server, invited | {name: now})
    _revoke(house, authority, _serials(house, name) - {client.certificate.serial_number})
    return [_expiry(f"site {name}", client)]


def renew_server(folder: Path) -> list[Expiry]:
    """Make a new certificate for the server, with the names that consortium.toml gives it now."""
    house, consortium, authority = _open(folder)
    plan = consortium.consortium
    server = authority.server(plan.name, plan.names, days=plan.valid_days)
    registry.add_issued(house.authority, [("", server.certificate)])
    _write_server(house, server)
    _revoke(house, authority, _serials(house, "") - {server.certificate.serial_number})
    return [_expiry("server", server)]


def revoke_site(folder: Path, name: str) -> None:
    """Shut a site out: its certificates are revoked, its node key is invited no longer, its kit is deleted.

    Raises
    ------
    ConfigError
        When the site is not invited.
    """
    house, _, authority = _open(folder)
    invited = registry.read_invited(house.server)
    before = _invited(name, invited)
    _revoke(house, authority, _serials(house, name))
    registry.add_revoked(house.server, name, before)
    remove_private_folder(house.kit(name))
    registry.write_invited(house.server, {site: entry for site, entry in invited.items() if site != name})


def _fill(house: House, consortium: Consortium, text: str) -> list[Expiry]:
    plan = consortium.consortium
    for part in (house.authority, house.server, house.root / "kits"):
        part.mkdir(mode=0o700)
    write_text(house.plan, text)
    authority = Authority.new(plan.name)
    write_private(house.authority / "ca.key", authority.credentials.key_pem)
    for part in (house.authority, house.server):  # the server needs no other file of the authority
        write_public(part / "ca.crt", authority.credentials.certificate_pem)
    _revoke(house, authority, [])
    server = authority.server(plan.name, plan.names, days=plan.valid_days)
    registry.add_issued(house.authority, [("", server.certificate)])
    _write_server(house, server)
    write_proxy(house.server, plan)
    write_text(house.server / "README.md", render("server.md.j2", plan=plan))
    made = {site.name: _make_kit(house, plan, site, authority) for site in consortium.sites}
    registry.write_invited(house.server, {name: invitation for name, (_, invitation) in made.items()})
    sites = [expiry for expiry, _ in made.values()]
    return [_expiry("authority", authority.credentials), _expiry("server", server), *sites]


def _make_kit(
    house: House, plan: Plan, site: SiteEntry, authority: Authority
) -> tuple[Expiry, registry.Invited]:
    client, node = authority.client(plan.name, site.name, days=plan.valid_days), new_node_key()
    registry.add_issued(house.authority, [(site.name, client.certificate)])
    with new_private_folder(house.kit(site.name)) as kit:
        write_kit(kit, plan, site, authority=authority.credentials, client=client, node=node)
    invitation = registry.invitation(node.public, max_subjects=site.max_subjects)
    return _expiry(f"site {site.name}", client), invitation


def _write_server(house: House, server: Credentials) -> None:
    write_private(house.server / "server.key", server.key_pem)
    write_public(house.server / "server.crt", server.certificate_pem)


def _open(folder: Path) -> tuple[House, Consortium, Authority]:
    house = House(folder)
    if not all(path.is_file() for path in (house.plan, house.server / registry.INVITED)):
        raise ConfigError(f"{folder}: no consortium here; make one with 'pasta-server provision'")
    try:
        pems = [(house.authority / name).read_bytes() for name in ("ca.crt", "ca.key")]
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: cannot be read ({error.strerror}); bring the authority's folder back to where"
            " certificates are made"
        ) from error
    return house, read_consortium(house.plan), Authority.read(*pems)


def _invited(name: str, invited: dict[str, registry.Invited]) -> registry.Invited:
    if name not in invited:
        raise ConfigError(f"{name}: no such site; invited are {', '.join(sorted(invited)) or 'none'}")
    return invited[name]


def _serials(house: House, site: str) -> set[int]:
    return {issued.number for issued in registry.read_issued(house.authority) if issued.site == site}


def _revoke(house: House, authority: Authority, serials: Iterable[int]) -> None:
    """Sign the list of revoked certificates anew, for the authority's records and for nginx."""
    path = house.authority / "crl.pem"
    before = x509.load_pem_x509_crl(path.read_bytes()) if path.exists() else None
    content = authority.revocations(sorted(serials), before=before).public_bytes(Encoding.PEM)
    write_public(path, content)
    write_public(house.server / "crl.pem", content)


def _expiry(what: str, credentials: Credentials) -> Expiry:
    return Expiry(what, credentials.certificate.not_valid_after_utc)
