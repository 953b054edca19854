"""Where a model's files are: its URI taken apart, and the way to a web server."""

from __future__ import annotations

import http.client
import os
import re
import ssl
import stat
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from llamacluster.agent.addresses import connect
from llamacluster.agent.credentials import Credentials
from llamacluster.planning.reasons import GroupError, Reason

READ_SECONDS = 30.0
MAX_SHARDS = 1000

_SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf")


def scheme(uri: str) -> str:
    """`http`, `https`, `pvc` or `file`. Raises GroupError for anything else, and for a user or a
    password in it."""
    try:
        parts = urllib.parse.urlsplit(uri)
    except ValueError as error:
        raise GroupError(Reason.ModelNotFound, f"model.uri is no URI: {error}") from error
    if "@" in parts.netloc:
        # Not shown: it may be a password. Python's client would show it in its error.
        raise GroupError(Reason.ModelNotFound, "model.uri must not hold a user or a password")
    if parts.scheme not in ("http", "https", "pvc", "file"):
        raise GroupError(
            Reason.ModelNotFound, f"model.uri {uri!r} is none of http(s)://, pvc:// and file://"
        )
    return parts.scheme


def local_files(uri: str, claim: Path) -> list[Path]:
    """The files that a `pvc://` or `file://` URI names: one, or all parts of a split model.

    Raises GroupError for a path that leads elsewhere, and if one of them cannot be read.
    """
    parts = urllib.parse.urlsplit(uri)
    path = Path(urllib.parse.unquote(parts.path))
    where = "the image of the leader"
    if parts.scheme == "pvc":
        path, where = claim / str(path).lstrip("/"), f"the claim {parts.netloc}"
    if ".." in path.parts or "\0" in str(path):
        raise GroupError(Reason.ModelNotFound, f"model.uri must not hold '..' or %00: {path}")
    files = [path.with_name(name) for name in shards(path.name)]
    for file in files:
        try:
            if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for, for ever
                raise GroupError(
                    Reason.ModelNotFound, f"{file} in {where} is no file: correct model.uri"
                )
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
    return files


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


def shard_urls(uri: str) -> list[str]:
    """The URLs of a model of which `uri` is one: itself, or all parts of a split model."""
    parts = urllib.parse.urlsplit(uri)
    folder, slash, name = parts.path.rpartition("/")
    return [
        urllib.parse.urlunsplit(parts._replace(path=folder + slash + shard, fragment=""))
        for shard in shards(name)
    ]


def file_name(url: str) -> str:
    """A safe name for the file at `url`, ending in .gguf."""
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    # Of a long name the end: it tells the files of a split model apart.
    safe = re.sub(r"[^\w.+-]", "_", name)[-200:].lstrip(".")
    return safe if safe.endswith(".gguf") else f"{safe or 'model'}.gguf"


_CREDENTIALS = ("Authorization", "Cookie")
_UNTRUSTED = (2, 18, 19, 20, 21)
"""OpenSSL's codes for a certificate that nobody vouches for who is trusted (X509_V_ERR_...)."""


class Redirects(urllib.request.HTTPRedirectHandler):
    """At most 10, never to file://, and never from https to http, where anybody may answer. What
    proves who we are is for the first host alone."""

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
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        # Not by `host`, which is the proxy's where there is one.
        if request and _server(request.full_url) != _server(req.full_url):
            for name in _CREDENTIALS:
                request.remove_header(name)
        return request


class _CheckedHTTPConnection(http.client.HTTPConnection):
    """To allowed addresses alone, at each redirect too."""

    def connect(self) -> None:
        self.sock = connect(self.host, self.port, READ_SECONDS)


class _CheckedHTTPSConnection(http.client.HTTPSConnection):
    """The same with TLS."""

    def __init__(self, host: str, *, context: ssl.SSLContext, **others: Any) -> None:
        super().__init__(host, context=context, **others)
        self._tls = context

    def connect(self) -> None:
        plain = connect(self.host, self.port, READ_SECONDS)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


class _CheckedHTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_CheckedHTTPConnection, req)


