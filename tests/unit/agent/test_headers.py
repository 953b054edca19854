"""Headers come from anywhere, little is read, and whatever is wrong is said."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from llamacluster.agent.headers import LARGEST_RANGE_BYTES, SECONDS, fetch_headers
from llamacluster.agent.source import Web as Way
from llamacluster.planning.gguf import Header, read_header
from llamacluster.planning.reasons import GroupError, Reason
from tests.model.headers import write_header
from tests.webserver import Quiet, answering

LOCAL = Way(allow_local=True)


@dataclass
class Web:
    """A web server that speaks ranges, or not, and changes or breaks on demand."""

    path: Path
    """The file that it has at /m.gguf; its size is `total`, zeros behind what is there."""
    total: int = 0
    ranges: bool = True
    etag: str = '"v1"'
    etag_after_first: str | None = None
    shift: int = 0
    bytes_a_piece: int | None = None
    more: bytes = b""
    """Behind each range."""
    length: str | None = None
    """What it says instead of the true length of an answer."""
    asked: list[str | None] = field(default_factory=list)
    sent: int = 0
    url: str = ""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    state = Web(tmp_path / "served.gguf")

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            if not self.path.endswith("/m.gguf"):
                self.send_error(404)
                return
            condition = self.headers.get("If-Range")
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted or "")
            first, last = 0, state.total - 1
            if found and state.ranges and condition in (None, state.etag):
                first = int(found[1]) + state.shift
                last = min(int(found[2]), last)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{state.total}")
            else:
                self.send_response(200)
            length = last + 1 - first + len(state.more)
            self.send_header("Content-Length", state.length or str(length))
            self.send_header("ETag", state.etag)
            self.end_headers()
            state.etag = state.etag_after_first or state.etag
            with state.path.open("rb") as file:
                file.seek(first)
                while first <= last:
                    piece = file.read(min(last + 1 - first, state.bytes_a_piece or 1 << 16))
                    piece = piece or bytes(min(last + 1 - first, 1 << 16))
                    try:
                        self.wfile.write(piece)
                    except OSError:
                        return  # the client has seen enough
                    first += len(piece)
                    state.sent += len(piece)
                with suppress(OSError):
                    self.wfile.write(state.more)

    with answering(Handler) as port:
        state.url = f"http://127.0.0.1:{port}/m.gguf"
        yield state


@pytest.fixture
def served(web: Web) -> Header:
    """The header of a 70B model, which the server has with all its 42.5 GB."""
    write_header(web.path, "llama-3.1-70b", "Q4_K_M")
    with web.path.open("rb") as file:
        header = read_header(file)
    web.total = header.file_bytes
    return header


def fetched(uri: str, folder: Path) -> Header:
    (header,), copy = fetch_headers(uri, folder / "claim", folder, LOCAL)
    with copy.open("rb") as file:
        assert read_header(file) == header
    assert copy.stat().st_size == header.file_bytes
    assert copy.stat().st_blocks * 512 < 32 << 20  # sparse
    return header


def test_over_http_little_more_than_the_header_is_read(
    web: Web, served: Header, tmp_path: Path
) -> None:
    assert fetched(web.url, tmp_path) == served
    assert served.data_offset < web.sent < served.data_offset + LARGEST_RANGE_BYTES
    assert web.asked[0] == "bytes=0-1048575"
    assert len(web.asked) == 4  # 1, 2, 4 and 4 MiB


def test_a_server_without_ranges_is_read_no_further_than_the_header(
    web: Web, served: Header, tmp_path: Path
) -> None:
    web.ranges = False
    assert fetched(web.url, tmp_path) == served
    assert len(web.asked) == 1
    assert web.sent < served.data_offset + (20 << 20)  # what the sockets hold


def test_from_a_file_and_from_a_claim(tmp_path: Path) -> None:
    (tmp_path / "claim" / "sub").mkdir(parents=True)
    file = tmp_path / "claim" / "sub" / "m.gguf"
    write_header(file, "qwen3-8b", "Q8_0")
    with file.open("r+b") as content:
        content.truncate(10_000_000_000)
    folder = tmp_path / "scratch"
    folder.mkdir()
    by_file, _ = fetch_headers(f"file://{file}", tmp_path / "claim", folder, LOCAL)
    by_claim, copy = fetch_headers("pvc://some-claim/sub/m.gguf", tmp_path / "claim", folder, LOCAL)
    assert by_file == by_claim
    assert copy == folder / "m.gguf"


def test_all_files_of_a_split_model(tmp_path: Path) -> None:
    for index in (1, 2):
        write_header(tmp_path / f"m-0000{index}-of-00002.gguf", "qwen3-8b", "Q8_0")
        with (tmp_path / f"m-0000{index}-of-00002.gguf").open("r+b") as content:
            content.truncate(10_000_000_000)
    folder = tmp_path / "scratch"
    folder.mkdir()
    uri = f"file://{tmp_path}/m-00001-of-00002.gguf"
    headers, copy = fetch_headers(uri, tmp_path, folder, LOCAL)
    assert len(headers) == 2
    assert sorted(path.name for path in folder.iterdir()) == [
        "m-00001-of-00002.gguf",
        "m-00002-of-00002.gguf",
    ]
    assert copy.name == "m-00001-of-00002.gguf"


def refusal(uri: str, folder: Path) -> GroupError:
    with pytest.raises(GroupError) as caught:
        fetch_headers(uri, folder / "claim", folder, LOCAL)
    return caught.value


def test_a_file_that_is_cut_off_is_told_before_anybody_downloads_it(
    web: Web, served: Header, tmp_path: Path
) -> None:
    web.total -= 1
    error = refusal(web.url, tmp_path)
    assert error.reason is Reason.ModelInvalid
    assert f"has {web.total} bytes but its header speaks of {served.file_bytes}" in error.message


@pytest.mark.usefixtures("served")
def test_a_file_that_changes_meanwhile_is_not_mixed(web: Web, tmp_path: Path) -> None:
    web.etag_after_first = '"v2"'
    error = refusal(web.url, tmp_path)
    assert error.reason is Reason.ModelDownloadFailed
    assert "the file changed while its header was read" in error.message


@pytest.mark.usefixtures("served")
def test_another_range_than_asked_for_is_refused(web: Web, tmp_path: Path) -> None:
    web.shift = 5
    assert "sent another range than was asked for" in refusal(web.url, tmp_path).message


def test_what_a_server_sends_beyond_a_range_is_let_be(
    web: Web, served: Header, tmp_path: Path
) -> None:
    web.more = b"x" * 5000
    assert fetched(web.url, tmp_path) == served
    assert len(web.asked) == 4


@pytest.mark.usefixtures("served")
def test_a_server_that_sends_nothing_is_asked_once(web: Web, tmp_path: Path) -> None:
    web.length = "0"
    assert "the server sent nothing of the range" in refusal(web.url, tmp_path).message
    assert len(web.asked) == 1


@pytest.mark.parametrize("length", ["9" * 5000, "\xb2"])
def test_a_length_that_is_no_number_is_not_known(
    web: Web, served: Header, tmp_path: Path, length: str
) -> None:
    web.ranges, web.length = False, length
    assert fetched(web.url, tmp_path) == served


def test_a_file_that_ends_in_its_header_is_told(web: Web, tmp_path: Path) -> None:
    write_header(web.path, "llama-3.1-70b", "Q4_K_M")
    web.total = 3_000_000
    error = refusal(web.url, tmp_path)
    assert error.reason is Reason.ModelInvalid
    assert "ends inside its header, after 3000000 bytes" in error.message


@pytest.mark.usefixtures("served")
def test_a_server_that_drips_is_left(web: Web, tmp_path: Path) -> None:
    web.bytes_a_piece = 1000
    began = time.monotonic()
    with pytest.raises(GroupError, match=f"did not arrive within {SECONDS:g} s"):
        # A clock that runs 10,000 times as fast.
        fetch_headers(web.url, tmp_path, tmp_path, LOCAL, lambda: time.monotonic() * 10_000)
    assert time.monotonic() - began < 60


def test_what_is_not_there_or_no_model_is_told(web: Web, tmp_path: Path) -> None:
    missing = refusal(web.url.replace("m.gguf", "n.gguf"), tmp_path)
    assert missing.reason is Reason.ModelNotFound
    web.path.write_bytes(b"<html>not here</html>")
    web.total = 21
    page = refusal(web.url, tmp_path)
    assert (page.reason, "it is a web page" in page.message) == (Reason.ModelInvalid, True)
    assert refusal("file:///nowhere/m.gguf", tmp_path).reason is Reason.ModelNotFound
    assert refusal("s3://bucket/m.gguf", tmp_path).reason is Reason.ModelNotFound
    closed = refusal("http://127.0.0.1:9/m.gguf", tmp_path)
    assert closed.reason is Reason.ModelDownloadFailed
