"""The model's header, brought to this machine: from the web server of the manifest, or from a file
that the user names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from llamacluster.agent.headers import fetch_headers
from llamacluster.agent.source import Web, file_name, scheme, shards
from llamacluster.planning.gguf import GgufError, Header, read_header
from llamacluster.planning.reasons import GroupError, Reason

_NO_CLAIM = Path("/nonexistent")


def header_at(uri: str, folder: Path, web: Web) -> tuple[list[Header], Path]:
    """As agent.headers.fetch_headers; raises GroupError for what is only in the cluster too."""
    if scheme(uri) not in ("http", "https"):
        raise GroupError(
            Reason.ModelNotFound,
            f"{uri} is not reachable from here: name a copy of the file on this machine with"
            " --model FILE; its header, in the first 20 MB, is enough",
        )
    return fetch_headers(uri, _NO_CLAIM, folder, web)


def header_of(file: Path, folder: Path) -> tuple[list[Header], Path]:
    """The same of a file on this machine, and of those beside it that belong to the model. They may
    end where the weights begin. Raises GroupError."""
    headers: list[Header] = []
    copies: list[Path] = []
    for part in (file.with_name(name) for name in shards(file.name)):
        copies.append(folder / file_name(quote(part.name)))
        try:
            with part.open("rb") as content, copies[-1].open("wb") as copy:
                headers.append(read_header(content))
                read = content.tell()
                content.seek(0)
                copy.write(content.read(read))
                copy.truncate(max(headers[-1].file_bytes, read))
        except GgufError as error:
            raise GroupError(Reason.ModelInvalid, f"{part}: {error}") from error
        except OSError as error:
            raise GroupError(
                Reason.ModelNotFound, f"{part} cannot be read: {error.strerror or error}"
            ) from error
    return headers, copies[0]
