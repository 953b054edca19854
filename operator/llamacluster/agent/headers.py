"""Reads the headers of a model's files wherever they are, and leaves the weights there.

Each header is kept as a sparse file: the header's own bytes, then nothing up to the size that the
whole file has. To the engine's accounting, which never touches weights, that is the model.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO

from llamacluster.agent.source import (
    Web,
    content_length,
    file_name,
    local_files,
    scheme,
    shard_urls,
    shown,
)
from llamacluster.planning.gguf import GgufError, Header, Source, read_header
from llamacluster.planning.reasons import GroupError, Reason

FIRST_RANGE_BYTES = 1 << 20
LARGEST_RANGE_BYTES = 4 << 20
"""Ranges grow up to this. The header of a large model is 5 to 12 MiB."""
SECONDS = 300.0
"""For all headers of a model."""
_CONTENT_RANGE = re.compile(r"bytes (?P<first>[0-9]{1,18})-[0-9]{1,18}/(?P<total>[0-9]{1,18}|\*)")


def fetch_headers(
    uri: str, claim: Path, folder: Path, web: Web, monotonic: Callable[[], float] = time.monotonic
) -> tuple[list[Header], Path]:
    """The headers of all files of the model at `uri`, and the sparse copy of its first file in
    `folder`, beside which the others lie.

    Raises GroupError with what is wrong and what to do.
    """
    headers: list[Header] = []
    copies: list[Path] = []
    if scheme(uri) in ("http", "https"):
        deadline = monotonic() + SECONDS
        for url in shard_urls(uri):
            copies.append(folder / file_name(url))
            with closing(RangeReader(url, web, deadline, monotonic)) as remote:
                headers.append(_read(remote, copies[-1], shown(url)))
                check_whole(shown(url), headers[-1], remote.total)
    else:
        for file in local_files(uri, claim):
            with file.open("rb") as content:
                copies.append(folder / file_name(file.name))
                headers.append(_read(content, copies[-1], file.name))
                check_whole(file.name, headers[-1], file.stat().st_size)
    return headers, copies[0]


def _read(source: Source, copy: Path, name: str) -> Header:
    try:
        with copy.open("wb") as target:
            header = read_header(_Tee(source, target))
            target.truncate(max(header.file_bytes, target.tell()))
            return header
    except GgufError as error:
        raise GroupError(Reason.ModelInvalid, f"{name}: {error}") from error
    except OSError as error:
        raise GroupError(Reason.ModelInvalid, f"{name} cannot be read: {error}") from error


def check_whole(name: str, header: Header, there: int | None) -> None:
    """Raises GroupError if a file of `there` bytes is too short for its header, and GgufError if
    the header does not say."""
    if there is not None and there < header.file_bytes:
        raise GroupError(
            Reason.ModelInvalid,
            f"{name} has {there} bytes but its header speaks of {header.file_bytes}: it is cut"
            " off; put the whole file there",
        )


class _Tee:
    """A source of which everything read is also written."""

    def __init__(self, source: Source, target: IO[bytes]) -> None:
        self._source = source
        self._target = target

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._target.write(data)
        return data


class RangeReader:
    """Reads a file on a web server from its beginning, in growing ranges. A server that does not
    know ranges sends the whole file, of which no more is taken than is asked for."""

    def __init__(self, url: str, web: Web, deadline: float, monotonic: Callable[[], float]) -> None:
        self.total: int | None = None
        """Size of the file, once the server has told."""
        self._url = url
        self._web = web
        self._deadline = deadline
        self._monotonic = monotonic
        self._position = 0
        self._first = self._end = 0
        """Of the range that is being read; what a server sends beyond it is let be."""
        self._step = FIRST_RANGE_BYTES
        self._response: http.client.HTTPResponse | None = None
        self._whole = False
        self._etag: str | None = None

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end of the file. Raises GroupError."""
        while True:
            if self._response is None:
                if self._position == self.total:
                    return b""
                self._response = self._request()
            if self._monotonic() > self._deadline:
                raise self._failure(f"the header did not arrive within {SECONDS:g} s")
            try:
                left = size if self._whole else min(size, self._end - self._position)
                data = self._response.read1(left) if left else b""
            except (OSError, http.client.HTTPException) as error:
                raise self._failure(str(error) or type(error).__name__) from error
            if data:
                self._position += len(data)
                return data
            self.close()
            if not self._whole and self._position == self._first:
                raise self._failure("the server sent nothing of the range that was asked for")
            if self._whole:
                if self.total not in (None, self._position):
                    raise self._failure(f"it ended after {self._position} of {self.total} bytes")
                return b""

    def close(self) -> None:
        """Ends the transfer that is under way."""
        if self._response:
            self._response.close()
            self._response = None

    def _request(self) -> http.client.HTTPResponse:
        self._first, self._end = self._position, self._position + self._step
        self._step = min(2 * self._step, LARGEST_RANGE_BYTES)
        headers = {"Range": f"bytes={self._first}-{self._end - 1}"}
        if self._etag:
            headers["If-Range"] = self._etag  # another file by now is sent whole, from its start
        response = self._web.opened(self._url, headers)
        if response.status == 206:
            found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if not found or int(found["first"]) != self._position:
                response.close()
                raise self._failure("the server sent another range than was asked for")
            self.total = int(found["total"]) if found["total"] != "*" else None
            etag = response.headers.get("ETag", "")
            self._etag = etag if etag and not etag.startswith("W/") else None
        elif self._position:
            response.close()
            raise self._failure("the file changed while its header was read")
        else:
            self._whole = True
            self.total = content_length(response)
        return response

    def _failure(self, why: str) -> GroupError:
        return GroupError(
            Reason.ModelDownloadFailed, f"the header of {shown(self._url)} cannot be read: {why}"
        )
