"""The certificates of a LlamaCluster's RPC encryption: how they are made, and when anew.

Each time there is a new authority, which signs one certificate and is forgotten: nobody keeps a key
that could sign a second one. All pods of the LlamaCluster share the certificate; which of them one
speaks to is told by the agents' control API.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=90)
RENEWED_BEFORE = timedelta(days=30)
"""Time enough for an operator that is away for a while."""
CLOCKS_DIFFER = timedelta(hours=1)


@dataclass(frozen=True)
class Issued:
    """PEM of a certificate, its private key, and the authority that has signed it."""

    authority: str
    certificate: str
    key: str


def is_due(not_after: datetime | None, now: datetime) -> bool:
    """Whether new certificates are to be made: there are none, or they end soon."""
    return not_after is None or now >= not_after - RENEWED_BEFORE


def not_after(authority: str) -> datetime | None:
    """When an authority and its certificate end; None if this is none."""
    try:
        return x509.load_pem_x509_certificate(authority.encode()).not_valid_after_utc
    except ValueError:
        return None


def issue(name: str, server_name: str, now: datetime) -> Issued:
    """A new authority of this name, and a certificate from it for both ends of a connection to
    `server_name`, which may begin with `*.`."""
    begins, ends = now.astimezone(UTC) - CLOCKS_DIFFER, now.astimezone(UTC) + LIFETIME
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    # The longest common name that X.509 allows is 64 characters.
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name[:48]} RPC authority")])
    authority_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = (
        x509.CertificateBuilder()
        .subject_name(issuer)
        .issuer_name(issuer)
        .public_key(authority_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(authority_id, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name[:48]} RPC")]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(server_name)]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    return Issued(
        authority.public_bytes(Encoding.PEM).decode(),
        certificate.public_bytes(Encoding.PEM).decode(),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
