"""API keys and TLS in the gate, with a real HAProxy in front of a real engine."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llamacluster.agent.contract.messages import GateStatus, LeaderStatus
from llamacluster.agent.contract.options import GateOptions
from llamacluster.agent.contract.places import API_KEYS_DIR, READYZ, TLS_DIR
from llamacluster.controller.authority import LIFETIME, issue
from tests.engine.group import Group, eventually
from tests.engine.secret import MountedSecret, certificate
from tests.engine.test_gate import SLOW, Stream
from tests.engine.test_group import GREEDY, OPTIONS, NewGroup
from tests.model import SENTENCE

pytestmark = pytest.mark.engine

ALICE, BOB, NOBODY = (f"sk-{name}-{secrets.token_hex(16)}" for name in ("alice", "bob", "nobody"))


@dataclass
class Guarded:
    """A group whose gate asks for keys, or speaks TLS, or both."""

    group: Group
    keys: MountedSecret
    tls: MountedSecret

    def ask(
        self,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        path: str = "/v1/models",
        body: object = None,
    ) -> http.client.HTTPResponse:
        """The answer, whose body is read."""
        host, _, port = self.group.leader.url(8080).removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, headers or {})
        response = connection.getresponse()
        response.text = response.read().decode()  # type: ignore[attr-defined]
        return response

    def code(self, key: str) -> int:
        return self.ask({"Authorization": f"Bearer {key}"}).status

    def told(self) -> GateStatus | None:
        try:
            return self.group.status()["gate"]
        except OSError:  # the leader's agent is not there yet
            return None

    def until_closed(self, reason: str) -> str:
        """The message, once the group is closed for this reason."""

        def look() -> str | None:
            told = self.told()
            closed = told["closed"] if told else None
            return closed["message"] if closed and closed["reason"] == reason else None

        return eventually(look)

    def until_known(self, keys: int) -> GateStatus:
        def look() -> GateStatus | None:
            told = self.told()
            return told if told and told["keys"] == keys and not told["closed"] else None

        return eventually(look)

    def logs(self) -> str:
        return "".join(pod.log() for pod in self.group.pods.values())


NewGuarded = Callable[..., Guarded]


@pytest.fixture
def guarded(new_group: NewGroup, tmp_path: Path) -> NewGuarded:
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)  # the pods' user has to come through

    def make(keys: dict[str, str] | None = None, tls: dict[str, str] | None = None) -> Guarded:
        group = new_group()
        made = Guarded(group, MountedSecret(tmp_path / "keys"), MountedSecret(tmp_path / "tls"))
        for secret, entries in ((made.keys, keys), (made.tls, tls)):
            secret.write(entries or {})
        for index in (1, 2):
            group.start_worker(index)
        group.start_leader(
            OPTIONS,
            gate=GateOptions(
                OPTIONS.parallel,
                OPTIONS.context_size,
                api_keys_secret=None if keys is None else "my-keys",
                tls_secret=None if tls is None else "my-tls",
            ),
            gate_args_of_docker=(
                *("--volume", f"{made.keys.folder}:{API_KEYS_DIR}:ro"),
                *("--volume", f"{made.tls.folder}:{TLS_DIR}:ro"),
            ),
        )
        return made

    return make


def test_only_who_has_a_key_is_let_in(guarded: NewGuarded) -> None:
    it = guarded({"alice": ALICE, "file": f"\n{BOB}\r\n\n  {NOBODY}x  \n"})
    it.group.until("Ready")
    assert it.until_known(3)["keys"] == 3

    refused = it.ask()
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="llamacluster"'
    error = json.loads(refused.text)["error"]  # type: ignore[attr-defined]
    assert error["code"] == "invalid_api_key"
    assert {it.code(NOBODY), it.code(ALICE[:-1]), it.code(ALICE + "x"), it.code("")} == {401}
    assert it.ask({"Authorization": f"Basic {ALICE}"}).status == 401
    assert it.ask({"Authorization": "Bearer"}, "POST", "/completion", GREEDY).status == 401
    assert it.ask({"Cookie": ALICE}, path=f"/v1/models?api_key={ALICE}").status == 401
    assert it.ask(path="/slots").status == 401
    assert it.ask({"Authorization": f"Bearer {ALICE}"}, path="/slots").status == 404

    assert {it.code(ALICE), it.code(BOB), it.code(f"{NOBODY}x")} == {200}
    assert it.ask({"X-Api-Key": BOB}).status == 200
    answer = it.ask({"authorization": f"bearer {ALICE}"}, "POST", "/completion", GREEDY)
    assert json.loads(answer.text)["content"] == SENTENCE  # type: ignore[attr-defined]

    # What needs none, as in llama-server: the health, and a browser's question before the request.
    assert it.ask(path="/health").status == 200
    assert it.ask(method="OPTIONS", path="/v1/chat/completions").status == 200

    for key in (ALICE, BOB, NOBODY):
        assert key not in it.logs()
        assert key not in json.dumps(it.group.status())
        assert key not in it.group.gate.run_python(_ALL_THAT_THE_GATE_WRITES)


_ALL_THAT_THE_GATE_WRITES = """
import pathlib
for folder in ("/gate", "/tmp"):
    for file in pathlib.Path(folder).rglob("*"):
        if file.is_file():
            print(file.read_bytes())
