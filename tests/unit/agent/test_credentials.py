"""What a model's server is shown of the user's Secret, and by what it is trusted."""

# ruff: noqa: S106 - the names of Secrets are no secrets

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from urllib.request import Request

import pytest

from llamacluster.agent import addresses
from llamacluster.agent.credentials import Credentials, credentials, mounted
from llamacluster.agent.source import Redirects, Web
from llamacluster.planning.reasons import GroupError, Reason
from tests.engine.secret import MountedSecret, certificate
from tests.webserver import Quiet, answering

HUSH = "hush-hush"


def refusal(**data: bytes | str) -> GroupError:
    named = {
        key.replace("_", "."): v.encode() if isinstance(v, str) else v for key, v in data.items()
    }
    with pytest.raises(GroupError) as raised:
        credentials("hub", named)
    assert HUSH not in str(raised.value)
    assert "hub" in raised.value.message
    return raised.value


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_token(end: str) -> None:
    found = credentials("hub", {"token": f"{HUSH}{end}".encode(), "other": b"\xff"})
    assert found.authorization == f"Bearer {HUSH}"
    assert HUSH not in repr(found)


def test_a_username_and_its_password() -> None:
    found = credentials("hub", {"username": "jürgen".encode(), "password": b"a b:c\n"})
    assert found.authorization
    kind, _, said = found.authorization.partition(" ")
    assert (kind, base64.b64decode(said).decode()) == ("Basic", "jürgen:a b:c")


def test_an_authority_alone(tmp_path: Path) -> None:
    pem = f"\ufeff# Jürgen\n{certificate(tmp_path, 'models')['tls.crt']}"
    found = credentials("hub", {"ca.crt": pem.encode()})
    assert found.authorization is None
    assert found.authority
    own = [it for it in found.tls().get_ca_certs() if (("commonName", "models"),) in it["subject"]]
    assert len(own) == 1


@pytest.mark.parametrize("data", [{}, {"api_key": HUSH}])
def test_nothing_for_a_server_is_missing(data: dict[str, str]) -> None:
    error = refusal(**data)
    assert error.reason is Reason.CredentialsMissing
    assert "kubectl create secret generic hub --from-file=token=FILE" in error.message


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"token": ""}, "token is none"),
        ({"token": f"{HUSH} {HUSH}"}, "token is none"),
        ({"token": f"{HUSH}\nX-Other: header"}, "token is none"),
        ({"token": f"{HUSH}\u00fc"}, "token is none"),
        ({"token": HUSH * 1000}, "token is none"),
        ({"token": b"\xff\xfe"}, "its token is no text"),
        ({"token": HUSH, "username": "u", "password": HUSH}, "keep one of the two"),
        ({"token": HUSH, "password": HUSH}, "keep one of the two"),
        ({"username": "u"}, "it needs both"),
        ({"password": HUSH}, "it needs both"),
        ({"username": "u:v", "password": HUSH}, "no ':' in the username"),
        ({"username": "u", "password": f"{HUSH}\n{HUSH}"}, "one line each"),
        ({"username": "", "password": ""}, "are empty"),
        ({"ca_crt": HUSH}, "ca.crt has no certificate in PEM"),
        ({"ca_crt": ""}, "ca.crt has no certificate in PEM"),
        ({"ca_crt": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}, "ca.crt"),
        ({"token": HUSH, "ca_crt": b"\xff"}, "ca.crt has no certificate in PEM"),
    ],
)
def test_what_cannot_be_sent_or_trusted_is_told(data: dict[str, str | bytes], why: str) -> None:
    error = refusal(**data)
    assert error.reason is Reason.CredentialsInvalid
    assert why in error.message


def test_a_mounted_secret_is_read_as_it_is_now(tmp_path: Path) -> None:
    secret = MountedSecret(tmp_path / "secret")
    with pytest.raises(GroupError, match="there is no Secret hub"):
        mounted("hub", secret.folder)
    secret.write({"token": "one"})
    assert mounted("hub", secret.folder).authorization == "Bearer one"
    secret.write({"token": "two"})
    assert mounted("hub", secret.folder).authorization == "Bearer two"
    secret.write({})
    with pytest.raises(GroupError, match="there is no Secret hub"):
        mounted("hub", secret.folder)


def test_a_folder_in_place_of_a_key_is_told(tmp_path: Path) -> None:
    (tmp_path / "token").mkdir()
    with pytest.raises(GroupError, match="token cannot be read: Is a directory"):
        mounted("hub", tmp_path)