class _HTTPSHandler(urllib.request.AbstractHTTPHandler):
    """What is to be trusted is read when it is needed: that takes 20 ms."""

    https_request = urllib.request.AbstractHTTPHandler.do_request_

    def __init__(
        self, connection: type[http.client.HTTPSConnection], credentials: Credentials
    ) -> None:
        super().__init__()
        self._connection = connection
        self._credentials = credentials

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req, context=self._credentials.tls())


@dataclass(frozen=True)
class Web:
    """The way to web servers."""

    allow_local: bool = False
    """Connect to any address, and through the proxies of the environment: on a person's machine, or
    where the LlamaCluster says so."""

    credentials: Callable[[], Credentials] = Credentials
    """Asked at each opening, because they may change meanwhile."""

    def opened(self, url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """The answer to a GET, its body unread. Raises GroupError."""
        credentials = self.credentials()
        if credentials.authorization:
            headers = {**headers, "Authorization": credentials.authorization}
        try:
            return _opened(self._opener(credentials), url, headers, credentials)
        except GroupError as error:
            # Where it led to is the server's word too. (Its other words are without already: what
            # is cut short would not be recognised.)
            raise GroupError(error.reason, credentials.without(error.message)) from error

    def _opener(self, credentials: Credentials) -> urllib.request.OpenerDirector:
        opener = urllib.request.OpenerDirector()
        ways: tuple[urllib.request.BaseHandler, ...] = (
            (
                urllib.request.ProxyHandler(),
                urllib.request.HTTPHandler(),
                _HTTPSHandler(http.client.HTTPSConnection, credentials),
            )
            if self.allow_local
            else (_CheckedHTTPHandler(), _HTTPSHandler(_CheckedHTTPSConnection, credentials))
        )
        for handler in (
            *ways,
            urllib.request.UnknownHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            Redirects(),
            urllib.request.HTTPErrorProcessor(),
        ):
            opener.add_handler(handler)
        return opener


def _opened(
    opener: urllib.request.OpenerDirector,
    url: str,
    headers: dict[str, str],
    credentials: Credentials,
) -> http.client.HTTPResponse:
    request = urllib.request.Request(
        url, headers={"Accept-Encoding": "identity", "User-Agent": "llamacluster", **headers}
    )
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=READ_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise GroupError(
                Reason.ModelNotFound,
                f"{shown(url)} does not exist ({error.code}): correct model.uri",
            ) from error
        # Hugging Face says in a header of its own what one has to do.
        words = credentials.without(str(error.headers.get("X-Error-Message") or error.reason))
        answer = f"answers {error.code} {_in_one_line(words)}"
        if _server(error.url) != _server(url):
            raise GroupError(
                Reason.ModelDownloadFailed,
                f"{shown(url)} leads to {shown(error.url)}, which {answer}",
            ) from error
        answer = f"{shown(url)} {answer}"
        if error.code in (401, 403):
            raise GroupError(
                Reason.ModelAccessDenied, f"{answer}: {_to_do(credentials)}"
            ) from error
        raise GroupError(Reason.ModelDownloadFailed, answer) from error
    except (OSError, OverflowError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", None) or error
        to_do = ""
        if isinstance(why, ssl.SSLCertVerificationError) and why.verify_code in _UNTRUSTED:
            to_do = (
                "; an authority of your own belongs into ca.crt of a Secret:"
                " model.credentialsSecret"
                if credentials.authority is None
                else f"; ca.crt of Secret {credentials.secret} does not vouch for it"
            )
        words = _in_one_line(credentials.without(str(why)))
        raise GroupError(
            Reason.ModelDownloadFailed, f"{shown(url)} cannot be reached: {words}{to_do}"
        ) from error
    return response


def _to_do(credentials: Credentials) -> str:
    """What may help where a server lets nobody in, or not us."""
    if credentials.authorization:
        return (
            f"what Secret {credentials.secret} (model.credentialsSecret) has does not open it;"
            " correct it, or ask the model's owners for access"
        )
    return (
        "if it wants a token or a password, put that into a Secret and name it in"
        " model.credentialsSecret"
    )


def _server(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc


def content_length(response: http.client.HTTPResponse) -> int | None:
    """Bytes of the body; None if the server does not say."""
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch("[0-9]{1,18}", length) else None


def _in_one_line(words: object) -> str:
    """What a server or a library says, short enough for a message: it may be anything."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(words)).split())[:200]
