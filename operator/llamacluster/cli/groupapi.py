"""The API that a group serves, reached through a port-forward."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.status import Condition, ConditionStatus, GroupPhase
from llamacluster.cli import connection
from llamacluster.cli.connection import Place
from llamacluster.cli.portforward import port_forward
from llamacluster.cli.terminal import BadInput, Failed
from llamacluster.resources.metadata import group_set_name

if TYPE_CHECKING:
    from llamacluster.controller.kubeapi import KubeApi

API_KEY_ENV = "LLAMACLUSTER_API_KEY"
MAX_ERROR_BYTES = 1 << 20


class Refused(Failed):
    """The group answered, and not with what was asked for."""


@dataclass(frozen=True)
class GroupApi:
    """The API at a port of this machine."""

    port: int
    tls: bool = False
    key: str | None = field(default=None, repr=False)

    def ask(self, path: str, body: object) -> Any:
        """The answer. Raises Refused, and Failed when the connection breaks."""
        with self._answer(path, body) as answer:
            return json.loads(answer.read())

    def stream(self, path: str, body: object) -> Iterator[Any]:
        """The pieces of a streamed answer, as they come. Raises as `ask`."""
        with self._answer(path, body) as answer:
            for line in answer:
                kind, _, data = line.decode("utf-8", "replace").strip().partition(": ")
                if data == "[DONE]":
                    return
                if kind not in ("data", "error"):
                    continue
                piece = json.loads(data)
                if kind == "error" or "error" in piece:
                    raise Refused(f"the engine: {_message(data)}")
                yield piece
            raise Failed("the answer broke off: the group has lost its engine or a worker")

    @contextmanager
    def _answer(self, path: str, body: object) -> Iterator[http.client.HTTPResponse]:
        with closing(self._connection()) as client:
            headers = {"Content-Type": "application/json"}
            if self.key:
                headers["Authorization"] = f"Bearer {self.key}"
            try:
                client.request("POST", path, json.dumps(body), headers)
                answer = client.getresponse()
                if answer.status != 200:
                    raise _refusal(answer)
                yield answer
            except ValueError as error:
                raise Failed(f"the group answers {path} with what is no JSON: {error}") from error
            except (OSError, http.client.HTTPException) as error:
                said = str(error) or type(error).__name__
                raise Failed(f"the connection to the group broke: {said}") from error

    def _connection(self) -> http.client.HTTPConnection:
        # No timeout: a prompt may take an hour without a byte.
        if not self.tls:
            return http.client.HTTPConnection("127.0.0.1", self.port)
        context = ssl.create_default_context()
        # The API server vouches for the pod that the port-forward leads to. The certificate names
        # the Service, and its authority may be known in the cluster alone.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=context)


def _refusal(answer: http.client.HTTPResponse) -> Refused:
    said = _message(answer.read(MAX_ERROR_BYTES).decode("utf-8", "replace"))
    if answer.status == 401:
        return Refused(f"{said}: give an API key by --api-key-file or ${API_KEY_ENV}")
    return Refused(f"the group answers {answer.status}: {said}")


def _message(body: str) -> str:
    """The sentence in an error of OpenAI's shape."""
    try:
        error = json.loads(body)
        error = error.get("error", error)
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, AttributeError):
        return body.strip()[:300] or "nothing"


def options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that talks to a group; they reach it as `key_file`."""
    return click.option(
        "--api-key-file",
        "key_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help=f"File whose first line is an API key. Default: ${API_KEY_ENV}.",
    )(command)


@dataclass(frozen=True)
class Connected:
    """A group that serves, and how to reach it."""

    cluster: LlamaCluster
    group: int
    api: GroupApi


@contextmanager
def connected(place: Place, name: str, key_file: Path | None) -> Iterator[Connected]:
    """The first group of the LlamaCluster that serves. Raises Failed when none does, and says why,
    and BadInput when there is no such LlamaCluster."""
    key = _key(key_file)
    found: list[tuple[str, LlamaCluster]] = []

    async def act(api: KubeApi, namespace: str) -> None:
        found.append((namespace, await connection.read(api, namespace, name)))

    connection.run(place, act)
    [(namespace, cluster)] = found
    group = serving_group(cluster)
    server = cluster.spec.server
    if server.api_keys_secret and not key:
        raise BadInput(
            f"{name} asks for an API key: give one by --api-key-file or ${API_KEY_ENV};"
            f" its Secret is {server.api_keys_secret.name}"
        )
    pod = f"{group_set_name(cluster)}-{group}"
    with port_forward(place, namespace, pod, server.port) as port:
        yield Connected(cluster, group, GroupApi(port, server.tls_secret is not None, key))


def serving_group(cluster: LlamaCluster) -> int:
    """Index of the first group that serves. Raises Failed when there is none."""
    for group in cluster.status.groups:
        if group.phase is GroupPhase.SERVING:
            return group.index
    name = cluster.metadata.name
    words = [
        _why(condition) for condition in cluster.status.conditions if condition.type == "Ready"
    ]
    raise Failed(f"{name} does not serve: {''.join(words) or 'the operator has said nothing yet'}")


def _why(ready: Condition) -> str:
    if ready.status is ConditionStatus.TRUE:
        return "no group of it does just now"
    return f"{ready.reason}: {ready.message}"


def _key(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(API_KEY_ENV) or None
    try:
        lines = file.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read: {error}") from error
    if not lines:
        raise BadInput(f"{file} has no API key in it")
    return lines[0]