ALLOWED = "127.0.0.1"
Serve = Callable[..., tuple[str, list[str | None]]]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a server with TLS that wants a token and leads to another: its URL, and what it was
    shown. Its certificate is its own authority: `tmp_path/models.crt`."""
    monkeypatch.setattr(addresses, "why_forbidden", lambda _: None)
    certificate(tmp_path, "models")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "models.crt", tmp_path / "models.key")

    with ExitStack() as servers:

        def start(
            wanted: str | None = None, leads_to: str = "", says: str = ""
        ) -> tuple[str, list[str | None]]:
            shown: list[str | None] = []

            class Handler(Quiet, BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    shown.append(self.headers["Authorization"])
                    right = wanted is None or shown[-1] == wanted
                    if says:
                        self.send_response(int(says[:3]), says[4:])
                    else:
                        self.send_response((302 if leads_to else 200) if right else 401)
                    if leads_to:
                        self.send_header("Location", leads_to)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            port = servers.enter_context(answering(Handler, tls=tls))
            return f"https://{ALLOWED}:{port}/m.gguf", shown

        yield start


def secret_of(tmp_path: Path, **data: str) -> Callable[[], Credentials]:
    pem = (tmp_path / "models.crt").read_bytes()
    return lambda: credentials("hub", {"ca.crt": pem, **{k: v.encode() for k, v in data.items()}})


@pytest.mark.parametrize("local", [False, True])
def test_a_server_of_ones_own_authority_is_trusted_by_it_alone(
    serve: Serve, tmp_path: Path, local: bool
) -> None:
    url, shown = serve()
    with pytest.raises(GroupError, match=r"cannot be reached: .*; an authority of your own"):
        Web(local).opened(url, {})
    Web(local, secret_of(tmp_path)).opened(url, {}).close()
    assert shown == [None]
    other = url.replace(ALLOWED, "127.0.0.2")  # whose name its certificate has not
    with pytest.raises(GroupError, match="cannot be reached"):
        Web(local, secret_of(tmp_path)).opened(other, {})


@pytest.mark.parametrize("local", [False, True])
def test_the_token_is_shown_to_the_first_host_alone(
    serve: Serve, tmp_path: Path, local: bool
) -> None:
    second, shown_to_second = serve()
    first, shown_to_first = serve(f"Bearer {HUSH}", leads_to=second)
    Web(local, secret_of(tmp_path, token=HUSH)).opened(first, {"Range": "bytes=0-"}).close()
    assert shown_to_first == [f"Bearer {HUSH}"]
    assert shown_to_second == [None]


def test_a_server_that_wants_another_token_is_told_with_what_to_do(
    serve: Serve, tmp_path: Path
) -> None:
    url, _ = serve(f"Bearer {HUSH}")
    for secret, to_do in (
        (secret_of(tmp_path), "put that into a Secret and name it in model.credentialsSecret"),
        (secret_of(tmp_path, token="wrong"), "what Secret hub .* has does not open it"),
    ):
        with pytest.raises(GroupError, match=f"answers 401 Unauthorized: .*{to_do}") as raised:
            Web(credentials=secret).opened(url, {})
        assert raised.value.reason is Reason.ModelAccessDenied


def test_a_server_that_says_what_it_was_shown_is_not_repeated(serve: Serve, tmp_path: Path) -> None:
    for data, says in (
        ({"token": HUSH}, f"401 bad token Bearer {HUSH}"),
        ({"token": HUSH}, f"500 {'x' * 190} {HUSH}"),
        ({"username": "u", "password": f"{HUSH} "}, f"403 u has not {HUSH} as password"),
    ):
        url, _ = serve(says=says)
        with pytest.raises(GroupError) as raised:
            Web(credentials=secret_of(tmp_path, **data)).opened(url, {})
        assert says[:3] in raised.value.message
        assert HUSH[:4] not in raised.value.message
    url, _ = serve(leads_to=f"http://elsewhere/{HUSH}")
    with pytest.raises(GroupError, match="leads to http://elsewhere/…, which is not https"):
        Web(credentials=secret_of(tmp_path, token=HUSH)).opened(url, {})


def test_another_host_that_refuses_is_named(serve: Serve, tmp_path: Path) -> None:
    second, _ = serve(says="403 signature expired")
    first, _ = serve(leads_to=second)
    with pytest.raises(GroupError, match=f"leads to {second}, which answers 403") as raised:
        Web(credentials=secret_of(tmp_path, token=HUSH)).opened(first, {})
    assert raised.value.reason is Reason.ModelDownloadFailed


def test_a_redirect_is_judged_by_its_server_and_not_by_the_proxy() -> None:
    def redirected(to: str) -> str | None:
        request = Request("https://hub/m", headers={"Authorization": HUSH})
        request.set_proxy("proxy:3128", "https")
        new = Redirects().redirect_request(request, BytesIO(), 302, "", HTTPMessage(), to)
        assert new
        return new.get_header("Authorization")

    assert redirected("https://hub/other") == HUSH
    assert redirected("https://proxy:3128/m") is None
    assert redirected("https://hub:8443/m") is None


def test_a_new_token_is_shown_from_the_next_request_on(serve: Serve, tmp_path: Path) -> None:
    url, shown = serve()
    pem = (tmp_path / "models.crt").read_text()
    secret = MountedSecret(tmp_path / "secret")
    web = Web(credentials=lambda: mounted("hub", secret.folder))
    for token in ("one", "two"):
        secret.write({"token": token, "ca.crt": pem})
        web.opened(url, {}).close()
    assert shown == ["Bearer one", "Bearer two"]