for line in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    print(line.read_bytes(), (line.parent / "environ").read_bytes())
"""


def test_keys_change_while_a_stream_runs_and_no_request_of_a_kept_key_fails(
    guarded: NewGuarded,
) -> None:
    it = guarded({"keys": f"{ALICE}\n{BOB}"})
    it.group.until("Ready")
    it.until_known(2)
    stream = Stream(it.group, SLOW, {"Authorization": f"Bearer {BOB}"})
    eventually(lambda: stream.tokens)
    it.keys.write({"keys": ALICE})
    codes = set()

    def bob_is_out() -> bool:
        codes.add(it.code(ALICE))
        return it.code(BOB) == 401

    eventually(bob_is_out)
    assert codes == {200}
    assert not stream.finished
    it.keys.write({"keys": "\n".join((ALICE, *(f"{NOBODY}{n}" for n in range(500))))})
    it.until_known(501)
    assert {it.code(ALICE), it.code(f"{NOBODY}499")} == {200}
    stream.whole()
    # An HAProxy that is started anew knows the same.
    it.group.gate.kill_processes("haproxy")
    eventually(lambda: _status(it, ALICE) == 200)
    assert it.code(BOB) == 401
    assert it.group.status()["formations"] == 1


def test_without_a_key_the_gate_is_closed_until_there_is_one(guarded: NewGuarded) -> None:
    it = guarded({})
    message = it.until_closed("ApiKeysMissing")
    assert "my-keys" in message
    it.group.until("Ready")
    assert it.group.leader.get(READYZ) == (503, f"ApiKeysMissing: {message}\n")
    assert {it.code(ALICE), it.code(""), it.ask().status, it.ask({"X-Api-Key": ""}).status} == {401}
    assert it.ask(path="/health").status == 503

    it.keys.write({"alice": ALICE})
    it.until_known(1)
    eventually(lambda: it.code(ALICE) == 200)
    assert it.group.leader.get(READYZ)[0] == 200

    for wrong in ("brief-key", f"two words {ALICE}", f"{ALICE}\x07", "schlüssel-" * 4, "x" * 513):
        it.keys.write({"alice": ALICE, "other": wrong})
        message = it.until_closed("ApiKeysInvalid")
        assert "line 1 of the entry other" in message
        assert wrong not in message
        eventually(lambda: it.code(ALICE) == 401)
        it.keys.write({"alice": ALICE})
        it.until_known(1)
    it.keys.write({"alice": " \n\n"})
    it.until_closed("ApiKeysMissing")
    eventually(lambda: it.code(ALICE) == 401)
    assert it.group.status()["formations"] == 1


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_is_served_and_its_certificate_renewed_under_a_stream(
    guarded: NewGuarded, tmp_path: Path
) -> None:
    first, second = certificate(tmp_path, "one"), certificate(tmp_path, "two")
    it = guarded({"alice": ALICE}, first)
    it.group.until("Ready")
    told = it.until_known(1)
    assert told["certificateExpires"]
    plain = socket.create_connection(_address(it))
    plain.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" not in plain.recv(1000)

    assert _shown(it) == _der(first)
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises(OSError):
            _handshake(it, version)
    _handshake(it, ssl.TLSVersion.TLSv1_2)

    trusted = ssl.create_default_context(cadata=first["tls.crt"])
    connection = http.client.HTTPSConnection(*_address(it), context=trusted, timeout=60)
    headers = {"Authorization": f"Bearer {ALICE}"}
    connection.request("POST", "/completion", json.dumps(SLOW), headers)
    stream = connection.getresponse()
    assert stream.status == 200
    begun = stream.readline()

    it.tls.write(second)
    eventually(lambda: _shown(it) == _der(second))
    # What cannot be used changes nothing but the status.
    for wrong, reason in (
        ({**second, "tls.key": first["tls.key"]}, "TlsInvalid"),
        ({**second, "tls.crt": "no certificate"}, "TlsInvalid"),
        ({}, "TlsMissing"),
    ):
        it.tls.write(wrong)
        assert "my-tls" in _until_attention(it, reason)
        assert _shown(it) == _der(second)
        assert it.group.leader.get(READYZ)[0] == 200
    it.tls.write(first)
    eventually(lambda: _shown(it) == _der(first))
    eventually(lambda: not _attention(it))

    whole = begun + stream.read()
    assert b'"stop":true' in whole
    assert it.group.status()["formations"] == 1
    assert "PRIVATE KEY" not in it.logs()


def test_a_certificate_near_its_end_is_said(guarded: NewGuarded, tmp_path: Path) -> None:
    long_ago = datetime.now(UTC) - LIFETIME + timedelta(days=2)
    old = issue("x", "localhost", long_ago)
    entries = {"tls.crt": old.certificate, "tls.key": old.key}
    it = guarded(None, entries)
    it.group.until("Ready")
    assert "has not been renewed" in _until_attention(it, "TlsExpiring")
    assert _shown(it) == _der(entries)
    it.tls.write(certificate(tmp_path, "new"))
    eventually(lambda: it.told() and not _attention(it))


def test_without_a_certificate_nothing_is_served_until_there_is_one(
    guarded: NewGuarded, tmp_path: Path
) -> None:
    it = guarded(None, {})
    it.until_closed("TlsMissing")
    with pytest.raises(OSError):
        _handshake(it)
    entries = certificate(tmp_path, "one")
    other = certificate(tmp_path, "two")
    it.tls.write({**entries, "tls.key": other["tls.key"]})
    assert "key values mismatch" in it.until_closed("TlsInvalid")
    it.tls.write(entries)
    it.group.until("Ready")
    assert _shown(it) == _der(entries)
    eventually(lambda: it.group.leader.get(READYZ)[0] == 200)


def _status(it: Guarded, key: str) -> int | None:
    try:
        return it.code(key)
    except (OSError, http.client.HTTPException):
        return None


def _attention(it: Guarded) -> LeaderStatus | object:
    told = it.told()
    return told and told["attention"]


def _until_attention(it: Guarded, reason: str) -> str:
    def look() -> str | None:
        told = it.told()
        found = told["attention"] if told else None
        return found["message"] if found and found["reason"] == reason else None

    return eventually(look)


def _address(it: Guarded) -> tuple[str, int]:
    host, _, port = it.group.leader.url(8080).removeprefix("http://").partition(":")
    return host, int(port)


def _handshake(it: Guarded, version: ssl.TLSVersion | None = None) -> bytes:
    """The certificate that is shown, in DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(_address(it), timeout=30) as plain,
        context.wrap_socket(plain) as wrapped,
    ):
        return wrapped.getpeercert(binary_form=True) or b""


def _shown(it: Guarded) -> bytes:
    return _handshake(it)


def _der(entries: dict[str, str]) -> bytes:
    return ssl.PEM_cert_to_DER_cert(entries["tls.crt"])
