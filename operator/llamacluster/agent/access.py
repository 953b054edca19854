"""The API's keys and its certificate: from the user's Secrets into HAProxy, as it runs.

The kubelet brings a changed Secret into the container by exchanging the folder of its files.
HAProxy gets the keys as SHA-256 hashes, so that no key is in its memory but that of a request under
way, and looks a request's hash up: what the time of that tells is of the hash. What is wrong with
the keys closes the gate: it lets in whoever has a key of the Secret, and that is nobody. What is
wrong with a new certificate does not: the one before it is shown on.

Nothing here, and no message, has a key in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from llamacluster.agent.clock import Clock, rfc3339
from llamacluster.agent.contract.messages import GateProblem, GateStatus
from llamacluster.agent.contract.options import GateOptions
from llamacluster.agent.haproxy import MAX_COMMAND_BYTES, Runtime, RuntimeRefused
from llamacluster.agent.log import Log
from llamacluster.planning.reasons import GroupError, Reason

KEYS_FILE = "keys"
CERTIFICATE_FILE = "tls.pem"
"""Both in the gate's own folder."""

MIN_KEY_CHARACTERS = 16
"""A shorter one can be guessed."""
MAX_KEY_CHARACTERS = 512
MAX_KEYS = 1000

EXPIRING = 0.1
"""Of its life, what is left of a certificate that somebody should have renewed: cert-manager and
others renew when a third is left. And no more than:"""
EXPIRING_MOST = timedelta(days=14)

T = TypeVar("T")


class Access:
    """Who may use the API, and with which certificate it is served."""

    def __init__(
        self,
        options: GateOptions,
        keys: Path,
        certificate: Path,
        folder: Path,
        status_file: Path,
        runtime: Runtime,
        clock: Clock,
        log: Log,
    ) -> None:
        """`keys` and `certificate` are where the Secrets are mounted."""
        self._keys = (
            ApiKeys(options.api_keys_secret, keys, folder / KEYS_FILE, runtime, log)
            if options.api_keys_secret
            else None
        )
        self._certificate = (
            Certificate(
                options.tls_secret, certificate, folder / CERTIFICATE_FILE, runtime, clock, log
            )
            if options.tls_secret
            else None
        )
        self._status_file = status_file
        self._said: GateStatus | None = None
        self._log = log

    def refresh(self) -> None:
        """Looks at the Secrets, tells HAProxy what has changed if it runs, and says how it is."""
        if self._keys:
            self._keys.refresh()
        if self._certificate:
            self._certificate.refresh()
        self._say(self._status())

    @property
    def has_certificate(self) -> bool:
        """Whether HAProxy can be started: without a certificate where one is wanted, it cannot."""
        return self._certificate is None or self._certificate.is_there

    def _status(self) -> GateStatus:
        closed = attention = None
        if self._certificate and self._certificate.problem:
            if self._certificate.is_there:
                attention = self._certificate.problem
            else:
                closed = self._certificate.problem
        if self._keys and self._keys.problem:
            closed = self._keys.problem
        return {
            "closed": _told(closed),
            "attention": _told(attention),
            "keys": self._keys.count if self._keys else None,
            "certificateExpires": self._certificate.expires if self._certificate else None,
        }

    def _say(self, status: GateStatus) -> None:
        if status == self._said:
            return
        try:
            _replace(self._status_file, json.dumps(status), 0o644)
        except OSError:
            return  # the volume is full; the next look tries it again
        self._said = status
        for problem in (status["closed"], status["attention"]):
            if problem:
                self._log.error(problem["message"], reason=problem["reason"])


