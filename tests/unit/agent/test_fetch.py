"""Models are found or fetched once, whole and verified, or it is said why not."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler
from io import BytesIO, StringIO
from pathlib import Path
from threading import Event

import pytest

from llamacluster.agent.fetch import CHUNK_BYTES, ModelStore
from llamacluster.agent.log import Log
from llamacluster.agent.source import Redirects, shards, shown
from llamacluster.agent.source import Web as Way
from llamacluster.planning.reasons import GroupError, Reason
from tests.webserver import Quiet, answering

CONTENT = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Web:
    """A web server with files, and faults that a test can ask for."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: str | None = '"v1"'
    breaks_off_after: int | None = None
    tells_size: bool = True
    tells_less: int = 0
    """By how much it tells less than it sends, when asked for the first time."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    @property
    def bytes_asked_for(self) -> list[str | None]:
        return [wanted for _, wanted in self.requests]


@pytest.fixture
def web() -> Iterator[Web]:
    state = Web({"/model.gguf": CONTENT})

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append((self.path, wanted))
            path = self.path.partition("?")[0]
            if path.startswith("/moved"):
                self.send_response(302)
                self.send_header("Location", path.removeprefix("/moved") or "/moved")
                self.end_headers()
                return
            if path not in state.files:
                self.send_error(int(path[1:]) if path[1:].isdigit() else 404)
                return
            content = state.files[path]
            begin = 0
            if wanted and state.ranges and self.headers.get("If-Range") == state.etag:
                begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if begin else 200)
            if state.tells_size:
                told = len(content) - begin - state.tells_less
                state.tells_less = 0
                self.send_header("Content-Length", str(told))
            if state.etag:
                self.send_header("ETag", state.etag)
            self.end_headers()
            end = len(content)
            if state.breaks_off_after is not None:
                end = min(end, begin + state.breaks_off_after)
            try:
                self.wfile.write(content[begin:end])
            except OSError:
                return  # the client only wanted to know the size

    with answering(Handler) as port:
        state.url = f"http://127.0.0.1:{port}"
        yield state


@dataclass
class Places:
    """The volumes of a leader pod."""

    root: Path
    free: int = 1 << 40
    total: int = 1 << 42
    allow_local: bool = True
    log: StringIO = field(default_factory=StringIO)
    downloaded: list[tuple[int, int | None]] = field(default_factory=list)
    verified: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder in ("models", "claim", "tmp"):
            (self.root / folder).mkdir()
        self.store = ModelStore(
            self.root / "models",
            self.root / "claim",
            self.root / "tmp",
            Log("leader", self.log),
            Event(),
            Way(allow_local=self.allow_local),
            self._disk_usage,
        )

    def obtain(self, uri: str, sha256: str | None = None) -> Path:
        model = self.store.obtain(uri, sha256, self)
        assert model.bytes == sum(file.stat().st_size for file in model.files)
        return model.path

    def _disk_usage(self, folder: Path) -> tuple[int, int, int]:
        used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return self.total, self.total - self.free + used, self.free - used

    def downloading(self, done_bytes: int, total_bytes: int | None) -> None:
        self.downloaded.append((done_bytes, total_bytes))

    def verifying(self, done_bytes: int, total_bytes: int) -> None:  # noqa: ARG002
        self.verified.append(done_bytes)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def refusal(places: Places, uri: str, sha256: str | None = None) -> GroupError:
    with pytest.raises(GroupError) as caught:
        places.obtain(uri, sha256)
    return caught.value


def test_a_model_is_downloaded_and_kept(web: Web, places: Places) -> None:
    path = places.obtain(f"{web.url}/model.gguf", SHA256)
    assert path.read_bytes() == CONTENT
    assert path.name == "model.gguf"
    assert places.downloaded[-1] == (len(CONTENT), len(CONTENT))
    asked = len(web.requests)
    assert places.obtain(f"{web.url}/model.gguf", SHA256) == path
    assert len(web.requests) == asked


def test_an_unchanged_file_is_hashed_once(web: Web, places: Places) -> None:
    places.obtain(f"{web.url}/model.gguf", SHA256)
    places.verified.clear()
    path = places.obtain(f"{web.url}/model.gguf", SHA256.upper())
    assert not places.verified
    path.write_bytes(CONTENT[:-1] + b"!")
    refusal(places, f"{web.url}/model.gguf", "0" * 64)
    assert places.verified


def test_redirects_are_followed_but_not_for_ever(web: Web, places: Places) -> None:
    assert places.obtain(f"{web.url}/moved/model.gguf").read_bytes() == CONTENT
    assert refusal(places, f"{web.url}/moved").reason is Reason.ModelDownloadFailed


@pytest.mark.parametrize("to", ["http://host/m.gguf", "HTTP://host/m.gguf", "ftp://host/m.gguf"])
def test_no_redirect_leads_out_of_https(to: str) -> None:
    request = urllib.request.Request("https://host/m.gguf?signature=1")
    with pytest.raises(GroupError, match="which is not https") as caught:
        Redirects().redirect_request(request, BytesIO(), 302, "Found", HTTPMessage(), to)
    assert "signature" not in str(caught.value)


def test_a_broken_download_is_resumed(web: Web, places: Places) -> None:
    web.breaks_off_after = 3_000_000
    error = refusal(places, f"{web.url}/model.gguf", SHA256)
    assert error.reason is Reason.ModelDownloadFailed
    assert f"broke off after 3000000 of {len(CONTENT)} bytes" in error.message
    web.breaks_off_after = None
    assert places.obtain(f"{web.url}/model.gguf", SHA256).read_bytes() == CONTENT
    assert web.bytes_asked_for[-1] == "bytes=3000000-"


@pytest.mark.parametrize("change", ["no ranges", "another version", "no validator"])
def test_a_download_that_cannot_be_resumed_begins_anew(
    web: Web, places: Places, change: str
) -> None:
    if change == "no validator":
        web.etag = None
    web.breaks_off_after = 3_000_000
    refusal(places, f"{web.url}/model.gguf")
    web.breaks_off_after = None
    if change == "no ranges":
        web.ranges = False
    if change == "another version":
        web.etag, web.files["/model.gguf"] = '"v2"', CONTENT[::-1]
    assert places.obtain(f"{web.url}/model.gguf").read_bytes() == web.files["/model.gguf"]


def test_a_wrong_digest_is_told_and_the_file_not_fetched_again(web: Web, places: Places) -> None:
    for _ in range(2):
        error = refusal(places, f"{web.url}/model.gguf", "0" * 64)
        assert error.reason is Reason.ChecksumMismatch
        assert f"has sha256 {SHA256}, not {'0' * 64}" in error.message
    downloads = places.log.getvalue().count("msg=downloading")
    assert downloads == 1


def test_a_wrong_digest_heals_when_the_server_has_the_right_file(web: Web, places: Places) -> None:
    web.files["/model.gguf"] = b"old" * 1000
    refusal(places, f"{web.url}/model.gguf", SHA256)
    web.files["/model.gguf"], web.etag = CONTENT, '"v2"'
    assert places.obtain(f"{web.url}/model.gguf", SHA256).read_bytes() == CONTENT


def test_a_full_volume_is_told_before_anything_is_fetched(web: Web, places: Places) -> None:
    places.free = 1000
    error = refusal(places, f"{web.url}/model.gguf")
    assert error.reason is Reason.StorageFull
    assert f"needs {len(CONTENT)} bytes more, 1000 are free" in error.message
    assert not places.downloaded


def test_a_download_of_unknown_size_stops_before_the_disk_is_full(web: Web, places: Places) -> None:
    web.tells_size = False
    places.total, places.free = 10_000_000, 5_000_000
    error = refusal(places, f"{web.url}/model.gguf")
    assert error.reason is Reason.StorageFull
    assert "its server does not tell by how much: stopped with 20% of the disk free" in (
        error.message
    )
    assert 2_000_000 <= places.downloaded[-1][0] <= 3_000_000 + CHUNK_BYTES
    left = [file.name for file in places.root.rglob("model.gguf*")]
    assert left == ["model.gguf.origin.json"]  # the room is given back
    # The leader tries again and again: what does not fit is not fetched each time.
    places.downloaded.clear()
    assert refusal(places, f"{web.url}/model.gguf").message == error.message
    assert places.downloaded == [(0, None)]
    places.free = 9_000_000
    assert places.obtain(f"{web.url}/model.gguf").read_bytes() == CONTENT


def test_a_download_of_unknown_size_that_fits_is_kept(web: Web, places: Places) -> None:
    web.tells_size = False
    assert places.obtain(f"{web.url}/model.gguf", SHA256).read_bytes() == CONTENT
    assert places.downloaded[-1] == (len(CONTENT), None)


def test_no_more_is_taken_than_was_told(web: Web, places: Places) -> None:
    web.tells_less = 2_000_000
    error = refusal(places, f"{web.url}/model.gguf")
    assert error.reason is Reason.ModelDownloadFailed
    assert f"sends more than the {len(CONTENT) - 2_000_000} bytes that it told" in error.message
    assert places.downloaded[-1][0] <= len(CONTENT) - 2_000_000
    assert places.obtain(f"{web.url}/model.gguf", SHA256).read_bytes() == CONTENT


def test_what_is_there_of_a_broken_download_is_not_needed_again(web: Web, places: Places) -> None:
    web.breaks_off_after = 3_000_000
    refusal(places, f"{web.url}/model.gguf")
    web.breaks_off_after, places.free = None, len(CONTENT) + 1000
    places.obtain(f"{web.url}/model.gguf")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/404", Reason.ModelNotFound),
        ("/410", Reason.ModelNotFound),
        ("/401", Reason.ModelAccessDenied),
        ("/403", Reason.ModelAccessDenied),
        ("/500", Reason.ModelDownloadFailed),
    ],
)
def test_what_the_server_says_is_told(web: Web, places: Places, path: str, reason: Reason) -> None:
    error = refusal(places, f"{web.url}{path}?signature=secret")
    assert error.reason is reason
    assert path[1:] in error.message
    assert "secret" not in error.message


def test_an_unreachable_server_is_told(places: Places) -> None:
    error = refusal(places, "http://127.0.0.1:9/model.gguf")
    assert error.reason is Reason.ModelDownloadFailed
    assert "cannot be reached" in error.message


def test_another_uri_takes_the_place_of_the_former(web: Web, places: Places) -> None:
    web.files["/other.gguf"] = b"other"
    former = places.obtain(f"{web.url}/model.gguf")
    foreign = places.root / "models" / "mine.txt"
    foreign.write_text("not ours")
    assert places.obtain(f"{web.url}/other.gguf").read_bytes() == b"other"
    assert not former.parent.exists()
    assert foreign.exists()


def test_all_files_of_a_split_model_are_fetched(web: Web, places: Places) -> None:
    for index in (1, 2, 3):
        web.files[f"/m-0000{index}-of-00003.gguf"] = bytes([index]) * 1000
    digest = hashlib.sha256(b"\1" * 1000 + b"\2" * 1000 + b"\3" * 1000).hexdigest()
    path = places.obtain(f"{web.url}/m-00001-of-00003.gguf?token=t", digest)
    assert [file.name for file in sorted(path.parent.glob("*.gguf"))] == shards(path.name)
    assert places.downloaded[-1] == (3000, 3000)
    assert all(asked.endswith("?token=t") for asked, _ in web.requests)


def test_a_missing_file_of_a_split_model_is_named(web: Web, places: Places) -> None:
    web.files["/m-00001-of-00002.gguf"] = b"1"
    assert "m-00002-of-00002.gguf" in refusal(places, f"{web.url}/m-00001-of-00002.gguf").message


def test_another_part_than_the_first_is_refused(places: Places) -> None:
    error = refusal(places, "file:///m-00002-of-00003.gguf")
    assert error.reason is Reason.ModelInvalid


def test_a_model_in_a_claim_is_used_in_place(places: Places) -> None:
    file = places.root / "claim" / "sub" / "my model.gguf"
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    assert places.obtain("pvc://weights/sub/my%20model.gguf", SHA256) == file
    assert not list((places.root / "models").iterdir())
    error = refusal(places, "pvc://weights/sub/my%20model.gguf", "0" * 64)
    assert error.reason is Reason.ChecksumMismatch


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("file:///none.gguf", "there is no file /none.gguf in the image of the leader"),
        ("pvc://weights/none.gguf", "none.gguf in the claim weights: correct model.uri"),
        ("pvc://weights/../x.gguf", "must not hold '..'"),
        ("pvc://weights/%2e%2e/x.gguf", "must not hold '..'"),
        ("pvc://weights/a%00.gguf", "must not hold '..' or %00"),
        ("file:///tmp", "/tmp in the image of the leader is no file"),
        ("file:///dev/stdin", "is no file"),
        ("ftp://host/x.gguf", "is none of"),
    ],
)
def test_a_model_that_is_not_there_is_told(places: Places, uri: str, words: str) -> None:
    error = refusal(places, uri)
    assert error.reason is Reason.ModelNotFound
    assert words in error.message


def test_the_files_of_a_split_model_with_a_long_name_are_kept_apart(
    web: Web, places: Places
) -> None:
    stem = "m" * 220
    for index in (1, 2):
        web.files[f"/{stem}-{index:05d}-of-00002.gguf"] = CONTENT
    first = places.obtain(f"{web.url}/{stem}-00001-of-00002.gguf")
    assert len(list(first.parent.glob("*.gguf"))) == 2
    assert first.name.endswith("-00001-of-00002.gguf")


def test_a_password_in_the_uri_is_refused_and_not_told(places: Places) -> None:
    error = refusal(places, "http://user:secret@host/m.gguf")
    assert error.reason is Reason.ModelNotFound
    assert "secret" not in str(error)


def test_secrets_of_a_url_are_not_shown() -> None:
    assert shown("https://user:pass@host:1/p/m.gguf?sig=1#f") == "https://host:1/p/m.gguf"
