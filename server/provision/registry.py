# SPDX-License-Identifier: Apache-2.0
"""Who is invited, who was, and every certificate that was issued: three TOML files that commands keep."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

from cryptography import x509
from pydantic import Field, ValidationError

from pasta_model.config import read_toml
from pasta_model.errors import ConfigError
from pasta_model.files import write_text
from pasta_model.sections import Positive, Section
from server.provision.keys import fingerprint
from server.provision.rendering import render

INVITED = "invited.toml"
REVOKED = "revoked.toml"
ISSUED = "issued.toml"
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Table = TypeVar("Table", bound=Section)


class Invited(Section):
    """An invited site: its node's public key, that key's fingerprint, how many subjects it may claim."""

    key: Digest
    public_key: str
    max_subjects: Positive | None = None


class RevokedKey(Section):
    """A node key that is invited no longer."""

    site: str
    key: Digest
    public_key: str
    since: datetime


class IssuedCertificate(Section):
    """A certificate that this authority signed; `site` is empty for the server's."""

    serial: Annotated[str, Field(pattern=r"^[0-9a-f]+$")]
    site: str
    issued: datetime
    expires: datetime

    @property
    def number(self) -> int:
        """The serial number."""
        return int(self.serial, 16)


class _InvitedFile(Section):
    sites: dict[str, Invited] = Field(default_factory=dict)


class _RevokedFile(Section):
    keys: Annotated[tuple[RevokedKey, ...], Field(strict=False)] = ()


class _IssuedFile(Section):
    certificates: Annotated[tuple[IssuedCertificate, ...], Field(strict=False)] = ()


def invitation(public: str, *, max_subjects: int | None) -> Invited:
    """Return the invitation of a node's public key, OpenSSH's line."""
    return Invited(key=fingerprint(public), public_key=public, max_subjects=max_subjects)


def read_invited(server: Path) -> dict[str, Invited]:
    """Read invited.toml of the server's folder: site -> its invitation."""
    return _read(server / INVITED, _InvitedFile).sites


def write_invited(server: Path, sites: Mapping[str, Invited]) -> None:
    """Write invited.toml."""
    write_text(server / INVITED, render("invited.toml.j2", sites=sites))


def read_revoked(server: Path) -> tuple[RevokedKey, ...]:
    """Read revoked.toml of the server's folder; a consortium that revoked nobody has none."""
    path = server / REVOKED
    return _read(path, _RevokedFile).keys if path.exists() else ()


def add_revoked(server: Path, site: str, invited: Invited) -> None:
    """Note in revoked.toml that a node key is invited no longer; a second time changes nothing."""
    keys = read_revoked(server)
    if any(revoked.key == invited.key for revoked in keys):
        return
    now = datetime.now(UTC).replace(microsecond=0)
    added = RevokedKey(site=site, key=invited.key, public_key=invited.public_key, since=now)
    write_text(server / REVOKED, render("revoked.toml.j2", keys=(*keys, added)))


def read_issued(authority: Path) -> tuple[IssuedCertificate, ...]:
    """Read issued.toml of the authority's folder."""
    path = authority / ISSUED
    return _read(path, _IssuedFile).certificates if path.exists() else ()


def add_issued(authority: Path, certificates: Iterable[tuple[str, x509.Certificate]]) -> None:
    """Note certificates and their sites in issued.toml, before they are handed to anyone."""
    added = [
        IssuedCertificate(
            serial=f"{certificate.serial_number:x}",
            site=site,
            issued=certificate.not_valid_before_utc,
            expires=certificate.not_valid_after_utc,
        )
        for site, certificate in certificates
    ]
    known = (*read_issued(authority), *added)
    write_text(authority / ISSUED, render("issued.toml.j2", certificates=known))


def _read(path: Path, kind: type[Table]) -> Table:
    try:
        return kind.model_validate(read_toml(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{path}: {place}: {first['msg']}, found {first['input']!r}; restore the file"
        ) from error