class ApiKeys:
    """The API's keys."""

    def __init__(self, secret: str, source: Path, file: Path, runtime: Runtime, log: Log) -> None:
        """`file` is the one that HAProxy reads when it starts."""
        self.problem: GroupError | None = None
        self.count: int | None = None
        """How many HAProxy knows; None until it does."""
        self._secret = secret
        self._source = source
        self._file = file
        self._runtime = runtime
        self._log = log
        self._hashes: tuple[str, ...] | None = None
        self._pending = True

    def refresh(self) -> None:
        self.problem = None
        hashes: tuple[str, ...] = ()
        try:
            hashes = _steady(lambda: key_hashes(self._source, self._secret))
        except GroupError as error:
            self.problem = error
        except OSError as error:
            why = f"cannot be read: {error.strerror}"
            self.problem = GroupError(Reason.ApiKeysInvalid, f"Secret {self._secret} {why}")
        if hashes != self._hashes:
            # First the file: an HAProxy that starts in this moment has them too.
            _replace(self._file, "".join(f"{known}\n" for known in hashes))
            self._hashes, self._pending = hashes, True
        if self._pending:
            self._tell(hashes)

    def _tell(self, hashes: tuple[str, ...]) -> None:
        try:
            self._runtime.replace_entries(self._file, hashes)
        except OSError:
            return  # it does not run yet; the next look tries it again
        except RuntimeRefused as refused:
            self._log.error("HAProxy did not take the API keys", answer=refused)
            return
        self._pending = False
        self.count = len(hashes)
        self._log.info("API keys are in force", count=self.count)


class Certificate:
    """The API's certificate and its key."""

    def __init__(
        self, secret: str, source: Path, file: Path, runtime: Runtime, clock: Clock, log: Log
    ) -> None:
        """`file` is the one that HAProxy reads when it starts."""
        self.problem: GroupError | None = None
        self.expires: str | None = None
        """RFC 3339; None until HAProxy shows it."""
        self._expiring = ""
        """From then on it should have been renewed."""
        self._secret = secret
        self._source = source
        self._file = file
        self._runtime = runtime
        self._clock = clock
        self._log = log
        self._pem: str | None = None
        self._pending = False

    @property
    def is_there(self) -> bool:
        return self._pem is not None

    def refresh(self) -> None:
        self.problem = None
        try:
            pem = _steady(lambda: certificate_and_key(self._source, self._secret))
        except GroupError as error:
            self.problem = error
        except OSError as error:
            why = f"cannot be read: {error.strerror}"
            self.problem = GroupError(Reason.TlsInvalid, f"Secret {self._secret} {why}")
        else:
            if pem != self._pem:
                _replace(self._file, pem)
                self._pem, self._pending = pem, True
        if self._pending and self._pem:
            self._tell(self._pem)
        if not self.problem and self.expires:
            self.problem = self._age(self.expires, rfc3339(self._clock.now()))

    def _age(self, expires: str, now: str) -> GroupError | None:
        """What is wrong with its age."""
        what = f"the certificate of Secret {self._secret}"
        if now >= expires:
            return GroupError(
                Reason.TlsExpired,
                f"{what} expired at {expires}: renew it; it is taken up without a restart",
            )
        if now >= self._expiring:
            return GroupError(
                Reason.TlsExpiring,
                f"{what} expires at {expires} and has not been renewed: renew it, or look why"
                " cert-manager does not (kubectl describe certificate); a new one is taken up"
                " without a restart",
            )
        return None

    def _tell(self, pem: str) -> None:
        try:
            self._runtime.replace_certificate(self._file, pem)
            begins, expires = (
                datetime.fromtimestamp(ssl.cert_time_to_seconds(time), UTC)
                for time in self._runtime.certificate_times(self._file)
            )
        except OSError:
            return  # it does not run yet; the next look tries it again
        except (RuntimeRefused, ValueError) as refused:
            self.problem = GroupError(
                Reason.TlsInvalid,
                f"the certificate of Secret {self._secret} cannot be used: HAProxy says {refused}",
            )
            return
        self._pending = False
        self.expires = rfc3339(expires)
        self._expiring = rfc3339(expires - min(EXPIRING * (expires - begins), EXPIRING_MOST))
        self._log.info("the certificate is in force", expires=self.expires)


