"""Gets the model's file(s): found in place, or downloaded once and kept.

A download goes to `NAME.part`, is resumed where the server allows it, and is renamed when complete.
What is complete is used again at the next start, and hashed again only if it changed.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import IO, Protocol

from llamacluster.agent.log import Log
from llamacluster.planning.reasons import GroupError, Reason

CHUNK_BYTES = 1 << 20
READ_SECONDS = 30.0
MAX_SHARDS = 1000

_SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf")
_FOLDER = re.compile(r"model-[0-9a-f]{16}")


@dataclass(frozen=True)
class ModelFiles:
    """A model that is there, whole."""

    path: Path
    """The file to give to the engine: the only one, or the first."""
    files: tuple[Path, ...]
    bytes: int


class Progress(Protocol):
    """Is told how far it is; called about once per MiB."""

    def downloading(self, done_bytes: int, total_bytes: int | None) -> None: ...

    def verifying(self, done_bytes: int, total_bytes: int) -> None: ...


class Stopped(Exception):
    """The agent was told to stop."""


@dataclass(frozen=True)
class _Remote:
    """What a server says of a file. Two equal ones with a validator are the same content."""

    bytes: int | None
    etag: str | None
    modified: str | None

    @property
    def validator(self) -> str | None:
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.modified


class ModelStore:
    """The places where models may be."""

    def __init__(
        self,
        fetched: Path,
        claim: Path,
        scratch: Path,
        log: Log,
        stopping: Event,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._fetched = fetched
        self._claim = claim
        self._scratch = scratch
        self._log = log
        self._stopping = stopping
        self._free_bytes = free_bytes

    def obtain(self, uri: str, sha256: str | None, progress: Progress) -> ModelFiles:
        """The files of the model at `uri`, checked against `sha256` if that is given.

        The digest of a split model is that of all its files, one after the other. Raises GroupError
        with what is wrong and what to do, Stopped when told to stop.
        """
        parts = urllib.parse.urlsplit(uri)
        if "@" in parts.netloc:
            # Not shown: it may be a password. Python's client would show it in its error.
            raise GroupError(Reason.ModelNotFound, "model.uri must not hold a user or a password")
        if parts.scheme in ("http", "https"):
            return self._fetch(uri, sha256, progress)
        if parts.scheme == "pvc":
            path = self._claim / urllib.parse.unquote(parts.path).lstrip("/")
            return self._find(path, f"the claim {parts.netloc}", sha256, progress)
        if parts.scheme == "file":
            path = Path(urllib.parse.unquote(parts.path))
            return self._find(path, "the image of the leader", sha256, progress)
        raise GroupError(
            Reason.ModelNotFound, f"model.uri {uri!r} is none of http(s)://, pvc:// and file://"
        )

    def _find(self, path: Path, where: str, sha256: str | None, progress: Progress) -> ModelFiles:
        if ".." in path.parts or "\0" in str(path):
            raise GroupError(Reason.ModelNotFound, f"model.uri must not hold '..' or %00: {path}")
        files = [path.with_name(name) for name in shards(path.name)]
        for file in files:
            try:
                with file.open("rb") as content:
                    content.read(1)
            except FileNotFoundError as error:
                raise GroupError(
                    Reason.ModelNotFound,
                    f"there is no file {file} in {where}: correct model.uri or put it there",
                ) from error
            except OSError as error:
                raise GroupError(
                    Reason.ModelNotFound,
                    f"{file} in {where} cannot be read ({error.strerror}): it must be a file that"
                    f" user {os.getuid()} may read",
                ) from error
        model = _model(files)
        if sha256:
            note = self._scratch / f"verified-{_digest_of_text(str(path))}.json"
            actual = self._digest(model, note, progress)
            if actual != sha256.lower():
                raise _mismatch(str(path), sha256, actual)
        return model

    def _fetch(self, uri: str, sha256: str | None, progress: Progress) -> ModelFiles:
        urls = _shard_urls(uri)
        folder = self._fetched / f"model-{_digest_of_text(uri)}"
        try:
            self._remove_unwanted(folder)
            folder.mkdir(parents=True, exist_ok=True)
            model = self._download_all(urls, folder, progress)
            if sha256:
                model = self._checked(urls, folder, model, sha256, progress)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _full(folder, None, self._free_bytes(self._fetched)) from error
            raise GroupError(
                Reason.ModelDownloadFailed,
                f"cannot write to {self._fetched}: {error.strerror}; it must be a volume that user"
                f" {os.getuid()} may write to",
            ) from error
        return model

    def _checked(
        self, urls: list[str], folder: Path, model: ModelFiles, sha256: str, progress: Progress
    ) -> ModelFiles:
        note = folder / "verified.json"
        actual = self._digest(model, note, progress)
        if actual == sha256.lower():
            return model
        # A kept file may be older than the digest: fetch anew, but only if the server's changed.
        changed = [
            file
            for url, file in zip(urls, model.files, strict=True)
            if self._inquire(url) != _read_remote(_origin(file))
        ]
        if changed:
            self._log.info("the server has another file now", files=len(changed))
            for file in changed:
                file.unlink()
            model = self._download_all(urls, folder, progress)
            actual = self._digest(model, note, progress)
        if actual != sha256.lower():
            raise _mismatch(shown(urls[0]), sha256, actual)
        return model

    def _remove_unwanted(self, wanted: Path) -> None:
        for folder in self._fetched.glob("model-*"):
            if folder != wanted and _FOLDER.fullmatch(folder.name):
                self._log.info("removing a model that is no longer wanted", folder=folder)
                shutil.rmtree(folder)

    def _download_all(self, urls: list[str], folder: Path, progress: Progress) -> ModelFiles:
        files = [folder / _file_name(url) for url in urls]
        missing = [(url, file) for url, file in zip(urls, files, strict=True) if not file.exists()]
        remotes = [self._inquire(url) for url, _ in missing]
        sizes = [remote.bytes for remote in remotes]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        there = sum(_part(file).stat().st_size for _, file in missing if _part(file).exists())
        needed = max(0, sum(size or 0 for size in sizes) - there)
        if needed > (free := self._free_bytes(folder)):
            raise _full(folder, needed, free)
        done = 0
        for (url, file), remote in zip(missing, remotes, strict=True):

            def tell(size: int, before: int = done) -> None:
                progress.downloading(before + size, total)

            done += self._download(url, file, remote, tell)
        return _model(files)

    def _download(
        self, url: str, file: Path, remote: _Remote, progress: Callable[[int], None]
    ) -> int:
        """Downloads one file, or its rest if it is the same as at an earlier try; its bytes."""
        part, origin = _part(file), _origin(file)
        done = part.stat().st_size if part.exists() and _read_remote(origin) == remote else 0
        if not remote.validator:
            done = 0
        if done and done == remote.bytes:
            part.rename(file)
            return done
        origin.write_text(json.dumps(asdict(remote)))
        headers = {"Range": f"bytes={done}-", "If-Range": str(remote.validator)} if done else {}
        self._log.info("downloading", url=shown(url), at=done, total=remote.bytes)
        with _opened(url, headers) as response:
            if response.status != 206:
                done = 0  # the server sends the whole file
            with part.open("ab" if done else "wb") as target:
                progress(done)
                while data := _read(response, url):
                    if self._stopping.is_set():
                        raise Stopped
                    target.write(data)
                    done += len(data)
                    progress(done)
                target.flush()
                os.fsync(target.fileno())
        if remote.bytes is not None and done != remote.bytes:
            if done > remote.bytes:
                part.unlink()
            raise GroupError(
                Reason.ModelDownloadFailed,
                f"the download of {shown(url)} broke off after {done} of {remote.bytes} bytes;"
                " it is resumed",
            )
        part.rename(file)
        return done

    def _inquire(self, url: str) -> _Remote:
        # GET without reading, not HEAD: signed URLs are signed for one method.
        with _opened(url, {}) as response:
            length = response.headers.get("Content-Length", "")
            return _Remote(
                bytes=int(length) if length.isdigit() else None,
                etag=response.headers.get("ETag"),
                modified=response.headers.get("Last-Modified"),
            )

    def _digest(self, model: ModelFiles, note: Path, progress: Progress) -> str:
        """The model's sha256; from the note of an earlier time if no file changed since."""
        state = [
            [file.name, (stat := file.stat()).st_size, stat.st_mtime_ns] for file in model.files
        ]
        try:
            noted = json.loads(note.read_text())
            if noted["files"] == state:
                return str(noted["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        digest, done = hashlib.sha256(), 0
        for file in model.files:
            with file.open("rb") as content:
                while data := content.read(CHUNK_BYTES):
                    if self._stopping.is_set():
                        raise Stopped
                    digest.update(data)
                    done += len(data)
                    progress.verifying(done, model.bytes)
        note.write_text(json.dumps({"files": state, "sha256": digest.hexdigest()}))
        return digest.hexdigest()


def shards(name: str) -> list[str]:
    """The file names of a model of which `name` is one: itself, or all parts of a split model.

    Raises GroupError if it is a part other than the first.
    """
    found = _SHARD.fullmatch(name)
    if not found:
        return [name]
    index, count = int(found["index"]), int(found["count"])
    if index != 1 or not 1 <= count <= MAX_SHARDS:
        raise GroupError(
            Reason.ModelInvalid, f"{name} is not the first part of a split model: name that one"
        )
    return [f"{found['stem']}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)]


def shown(url: str) -> str:
    """The URL without what may be secret in it: user, password and query."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(
        (parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")
    )


def _shard_urls(uri: str) -> list[str]:
    parts = urllib.parse.urlsplit(uri)
    folder, slash, name = parts.path.rpartition("/")
    return [
        urllib.parse.urlunsplit(parts._replace(path=folder + slash + shard, fragment=""))
        for shard in shards(name)
    ]


def _file_name(url: str) -> str:
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    # Of a long name the end: it tells the files of a split model apart.
    safe = re.sub(r"[^\w.+-]", "_", name)[-200:].lstrip(".")
    return safe if safe.endswith(".gguf") else f"{safe or 'model'}.gguf"


def _part(file: Path) -> Path:
    return file.with_name(f"{file.name}.part")


def _origin(file: Path) -> Path:
    return file.with_name(f"{file.name}.origin.json")


def _read_remote(origin: Path) -> _Remote | None:
    try:
        return _Remote(**json.loads(origin.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _model(files: list[Path]) -> ModelFiles:
    return ModelFiles(files[0], tuple(files), sum(file.stat().st_size for file in files))


def _digest_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Redirects(urllib.request.HTTPRedirectHandler):
    """At most 10, never to file://, and never from https to http, where anybody may answer."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise GroupError(
                Reason.ModelDownloadFailed,
                f"{shown(req.full_url)} leads to {shown(newurl)}, which is not https",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _opened(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    request = urllib.request.Request(
        url, headers={"Accept-Encoding": "identity", "User-Agent": "llamacluster", **headers}
    )
    try:
        response: http.client.HTTPResponse = _opener().open(request, timeout=READ_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise GroupError(
                Reason.ModelNotFound,
                f"{shown(url)} does not exist ({error.code}): correct model.uri",
            ) from error
        raise GroupError(
            Reason.ModelDownloadFailed, f"{shown(url)} answers {error.code} {error.reason}"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise GroupError(
            Reason.ModelDownloadFailed, f"{shown(url)} cannot be reached: {why}"
        ) from error
    return response


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return response.read(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise GroupError(
            Reason.ModelDownloadFailed,
            f"the download of {shown(url)} broke off: {error}; it is resumed",
        ) from error


def _full(folder: Path, needed: int | None, free: int) -> GroupError:
    what = "it needs more" if needed is None else f"it needs {needed} bytes more"
    return GroupError(
        Reason.StorageFull,
        f"the model does not fit into {folder.parent}: {what}, {free} are free; raise"
        " model.storage.size",
    )


def _mismatch(where: str, wanted: str, actual: str) -> GroupError:
    return GroupError(
        Reason.ChecksumMismatch,
        f"{where} has sha256 {actual}, not {wanted.lower()}: correct model.sha256 or the file",
    )
