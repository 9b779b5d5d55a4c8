# SPDX-License-Identifier: Apache-2.0
"""Certificates, judged by the library's own verification and not by us."""

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from pasta_model.errors import ConfigError
from server.provision.authority import AUTHORITY_DAYS, Authority

NAMES = ("pasta.example.org", "10.0.0.7", "fd00::7", "localhost")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("north-sea")


def policy(authority: Authority, *, after: timedelta = timedelta()) -> PolicyBuilder:
    store = Store([authority.credentials.certificate])
    return PolicyBuilder().store(store).time(datetime.now(UTC) + after)


def test_a_site_is_verified_by_its_own_authority_only(authority: Authority) -> None:
    client = authority.client("north-sea", "alder", days=30)
    verified = policy(authority).build_client_verifier().verify(client.certificate, [])
    assert verified.chain == [client.certificate, authority.credentials.certificate]
    stranger = Authority.new("north-sea")  # of the same name
    with pytest.raises(VerificationError):
        policy(stranger).build_client_verifier().verify(client.certificate, [])


def test_a_site_is_known_by_its_name(authority: Authority) -> None:
    certificate = authority.client("north-sea", "zürich", days=30).certificate
    assert [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [
        "zürich"
    ]
    assert certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "north-sea"


@pytest.mark.parametrize("name", [*NAMES, "127.0.0.1"])
def test_the_server_is_verified_under_each_of_its_names(authority: Authority, name: str) -> None:
    server = authority.server("north-sea", NAMES, days=30)
    try:
        subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    policy(authority).build_server_verifier(subject).verify(server.certificate, [])
    with pytest.raises(VerificationError):
        policy(authority).build_server_verifier(x509.DNSName("elsewhere.org")).verify(server.certificate, [])


def test_no_name_stands_twice_in_the_servers_certificate(authority: Authority) -> None:
    names = authority.server("north-sea", NAMES, days=30).certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert len(list(names.value)) == len(NAMES) + 1


def test_neither_may_be_the_other(authority: Authority) -> None:
    server, client = authority.server("c", NAMES, days=30), authority.client("c", "alder", days=30)
    with pytest.raises(VerificationError, match="EKU"):
        policy(authority).build_client_verifier().verify(server.certificate, [])
    usage = client.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_site_cannot_issue_certificates(authority: Authority) -> None:
    client = authority.client("c", "alder", days=30)
    forged = Authority(client).client("c", "birch", days=10)
    with pytest.raises(VerificationError):
        policy(authority).build_client_verifier().verify(forged.certificate, [client.certificate])


def test_the_authoritys_own_marks(authority: Authority) -> None:
    certificate = authority.credentials.certificate
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    assert not usage.value.digital_signature
    assert isinstance(authority.credentials.key.curve, ec.SECP384R1)


def test_certificates_end_when_they_should(authority: Authority) -> None:
    client = authority.client("c", "alder", days=30).certificate
    policy(authority, after=timedelta(days=29)).build_client_verifier().verify(client, [])
    with pytest.raises(VerificationError, match=r"not valid at validation time"):
        policy(authority, after=timedelta(days=31)).build_client_verifier().verify(client, [])


def test_no_certificate_outlives_its_authority(authority: Authority) -> None:
    client = authority.client("c", "alder", days=2 * AUTHORITY_DAYS).certificate
    assert client.not_valid_after_utc == authority.credentials.certificate.not_valid_after_utc


def test_the_list_of_revoked_grows_and_is_signed_anew(authority: Authority) -> None:
    empty = authority.revocations([])
    first = authority.revocations([11], before=empty)
    second = authority.revocations([12, 11], before=first)
    assert [len(list(found)) for found in (empty, first, second)] == [0, 1, 2]
    numbers = [
        found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        for found in (empty, first, second)
    ]
    assert numbers == [1, 2, 3]
    assert second.is_signature_valid(authority.credentials.key.public_key())
    assert second.issuer == authority.credentials.certificate.subject
    assert {entry.serial_number for entry in second} == {11, 12}


def test_the_list_of_revoked_lasts_as_long_as_the_authority(authority: Authority) -> None:
    """nginx refuses every site when the list has expired."""
    assert authority.revocations([]).next_update_utc == authority.credentials.certificate.not_valid_after_utc


def test_an_authority_that_is_damaged_or_mixed_up_is_refused(authority: Authority) -> None:
    own, other = authority.credentials, Authority.new("north-sea").credentials
    assert Authority.read(own.certificate_pem, own.key_pem).credentials.certificate == own.certificate
    with pytest.raises(ConfigError, match="does not belong"):
        Authority.read(own.certificate_pem, other.key_pem)
    with pytest.raises(ConfigError, match="damaged"):
        Authority.read(own.certificate_pem[:200], own.key_pem)
    with pytest.raises(ConfigError, match="damaged"):
        Authority.read(own.certificate_pem, b"")
