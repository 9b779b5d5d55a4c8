# SPDX-License-Identifier: Apache-2.0
"""The keys of the kit: whether they belong together, are in date, and can be read by nobody else."""

import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from cryptography.x509.oid import NameOID

from client.checks.finding import Finding, cross, tick

CERTIFICATE, CERTIFICATE_KEY, NODE_KEY = "certificate", "certificate's key", "node key"
SOON_DAYS = 30
_NEW_KIT = "ask the coordinator for a new kit ('pasta-server renew-site')"


def check_certificate(
    certificate: Path, *, key: Path, authority: Path, site: str, now: datetime | None = None
) -> Iterator[Finding]:
    """Look whether the site's certificate is its own, in date, and signed by the consortium's authority."""
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    names = [str(part.value) for part in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    now = now or datetime.now(UTC)
    days = (found.not_valid_after_utc - now).days
    until = f"valid until {found.not_valid_after_utc:%d %b %Y}, {days} days"
    if not _signed(found, issuer):
        yield cross(CERTIFICATE, "it was not signed by keys/ca.crt", _NEW_KIT)
    elif names != [site]:
        yield cross(CERTIFICATE, f"it is for {', '.join(names) or 'nobody'}, the kit for {site}", _NEW_KIT)
    elif now < found.not_valid_before_utc:
        yield cross(CERTIFICATE, f"not valid before {found.not_valid_before_utc:%c}", "set this clock right")
    elif now > found.not_valid_after_utc:
        yield cross(CERTIFICATE, f"it expired on {found.not_valid_after_utc:%d %b %Y}", _NEW_KIT)
    else:
        yield tick(CERTIFICATE, until, f"soon: {_NEW_KIT}" if days < SOON_DAYS else "")
    yield from _private(CERTIFICATE_KEY, key, found.public_key())


def check_node_key(path: Path) -> Iterator[Finding]:
    """Look whether the key that signs this site's requests is one that Flower takes."""
    yield from _private(NODE_KEY, path, None)


def _private(check: str, path: Path, public: object) -> Iterator[Finding]:
    """Look at a private key: readable by its owner only, on a NIST curve, of this certificate."""
    mode = stat.S_IMODE(path.stat().st_mode)
    key = _load(path.read_bytes())
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield cross(check, f"others can read it (mode {mode:o})", f"chmod 600 {path}")
    elif not isinstance(key, ec.EllipticCurvePrivateKey):
        yield cross(check, f"{type(key).__name__}, wanted an elliptic curve's", _NEW_KIT)
    elif public is not None and key.public_key() != public:
        yield cross(check, "it belongs to another certificate", "put back the kit's own pair, or " + _NEW_KIT)
    else:
        yield tick(check, f"{key.curve.name}, readable by its owner only")


def _load(content: bytes) -> object:
    try:
        if b"OPENSSH PRIVATE KEY" in content:
            return load_ssh_private_key(content, password=None)
        return load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return error


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
