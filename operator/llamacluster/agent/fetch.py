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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

from llamacluster.agent.log import Log
from llamacluster.agent.source import (
    Web,
    content_length,
    file_name,
    local_files,
    scheme,
    shard_urls,
    shown,
)
from llamacluster.planning.reasons import GroupError, Reason

CHUNK_BYTES = 1 << 20
KEPT_FREE = 0.20
"""Of the volume, where a server does not tell how much it will send: without a claim that is the
node's disk, mostly the one of the images too, and the kubelet ends pods when less than 15 % of that
is free."""
MORE_ROOM = 1.1
"""Times as much room as there was for such a file, when it is fetched once more."""

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
        web: Web,
        disk_usage: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage,
    ) -> None:
        self._fetched = fetched
        self._claim = claim
        self._scratch = scratch
        self._log = log
        self._stopping = stopping
        self._web = web
        self._disk_usage = disk_usage
        self._larger_than: dict[tuple[str, _Remote], int] = {}
        """Bytes of files of unknown size for which there was no room."""

    def obtain(self, uri: str, sha256: str | None, progress: Progress) -> ModelFiles:
        """The files of the model at `uri`, checked against `sha256` if that is given.

        The digest of a split model is that of all its files, one after the other. Raises GroupError
        with what is wrong and what to do, Stopped when told to stop.
        """
        if scheme(uri) in ("http", "https"):
            return self._fetch(uri, sha256, progress)
        model = _model(local_files(uri, self._claim))
        if sha256:
            note = self._scratch / f"verified-{_digest_of_text(str(model.path))}.json"
            actual = self._digest(model, note, progress)
            if actual != sha256.lower():
                raise _mismatch(str(model.path), sha256, actual)
        return model

    def _fetch(self, uri: str, sha256: str | None, progress: Progress) -> ModelFiles:
        urls = shard_urls(uri)
        folder = self._fetched / f"model-{_digest_of_text(uri)}"
        try:
            self._remove_unwanted(folder)
            folder.mkdir(parents=True, exist_ok=True)
            model = self._download_all(urls, folder, progress)
            if sha256:
                model = self._checked(urls, folder, model, sha256, progress)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _full(folder, None, self._room(self._fetched)) from error
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
        files = [folder / file_name(url) for url in urls]
        missing = [(url, file) for url, file in zip(urls, files, strict=True) if not file.exists()]
        remotes = [self._inquire(url) for url, _ in missing]
        sizes = [remote.bytes for remote in remotes]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        there = sum(_part(file).stat().st_size for _, file in missing if _part(file).exists())
        needed = max(0, sum(size or 0 for size in sizes) - there)
        if needed > (free := self._room(folder)):
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
        with self._web.opened(url, headers) as response:
            if response.status != 206:
                done = 0  # the server sends the whole file
            with part.open("ab" if done else "wb") as target:
                progress(done)
                while data := _read(response, url):
                    if self._stopping.is_set():
                        raise Stopped
                    done += len(data)
                    if remote.bytes is None:
                        self._check_room(part, url, remote)
                    elif done > remote.bytes:
                        break
                    target.write(data)
                    progress(done)
                target.flush()
                os.fsync(target.fileno())
        if remote.bytes is not None and done > remote.bytes:
            part.unlink()
            raise GroupError(
                Reason.ModelDownloadFailed,
                f"the server of {shown(url)} sends more than the {remote.bytes} bytes that it told"
                " of; it is downloaded anew",
            )
        if remote.bytes is not None and done != remote.bytes:
            raise GroupError(
                Reason.ModelDownloadFailed,
                f"the download of {shown(url)} broke off after {done} of {remote.bytes} bytes;"
                " it is resumed",
            )
        part.rename(file)
        return done

    def _check_room(self, part: Path, url: str, remote: _Remote) -> None:
        """Raises GroupError before a download of unknown size fills the disk, and gives back what
        it took."""
        total, _, free = self._disk_usage(part.parent)
        got, left = part.stat().st_size, free - KEPT_FREE * total
        least = self._larger_than.get((url, remote), 0)
        if left >= 0 and got + left >= MORE_ROOM * least:
            return
        if left < 0:
            least = self._larger_than[url, remote] = max(got, least)
        part.unlink()
        raise GroupError(
            Reason.StorageFull,
            f"{shown(url)} is larger than {least} bytes, and its server does not tell by how much:"
            f" stopped with {KEPT_FREE:.0%} of the disk free; raise model.storage.size, or serve"
            " the model with a Content-Length",
        )

    def _room(self, folder: Path) -> int:
        return self._disk_usage(folder)[2]

    def _inquire(self, url: str) -> _Remote:
        # GET without reading, not HEAD: signed URLs are signed for one method.
        with self._web.opened(url, {}) as response:
            return _Remote(
                bytes=content_length(response),
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
