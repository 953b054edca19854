"""Secrets as the kubelet mounts them, and certificates for them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass
class MountedSecret:
    """The folder of a Secret's volume: links to files in a folder that is exchanged whole."""

    folder: Path
    written: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.folder.chmod(0o755)

    def write(self, entries: dict[str, str]) -> None:
        """As the kubelet does it for a Secret of these entries; none: it is gone or empty."""
        self.written += 1
        new = self.folder / f"..2026_{self.written}"
        new.mkdir(mode=0o755)
        for name, text in entries.items():
            (new / name).write_text(text)
        beside = self.folder / "..data_tmp"
        beside.symlink_to(new.name)
        beside.replace(self.folder / "..data")
        for link in self.folder.iterdir():
            if not link.name.startswith("..") and link.name not in entries:
                link.unlink()
        for name in entries:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")


def certificate(folder: Path, name: str, host: str | None = None) -> dict[str, str]:
    """The entries of a kubernetes.io/tls Secret: a certificate called `name`, for `host` if that is
    another, signed by itself. It is in `folder` too."""
    crt, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{host or name},IP:127.0.0.1", "-days", "30"),
            *("-keyout", str(key), "-out", str(crt)),
        ],
        check=True,
        capture_output=True,
    )
    return {"tls.crt": crt.read_text(), "tls.key": key.read_text()}
