# SPDX-License-Identifier: Apache-2.0
"""Node keys: ECDSA P-384 in OpenSSH's format, as Flower's SuperNode reads them, and their fingerprints."""

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)

from pasta_model.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class NodeKey:
    """A new key of a site; `private` leaves for the kit, `public` is what the server invites."""

    private: bytes
    public: str


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key on P-384, the curve of every key here."""
    return ec.generate_private_key(ec.SECP384R1())


def new_node_key() -> NodeKey:
    """Make the key by which a site's SuperNode signs what it asks of the SuperLink."""
    key = new_key()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return NodeKey(private=private, public=public.decode("ascii"))


def fingerprint(public: str) -> str:
    """Return the SHA-256, in hex, of a public key's DER SubjectPublicKeyInfo; `public` is OpenSSH's line.

    Raises
    ------
    ConfigError
        When the line is no public key of OpenSSH.
    """
    try:
        key = load_ssh_public_key(public.encode("utf-8"))
    except (ValueError, UnsupportedAlgorithm) as error:
        wanted = "a public key as 'ecdsa-sha2-nistp384 AAAA...'"
        raise ConfigError(f"found {public[:40]!r}, wanted {wanted}") from error
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
