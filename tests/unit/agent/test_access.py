"""What of a Secret is a key or a certificate, and what the gate says of it."""

# ruff: noqa: S106 - the names of Secrets are no secrets

from __future__ import annotations

import hashlib
import json
import subprocess
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest

from llamacluster.agent.access import Access, certificate_and_key, key_hashes
from llamacluster.agent.contract.messages import GateStatus
from llamacluster.agent.contract.options import GateOptions
from llamacluster.agent.haproxy import Runtime, RuntimeRefused
from llamacluster.agent.log import Log
from llamacluster.planning.reasons import GroupError
from tests.unit.agent.fakes import FastClock

ALICE, BOB = "sk-alice-0123456789", "sk-bob-0123456789"


def hashed(*keys: str) -> tuple[str, ...]:
    return tuple(sorted(hashlib.sha256(key.encode()).hexdigest().upper() for key in keys))


def write(folder: Path, **entries: str) -> Path:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, text in entries.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("entries", "keys"),
    [
        ({"alice": ALICE, "bob": BOB}, (ALICE, BOB)),
        ({"keys": f"{ALICE}\n{BOB}\n"}, (ALICE, BOB)),
        ({"keys": f"\n\n  {ALICE}\r\n\t\n{BOB}"}, (ALICE, BOB)),
        ({"one": ALICE, "two": ALICE, "none": "\n"}, (ALICE,)),
        ({"one": "x" * 16, "two": "!" * 512}, ("x" * 16, "!" * 512)),
    ],
)
def test_each_line_of_each_entry_is_a_key(
    tmp_path: Path, entries: dict[str, str], keys: tuple[str, ...]
) -> None:
    assert key_hashes(write(tmp_path / "s", **entries), "s") == hashed(*keys)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({}, "ApiKeysMissing"),
        ({"a": "", "b": " \n \r\n"}, "ApiKeysMissing"),
        ({"a": ALICE, "b": "x" * 15}, "ApiKeysInvalid"),
        ({"a": "x" * 513}, "ApiKeysInvalid"),
        ({"a": f"# the key of Alice\n{ALICE}"}, "ApiKeysInvalid"),
        ({"a": f"{ALICE}\0"}, "ApiKeysInvalid"),
        ({"a": f"{ALICE}\x1b"}, "ApiKeysInvalid"),
        ({"a": f"{ALICE}é"}, "ApiKeysInvalid"),
        ({"a": "\n".join(f"{ALICE}{number}" for number in range(1001))}, "ApiKeysInvalid"),
    ],
)
def test_what_is_no_set_of_keys_lets_nobody_in(
    tmp_path: Path, entries: dict[str, str], reason: str
) -> None:
    with pytest.raises(GroupError) as caught:
        key_hashes(write(tmp_path / "s", **entries), "my-keys")
    assert caught.value.reason == reason
    assert "my-keys" in caught.value.message
    assert ALICE not in caught.value.message


def test_a_secret_that_is_not_there_lets_nobody_in(tmp_path: Path) -> None:
    with pytest.raises(GroupError, match="ApiKeysMissing"):
        key_hashes(tmp_path / "none", "s")


class FakeRuntime(Runtime):
    """An HAProxy that remembers what it is told. `tests/engine/test_access.py` has the real one."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.runs = False
        self.refuses: str | None = None
        self.entries: list[tuple[str, ...]] = []
        self.certificates: list[str] = []
        self.times = ("Dec 22 22:22:17 2025 GMT", "Dec 22 22:22:17 2026 GMT")

    def replace_entries(self, acl: Path, entries: object) -> None:
        self._listen()
        assert isinstance(entries, tuple)
        assert acl.read_text().split() == list(entries)
        self.entries.append(entries)

    def replace_certificate(self, file: Path, pem: str) -> None:
        self._listen()
        assert file.read_text() == pem
        self.certificates.append(pem)

    def certificate_times(self, file: Path) -> tuple[str, str]:  # noqa: ARG002
        return self.times

    def _listen(self) -> None:
        if not self.runs:
            raise ConnectionRefusedError
        if self.refuses:
            raise RuntimeRefused(self.refuses)


class Secrets:
    """Mounted Secrets, and what becomes of them."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.keys, self.tls = write(folder / "api-keys"), write(folder / "tls")
        self.file = folder / "gate.json"
        self.runtime = FakeRuntime()
        self.clock = FastClock()
        self.log = StringIO()
        self.access = Access(
            GateOptions(1, 1024, **options),  # type: ignore[arg-type]
            self.keys,
            self.tls,
            folder,
            self.file,
            self.runtime,
            self.clock,
            Log("gate", self.log),
        )

    def says(self) -> GateStatus:
        self.access.refresh()
        status: GateStatus = json.loads(self.file.read_text())
        return status


def test_without_secrets_nothing_is_asked_for(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path)
    assert secrets.says() == {
        "closed": None,
        "attention": None,
        "keys": None,
        "certificateExpires": None,
    }
    assert secrets.access.has_certificate


