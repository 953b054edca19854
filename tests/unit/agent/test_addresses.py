"""No model is downloaded from where only the node or the cloud should be asked."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from llamacluster.agent import addresses
from llamacluster.agent.addresses import connect, why_forbidden
from llamacluster.agent.source import Web
from llamacluster.planning.reasons import GroupError
from tests.webserver import Quiet, answering


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "::127.0.0.1"),
        *("169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254"),
        *("64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1"),
        *("0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0", "224.0.0.1", "239.1.1.1", "ff02::1"),
        *("255.255.255.255", "fd00:ec2::254", "168.63.129.16", "100.100.100.200"),
        *("fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", "fd00:a9fe:a9fe::1"),
        *("fd00:100::100:200", "64:ff9b:1::a9fe:a9fe", "::ffff:0:169.254.169.254"),
    ],
)
def test_it_is_forbidden(address: str) -> None:
    assert why_forbidden(address)


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.3.4", "192.168.1.1", "100.64.0.1", "fd12::1", "::ffff:10.0.0.1"),
        *("1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101"),
    ],
)
def test_private_and_public_addresses_are_allowed(address: str) -> None:
    assert why_forbidden(address) is None


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "localhost", "0"]
)
def test_however_it_is_written(host: str) -> None:
    with pytest.raises(GroupError, match="nothing is downloaded from there unless"):
        connect(host, 1, 5)


ALLOWED, FORBIDDEN = "127.0.0.2", "127.0.0.1"
Names = Callable[[dict[str, list[str]]], list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """A DNS whose answers for each name come one after another, on a machine where one loopback
    address stands for the allowed ones. Returns the names that were asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def use(answers: dict[str, list[str]]) -> list[str]:
        def answer(host: str, *rest: Any) -> Any:
            asked.append(host)
            found = answers[host].pop(0) if host in answers else host
            return [info for one in found.split() for info in real(one, *rest)]

        monkeypatch.setattr("llamacluster.agent.addresses.socket.getaddrinfo", answer)
        monkeypatch.setattr(
            addresses, "why_forbidden", lambda text: "forbidden" if text == FORBIDDEN else None
        )
        return asked

    return use


Site = tuple[int, list[tuple[str, dict[str, str]]], dict[str, str]]


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server on all loopback addresses: its port, what it was asked, and its redirects."""
    seen: list[tuple[str, dict[str, str]]] = []
    redirects: dict[str, str] = {}

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, dict(self.headers)))
            target = redirects.get(self.path)
            self.send_response(302 if target else 200)
            if target:
                self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with answering(Handler, "0.0.0.0") as port:
        yield port, seen, redirects


def test_a_name_is_looked_up_once_so_that_a_second_answer_leads_nowhere(
    names: Names, site: Site
) -> None:
    port, seen, _ = site
    asked = names({"rebinds": [ALLOWED, FORBIDDEN]})
    Web().opened(f"http://rebinds:{port}/m", {}).close()
    assert asked == ["rebinds"]
    assert len(seen) == 1


def test_a_name_that_leads_to_a_forbidden_address_is_refused(names: Names, site: Site) -> None:
    port, seen, _ = site
    names({"inside": [FORBIDDEN]})
    with pytest.raises(GroupError, match=r"inside is 127\.0\.0\.1, forbidden"):
        Web().opened(f"http://inside:{port}/m", {})
    assert seen == []


def test_of_several_addresses_only_allowed_ones_are_asked(names: Names, site: Site) -> None:
    port, seen, _ = site
    names({"both": [f"{FORBIDDEN} {ALLOWED}"]})
    Web().opened(f"http://both:{port}/m", {}).close()
    assert len(seen) == 1


def test_a_redirect_to_a_forbidden_address_is_refused(names: Names, site: Site) -> None:
    port, seen, redirects = site
    names({})
    redirects["/m"] = f"http://{FORBIDDEN}:{port}/secret"
    with pytest.raises(GroupError, match="forbidden"):
        Web().opened(f"http://{ALLOWED}:{port}/m", {})
    assert [path for path, _ in seen] == ["/m"]


def test_credentials_are_for_the_first_host_alone(names: Names, site: Site) -> None:
    port, seen, redirects = site
    names({"other": [ALLOWED]})
    redirects["/m"] = "/here"
    redirects["/here"] = f"http://other:{port}/there"
    credentials = {"Authorization": "Bearer secret", "Cookie": "secret"}
    Web().opened(f"http://{ALLOWED}:{port}/m", {**credentials, "Range": "bytes=0-"}).close()
    assert [path for path, _ in seen] == ["/m", "/here", "/there"]
    assert [credentials.items() <= headers.items() for _, headers in seen] == [True, True, False]
    assert "secret" not in str(seen[-1])
    assert seen[-1][1]["Range"] == "bytes=0-"


def test_a_proxy_of_the_environment_is_not_asked(
    names: Names, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, seen, _ = site
    names({})
    monkeypatch.setenv("http_proxy", f"http://{FORBIDDEN}:{port}")
    Web().opened(f"http://{ALLOWED}:{port}/m", {}).close()
    assert [path for path, _ in seen] == ["/m"]


def test_where_it_is_allowed_loopback_is_asked(site: Site) -> None:
    port, seen, _ = site
    Web(allow_local=True).opened(f"http://127.0.0.1:{port}/m", {}).close()
    assert len(seen) == 1
