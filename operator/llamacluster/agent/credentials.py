"""What a model's server is shown, and trusted by: the user's Secret `model.credentialsSecret`.

It has a `token`, sent as `Authorization: Bearer`; or `username` and `password`, as in a Secret of
type kubernetes.io/basic-auth; and `ca.crt` where the server's certificate is signed by an authority
of one's own. Nothing here, and no message, repeats any of it.
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from llamacluster.planning.reasons import GroupError, Reason

TOKEN, USERNAME, PASSWORD, AUTHORITY = "token", "username", "password", "ca.crt"
KEYS = (TOKEN, USERNAME, PASSWORD, AUTHORITY)
"""Of the Secret; others are let be."""

# Of HTTP's header fields a server takes 8 KiB, or not much more.
_TOKEN = re.compile(r"[!-~]{1,8000}")
_TEXT = re.compile(r"[^\x00-\x1f\x7f]{0,2000}")


@dataclass(frozen=True)
class Credentials:
    """What is in the Secret; nothing, where none is named."""

    secret: str | None = None
    """Its name."""
    authorization: str | None = field(default=None, repr=False)
    """Value of the header of that name."""
    authority: str | None = field(default=None, repr=False)
    """Certificates in PEM, to be trusted beside the system's."""

    def tls(self) -> ssl.SSLContext:
        """Of connections to the server, and to those that it leads to."""
        context = ssl.create_default_context()
        if self.authority is not None:
            context.load_verify_locations(cadata=self.authority)
            # Python 3.13 asks of authorities what many old ones of companies lack, such as the
            # extension keyUsage; curl does not.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            # Before, an authority that another one has signed was not enough.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def without(self, text: str) -> str:
        """`text`, which a server may have said, without what it was shown."""
        if self.authorization is None:
            return text
        kind, _, said = self.authorization.partition(" ")
        secrets = [said]
        if kind == "Basic":
            secrets += base64.b64decode(said).decode().split(":", 1)[1:]
        for secret in secrets:
            for form in {secret, quote(secret), quote(secret, safe="")} - {""}:
                text = text.replace(form, "…")
        return text


def mounted(secret: str, folder: Path) -> Credentials:
    """The Secret of this name, mounted at `folder`, as it is now. Raises GroupError."""
    found = {}
    for key in KEYS:
        try:
            found[key] = (folder / key).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _invalid(secret, f"{key} cannot be read: {error.strerror}") from error
    return credentials(secret, found)


def credentials(secret: str, data: Mapping[str, bytes]) -> Credentials:
    """What the Secret of this name says with this data. Raises GroupError."""
    if not any(key in data for key in KEYS):
        raise GroupError(
            Reason.CredentialsMissing,
            f"there is no Secret {secret} with a token, or username and password, or ca.crt:"
            f" kubectl create secret generic {secret} --from-file=token=FILE",
        )
    if TOKEN in data and (USERNAME in data or PASSWORD in data):
        raise _invalid(secret, "it has a token and a username or password: keep one of the two")
    return Credentials(secret, _authorization(secret, data), _authority(secret, data))


def _authorization(secret: str, data: Mapping[str, bytes]) -> str | None:
    if TOKEN in data:
        token = _text(secret, data, TOKEN)
        if not _TOKEN.fullmatch(token):
            raise _invalid(secret, "its token is none: one word of at most 8000 characters is")
        return f"Bearer {token}"
    if USERNAME not in data and PASSWORD not in data:
        return None
    if not (USERNAME in data and PASSWORD in data):
        raise _invalid(secret, "it has one of username and password: it needs both")
    username, password = _text(secret, data, USERNAME), _text(secret, data, PASSWORD)
    if not (username or password):
        raise _invalid(secret, "its username and password are empty")
    if ":" in username or not (_TEXT.fullmatch(username) and _TEXT.fullmatch(password)):
        raise _invalid(
            secret, "its username or password cannot be sent: one line each, no ':' in the username"
        )
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def _authority(secret: str, data: Mapping[str, bytes]) -> str | None:
    if AUTHORITY not in data:
        return None
    # Beside the certificates there may be anything, such as their names in any tongue.
    authority = data[AUTHORITY].decode("ascii", "ignore")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=authority)
    except (ssl.SSLError, ValueError) as error:
        raise _invalid(secret, "its ca.crt has no certificate in PEM") from error
    return authority


def _text(secret: str, data: Mapping[str, bytes], key: str) -> str:
    """A value without the line break at its end that `echo` and editors leave."""
    try:
        return data[key].decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _invalid(secret, f"its {key} is no text") from error


def _invalid(secret: str, why: str) -> GroupError:
    return GroupError(
        Reason.CredentialsInvalid, f"Secret {secret} (model.credentialsSecret): {why}"
    )