def test_haproxy_is_told_of_keys_when_they_change_and_only_then(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path, api_keys_secret="s")
    write(secrets.keys, a=ALICE)
    assert secrets.says()["keys"] is None  # HAProxy does not run yet; it will read the file
    assert (tmp_path / "keys").read_text().split() == list(hashed(ALICE))
    secrets.runtime.runs = True
    for _ in range(3):
        assert secrets.says()["keys"] == 1
    write(secrets.keys, a=ALICE, b=BOB)
    assert secrets.says()["keys"] == 2
    write(secrets.keys, a=ALICE, b="short")
    closed = secrets.says()["closed"]
    assert closed is not None
    assert closed["reason"] == "ApiKeysInvalid"
    write(secrets.keys, b=BOB)
    assert secrets.says()["closed"] is None
    assert secrets.runtime.entries == [hashed(ALICE), hashed(ALICE, BOB), (), hashed(BOB)]
    assert ALICE not in secrets.log.getvalue()


def test_what_is_wrong_is_logged_once(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path, api_keys_secret="s")
    for _ in range(3):
        secrets.says()
    assert secrets.log.getvalue().count("ApiKeysMissing") == 1


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The entries of two Secrets of type kubernetes.io/tls."""
    folder, made = tmp_path_factory.mktemp("pairs"), []
    for name in ("one", "two"):
        crt, key = folder / f"{name}.crt", folder / f"{name}.key"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"),
                *("-subj", f"/CN={name}", "-keyout", str(key), "-out", str(crt)),
            ],
            check=True,
            capture_output=True,
        )
        made.append({"tls_crt": crt.read_text(), "tls_key": key.read_text()})
    return made


def test_haproxys_file_has_the_blocks_and_no_empty_line(
    tmp_path: Path, pairs: list[dict[str, str]]
) -> None:
    one, two = pairs
    chain = f"Bag Attributes\n\n{one['tls_crt']}\n\n# the next\n{two['tls_crt']}"
    folder = write(tmp_path / "s", tls_crt=chain.replace("\n", "\r\n"), tls_key=one["tls_key"])
    pem = certificate_and_key(folder, "s")
    assert pem == one["tls_crt"] + two["tls_crt"] + one["tls_key"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tls_crt": None}, "TlsMissing"),
        ({"tls_key": None}, "TlsMissing"),
        ({"tls_crt": ""}, "TlsInvalid"),
        ({"tls_key": "nonsense"}, "TlsInvalid"),
        ({"tls_key": "of another"}, "TlsInvalid"),
    ],
)
def test_what_is_no_pair_is_said(
    tmp_path: Path, pairs: list[dict[str, str]], change: dict[str, str | None], reason: str
) -> None:
    entries: dict[str, str | None] = {**pairs[0], **change}
    if entries["tls_key"] == "of another":
        entries["tls_key"] = pairs[1]["tls_key"]
    folder = write(tmp_path / "s", **{k: v for k, v in entries.items() if v is not None})
    with pytest.raises(GroupError, match=reason) as caught:
        certificate_and_key(folder, "my-tls")
    assert "my-tls" in caught.value.message


def test_a_certificate_that_cannot_be_used_keeps_the_one_before(
    tmp_path: Path, pairs: list[dict[str, str]]
) -> None:
    secrets = Secrets(tmp_path, tls_secret="s")
    closed = secrets.says()["closed"]
    assert closed is not None
    assert closed["reason"] == "TlsMissing"
    assert not secrets.access.has_certificate

    write(secrets.tls, **pairs[0])
    assert secrets.says()["closed"] is None
    assert secrets.access.has_certificate
    secrets.runtime.runs = True
    assert secrets.says()["certificateExpires"] == "2026-12-22T22:22:17Z"

    write(secrets.tls, tls_crt=pairs[0]["tls_crt"], tls_key=pairs[1]["tls_key"])
    status = secrets.says()
    assert status["closed"] is None
    assert status["attention"] is not None
    assert status["attention"]["reason"] == "TlsInvalid"
    assert len(secrets.runtime.certificates) == 1

    write(secrets.tls, **pairs[1])
    secrets.runtime.refuses = "Can't commit!"
    attention = secrets.says()["attention"]
    assert attention is not None
    assert "Can't commit!" in attention["message"]
    secrets.runtime.refuses = None
    assert secrets.says()["attention"] is None
    assert len(secrets.runtime.certificates) == 2


@pytest.mark.parametrize(
    ("begins", "good_for"),
    [
        ("Oct 13 00:00:00 2025 GMT", timedelta(days=1)),  # 90 days: said when 9 are left
        ("Jan 11 00:00:00 2025 GMT", timedelta(0)),  # a year: 14
        ("Dec 31 00:00:00 2025 GMT", timedelta(days=8, hours=21, minutes=36)),  # 11: a day and more
    ],
)
def test_a_certificate_that_expires_is_said_in_time(
    tmp_path: Path, pairs: list[dict[str, str]], begins: str, good_for: timedelta
) -> None:
    secrets = Secrets(tmp_path, tls_secret="s")
    secrets.runtime.runs = True
    expires = "Jan 11 00:00:00 2026 GMT" if good_for else "Jan 15 00:00:00 2026 GMT"
    secrets.runtime.times = (begins, expires)
    write(secrets.tls, **pairs[0])

    def said(after: timedelta) -> str | None:
        secrets.clock._seconds = after.total_seconds()
        found = secrets.says()["attention"]
        assert found is None or "-01-1" in found["message"]  # the day
        return found["reason"] if found else None

    if good_for:
        assert said(good_for - timedelta(seconds=1)) is None
    assert said(good_for) == "TlsExpiring"
    assert said(timedelta(days=30)) == "TlsExpired"
    write(secrets.tls, **pairs[1])
    secrets.runtime.times = ("Jan 30 00:00:00 2026 GMT", "Apr 30 00:00:00 2026 GMT")
    assert said(timedelta(days=30)) is None
