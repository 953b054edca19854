"""Images made of ready files, as one archive that `ctr images import` and `docker load` read.

No Docker build is needed for an image that is a program in an empty root, and uncompressed layers
are what starts fastest here.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Image:
    """`programs` (path in the image -> file here) on top of an optional root (a tar file)."""

    name: str
    programs: Mapping[str, Path]
    root: Path | None = None
    entrypoint: Sequence[str] = ()
    user: str = ""
    folders: Sequence[str] = field(default=("tmp",))


def architecture() -> str:
    """This machine's architecture as images name it."""
    machine = os.uname().machine
    return ARCHITECTURES.get(machine, machine)


def write(images: Sequence[Image], target: Path) -> None:
    """Write all images to one archive; a root that several share is in it once."""
    layers: dict[str, Path] = {}
    made: list[Path] = []
    manifest = []
    part = target.with_name(target.name + ".part")
    try:
        with tarfile.open(part, "w") as archive:
            for number, image in enumerate(images):
                top = target.with_name(f"{target.name}.layer-{number}")
                made.append(top)
                _write_layer(image, top)
                digests = []
                for layer in [image.root, top] if image.root else [top]:
                    digest = _sha256(layer)
                    digests.append(digest)
                    if digest not in layers:
                        layers[digest] = layer
                        archive.add(layer, arcname=f"{digest}.tar", filter=_anonymous)
                config = _config(image, digests)
                config_name = f"{hashlib.sha256(config).hexdigest()}.json"
                _add(archive, config_name, config)
                manifest.append(
                    {
                        "Config": config_name,
                        "RepoTags": [image.name],
                        "Layers": [f"{digest}.tar" for digest in digests],
                    }
                )
            _add(archive, "manifest.json", json.dumps(manifest).encode())
        part.replace(target)
    finally:
        for file in [*made, part]:
            file.unlink(missing_ok=True)


def _config(image: Image, digests: Sequence[str]) -> bytes:
    config = {
        "architecture": architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Env": [f"PATH={PATH}"],
            "Entrypoint": list(image.entrypoint) or None,
            "User": image.user,
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": "1970-01-01T00:00:00Z"} for _ in digests],
    }
    return json.dumps(config, sort_keys=True).encode()


def _write_layer(image: Image, target: Path) -> None:
    with tarfile.open(target, "w") as layer:
        for folder in image.folders:
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o1777
            layer.addfile(entry)
        for path, file in sorted(image.programs.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size = file.stat().st_size
            entry.mode = 0o755
            with file.open("rb") as content:
                layer.addfile(entry, content)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
