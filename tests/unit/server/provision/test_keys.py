# SPDX-License-Identifier: Apache-2.0
"""Node keys: as Flower reads them, and the fingerprint by which the server knows a site."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, public_key_to_bytes, uses_nist_ec_curve

from pasta_model.errors import ConfigError
from server.provision.keys import fingerprint, new_node_key


def test_flower_reads_the_key_as_it_reads_one_of_ssh_keygen() -> None:
    node = new_node_key()
    private, public = load_ssh_private_key(node.private, None), load_ssh_public_key(node.public.encode())
    assert isinstance(private, ec.EllipticCurvePrivateKey)  # what flower-supernode asks for
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert uses_nist_ec_curve(public)  # what `flwr supernode register` asks for
    assert private.public_key() == public
    assert node.public.startswith("ecdsa-sha2-nistp384 AAAA")


def test_the_fingerprint_is_that_of_the_key_that_flower_reports() -> None:
    node = new_node_key()
    public = load_ssh_public_key(node.public.encode())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    reported = bytes_to_public_key(public_key_to_bytes(public))  # NodeInfo.public_key
    der = reported.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert fingerprint(node.public) == hashlib.sha256(der).hexdigest()


def test_a_fingerprint_that_must_not_change() -> None:
    """By: ssh-keygen -e -m PKCS8 -f key.pub | openssl pkey -pubin -outform DER | sha256sum."""
    public = (
        "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBC9o4wrjxET3QnXxkX+xu4AwyZQf"
        "l0Bpbh85nr4RrFrot0eIM6wrC3j9Vx631ramF3le/W/CoRsQJvqwoZ/vdiaXCNBChPlLaKddsQsuJ6BsXUjayl/JtHJ/r2sux0Oxfg=="
    )
    wanted = "3b57f27b3c23c6c05e3c8d857ea2ebbe4994c0585778f2cd0a7c1a2efac00f2e"
    assert (fingerprint(public), fingerprint(f"{public} ann@alder")) == (wanted, wanted)


def test_keys_are_never_the_same() -> None:
    assert new_node_key().public != new_node_key().public


@pytest.mark.parametrize("line", ["", "no key", "ecdsa-sha2-nistp384 AAAA", "ssh-rsa é"])
def test_what_is_no_public_key_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match="wanted a public key"):
        fingerprint(line)