def key_hashes(folder: Path, secret: str) -> tuple[str, ...]:
    """SHA-256 of each key in the Secret's files, one key on each line, as HAProxy prints it.

    Raises GroupError if there is none, or if one is none, and OSError.
    """
    hashes: set[str] = set()
    for entry in _entries(folder):
        for number, line in enumerate(entry.read_bytes().split(b"\n"), 1):
            if key := line.strip():
                if why := _why_no_key(key):
                    raise GroupError(
                        Reason.ApiKeysInvalid,
                        f"nobody can use the API: line {number} of the entry {entry.name} of Secret"
                        f" {secret} is no key, because it {why}; one key on each line, as"
                        " `openssl rand -hex 32` makes them",
                    )
                hashes.add(hashlib.sha256(key).hexdigest().upper())
    if not hashes:
        raise GroupError(
            Reason.ApiKeysMissing,
            f"nobody can use the API: Secret {secret} is not there, or has no key: kubectl create"
            f" secret generic {secret} --from-literal=NAME=$(openssl rand -hex 32)",
        )
    if len(hashes) > MAX_KEYS:
        raise GroupError(
            Reason.ApiKeysInvalid,
            f"nobody can use the API: Secret {secret} has {len(hashes)} keys, and {MAX_KEYS} are"
            " the most",
        )
    return tuple(sorted(hashes))


def _why_no_key(key: bytes) -> str | None:
    if not all(0x21 <= byte <= 0x7E for byte in key):
        return "has a blank, or a character that is not plain ASCII"
    if len(key) < MIN_KEY_CHARACTERS:
        return f"is shorter than {MIN_KEY_CHARACTERS} characters"
    if len(key) > MAX_KEY_CHARACTERS:
        return f"is longer than {MAX_KEY_CHARACTERS} characters"
    return None


_PEM = re.compile(
    r"^-----BEGIN ((?:[A-Z0-9]+ )*(?:CERTIFICATE|PRIVATE KEY))-----\n.*?^-----END \1-----$",
    re.M | re.S,
)


def certificate_and_key(folder: Path, secret: str) -> str:
    """The certificate, those above it and its key, in PEM.

    Raises GroupError if they are missing or no pair, and OSError.
    """
    files = {entry.name: entry for entry in _entries(folder)}
    missing = [name for name in ("tls.crt", "tls.key") if name not in files]
    if missing:
        raise GroupError(
            Reason.TlsMissing,
            f"Secret {secret} is not there, or has no {' and no '.join(missing)}: it must be of"
            " type kubernetes.io/tls",
        )
    crt, key = files["tls.crt"], files["tls.key"]
    try:
        # Without a password OpenSSL would ask for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(crt, key, password="")
    except ssl.SSLError as error:
        raise GroupError(
            Reason.TlsInvalid,
            f"the certificate of Secret {secret} cannot be used"
            f" ({(error.reason or 'no PEM').replace('_', ' ').lower()}): tls.crt and tls.key must"
            " be a pair in PEM, the key without a password",
        ) from error
    text = "\n".join(file.read_bytes().decode("utf-8", "replace") for file in (crt, key))
    blocks = [block[0] for block in _PEM.finditer(text.replace("\r\n", "\n"))]
    # HAProxy ends its input at the first empty line.
    pem = "".join(re.sub(r"\n\s*\n", "\n", block) + "\n" for block in blocks)
    if len(pem) > MAX_COMMAND_BYTES:
        raise GroupError(
            Reason.TlsInvalid,
            f"the certificates of Secret {secret} are larger than {MAX_COMMAND_BYTES} bytes with"
            " their key: leave out those that clients have",
        )
    return pem


def _entries(folder: Path) -> list[Path]:
    """The files of a mounted Secret. The kubelet exchanges all of them at once, by a link."""
    data = folder / "..data"
    try:
        files = list((data.resolve(strict=True) if data.is_symlink() else folder).iterdir())
    except FileNotFoundError:
        return []
    return sorted(file for file in files if not file.name.startswith(".."))


def _steady(read: Callable[[], T]) -> T:
    """What `read` returns; it may have looked while the kubelet exchanged the files."""
    try:
        return read()
    except OSError:
        return read()


def _told(error: GroupError | None) -> GateProblem | None:
    return {"reason": error.reason, "message": error.message} if error else None


def _replace(file: Path, text: str, mode: int = 0o600) -> None:
    """Writes a file that nobody sees half of."""
    beside = file.with_name(f".{file.name}")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as new:
        new.write(text)
    beside.replace(file)
