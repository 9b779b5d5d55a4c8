# SPDX-License-Identifier: Apache-2.0
"""The consortium's certificate authority: certificates of the server and of sites, and what is revoked."""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pasta_model.errors import ConfigError
from server.provision.consortium import is_address
from server.provision.keys import new_key

AUTHORITY_DAYS = 3650  # the authority outlives what it signs; its list of revoked ones lasts as long
_CLOCKS_DIFFER = timedelta(hours=1)
_LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """A certificate and the private key that belongs to it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key as unencrypted PEM: nginx, httpx and Flower read it."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Authority:
    """A certificate authority of one consortium.

    Parameters
    ----------
    credentials
        The authority's own certificate and key.
    """

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials

    @classmethod
    def new(cls, consortium: str) -> Self:
        """Make an authority of a consortium's name: P-384, no authority below it."""
        key, name = new_key(), _name(consortium, "PASTA certificate authority")
        builder = _begin(name, name, key.public_key(), until=_now() + timedelta(days=AUTHORITY_DAYS))
        usage = _usage(key_cert_sign=True, crl_sign=True)
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
            )
            .sign(key, SHA384())
        )
        return cls(Credentials(certificate=certificate, key=key))

    @classmethod
    def read(cls, certificate: bytes, key: bytes) -> Self:
        """Read an authority from two PEMs.

        Raises
        ------
        ConfigError
            When one of them is damaged, or the key is another certificate's.
        """
        try:
            found = x509.load_pem_x509_certificate(certificate)
            private = load_pem_private_key(key, password=None)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"authority/ca.crt or ca.key is damaged ({error}); restore it") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != found.public_key():
            raise ConfigError("authority/ca.key does not belong to authority/ca.crt; restore both together")
        return cls(Credentials(certificate=found, key=private))

    def server(self, consortium: str, names: Sequence[str], *, days: int) -> Credentials:
        """Issue the server's certificate: its public names, and the loopback for what runs beside it."""
        hosts = tuple(dict.fromkeys((*names, *_LOOPBACK)))
        subject = _name(consortium, "PASTA server")
        return self._issue(
            subject, [_host(host) for host in hosts], ExtendedKeyUsageOID.SERVER_AUTH, days=days
        )

    def client(self, consortium: str, site: str, *, days: int) -> Credentials:
        """Issue a site's certificate: its common name is the site's name."""
        # A name of a site need not be a host's, and verifiers want an alternative name: so it is a URI.
        uri = x509.UniformResourceIdentifier(f"urn:pasta:{quote(consortium)}:{quote(site)}")
        return self._issue(_name(consortium, site), [uri], ExtendedKeyUsageOID.CLIENT_AUTH, days=days)

    def revocations(
        self, serials: Iterable[int], *, before: x509.CertificateRevocationList | None = None
    ) -> x509.CertificateRevocationList:
        """Sign a list of revoked certificates: those of the list before, and these.

        It is valid as long as the authority: a list that expired would shut out every site.
        """
        known = {entry.serial_number: entry for entry in before} if before is not None else {}
        now = _now()
        number = _number(before) + 1 if before is not None else 1
        authority = self.credentials
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(authority.certificate.subject)
            .last_update(now - _CLOCKS_DIFFER)
            .next_update(authority.certificate.not_valid_after_utc)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._identifier(), critical=False)
        )
        for serial in serials:
            if serial not in known:
                known[serial] = (
                    x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
                )
        for entry in known.values():
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(authority.key, SHA384())

    def _issue(
        self,
        subject: x509.Name,
        alternatives: Sequence[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        *,
        days: int,
    ) -> Credentials:
        key, authority = new_key(), self.credentials
        until = min(_now() + timedelta(days=days), authority.certificate.not_valid_after_utc)
        certificate = (
            _begin(subject, authority.certificate.subject, key.public_key(), until=until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(self._identifier(), critical=False)
            .sign(authority.key, SHA384())
        )
        return Credentials(certificate=certificate, key=key)

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.credentials.key.public_key())


def _begin(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, *, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _CLOCKS_DIFFER)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(consortium: str, common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, consortium),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if is_address(host) else x509.DNSName(host)


def _number(revoked: x509.CertificateRevocationList) -> int:
    return revoked.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
