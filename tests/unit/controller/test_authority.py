"""Certificates: what they are good for, and when they are made anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from llamacluster.controller.authority import LIFETIME, Issued, is_due, issue, not_after

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("left", "due"),
    [
        (timedelta(days=90), False),
        (timedelta(days=30, seconds=1), False),
        (timedelta(days=30), True),
        (timedelta(0), True),
        (timedelta(days=-1), True),
        (None, True),
    ],
)
def test_new_ones_are_made_a_month_before_the_old_ones_end(
    left: timedelta | None, due: bool
) -> None:
    assert is_due(NOW + left if left is not None else None, NOW) is due


def verify(certificate: x509.Certificate, issued: Issued, now: datetime) -> None:
    store = Store([x509.load_pem_x509_certificate(issued.authority.encode())])
    verifier = PolicyBuilder().store(store).time(now).build_server_verifier(
        x509.DNSName("x-group-0-3.x-group.ns")
    )  # fmt: skip
    verifier.verify(certificate, [])


def test_a_certificate_is_good_for_all_pods_and_from_its_authority_alone() -> None:
    one, other = (issue("x", "*.x-group.ns", NOW) for _ in range(2))
    certificate = x509.load_pem_x509_certificate(one.certificate.encode())
    verify(certificate, one, NOW)
    verify(certificate, one, NOW - timedelta(minutes=59))  # clocks differ
    with pytest.raises(VerificationError):
        verify(certificate, one, NOW + LIFETIME + timedelta(seconds=1))
    with pytest.raises(VerificationError):
        verify(certificate, other, NOW)


def test_both_ends_of_a_connection_may_show_it() -> None:
    certificate = x509.load_pem_x509_certificate(issue("x", "*.x", NOW).certificate.encode())
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {oid._name for oid in usage} == {"serverAuth", "clientAuth"}


def test_the_key_is_of_the_certificate() -> None:
    issued = issue("a" * 63, "*.x-group.ns", NOW)
    key = load_pem_private_key(issued.key.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    certificate = x509.load_pem_x509_certificate(issued.certificate.encode())
    assert certificate.public_key() == key.public_key()


def test_an_authority_tells_its_end_and_anything_else_tells_none() -> None:
    assert not_after(issue("x", "*.x", NOW).authority) == NOW + LIFETIME
    assert not_after("") is None
    assert not_after("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n") is None
