"""The certificates that a tunnel shows and trusts, and when new ones take the place of old ones.

All pods of a group share a certificate and trust the authority that it is from. When the operator
makes new ones, each pod gets them when its kubelet looks, a minute sooner or later than the others.
So the new authority is trusted at once beside the old one, and the new certificate shown only when
everybody else is sure to trust it too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

AUTHORITIES = "ca.crt"
CERTIFICATE = "tls.crt"
KEY = "tls.key"


@dataclass(frozen=True)
class Certificates:
    """PEM, without empty lines."""

    authorities: str
    """Those that are trusted."""
    leaf: str
    """What is shown: certificate and private key."""


def read(folder: Path) -> Certificates:
    """What is in a mounted Secret. Raises OSError."""
    leaf = _pem(folder / CERTIFICATE) + _pem(folder / KEY)
    return Certificates(_pem(folder / AUTHORITIES), leaf)


def _pem(file: Path) -> str:
    return "".join(f"{line}\n" for line in file.read_text().splitlines() if line.strip())


class Turnover:
    """What to use of what is found."""

    def __init__(self, used: Certificates, delay_seconds: float) -> None:
        self._used = used
        self._delay_seconds = delay_seconds
        self._newest = used.leaf
        self._since = 0.0

    def wanted(self, found: Certificates, now: float) -> Certificates:
        """What is to be used, `now` that this is found."""
        if found.leaf != self._newest:
            self._newest, self._since = found.leaf, now
        is_due = now - self._since >= self._delay_seconds
        return replace(found, leaf=found.leaf if is_due else self._used.leaf)

    def use(self, certificates: Certificates) -> None:
        """These are used from now on."""
        self._used = certificates

    @property
    def used(self) -> Certificates:
        return self._used
