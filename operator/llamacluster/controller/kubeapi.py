"""The API server, as much of it as the operator and the kubectl plug-in need."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.dynamic import DynamicClient, Resource
from kubernetes.aio.dynamic.exceptions import DynamicApiError

from llamacluster.api import GROUP, KIND, PLURAL, VERSION
from llamacluster.resources.metadata import FIELD_MANAGER, Manifest

REQUEST_TIMEOUT_SECONDS = 30


def _resource(
    group: str, version: str, kind: str, plural: str, *, namespaced: bool = True
) -> Resource:
    # Named here, not discovered: no requests at start, and a fixed list for RBAC.
    return Resource(
        prefix="apis" if group else "api",
        group=group,
        api_version=version,
        kind=kind,
        name=plural,
        namespaced=namespaced,
    )


LLAMACLUSTERS = _resource(GROUP, VERSION, KIND, PLURAL)
LEADERWORKERSETS = _resource(
    "leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet", "leaderworkersets"
)
SERVICES = _resource("", "v1", "Service", "services")
PODS = _resource("", "v1", "Pod", "pods")
EVENTS = _resource("", "v1", "Event", "events")
PODDISRUPTIONBUDGETS = _resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
NODES = _resource("", "v1", "Node", "nodes", namespaced=False)
SECRETS = _resource("", "v1", "Secret", "secrets")
CONFIGMAPS = _resource("", "v1", "ConfigMap", "configmaps")
PERSISTENTVOLUMECLAIMS = _resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
JOBS = _resource("batch", "v1", "Job", "jobs")
LEASES = _resource("coordination.k8s.io", "v1", "Lease", "leases")
NETWORKPOLICIES = _resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")


Asked = Callable[[str, str, int], None]
"""Is told verb, resource and code of a request; the code is 0 where none came."""


class ApiError(Exception):
    """The API server refused a request: HTTP status and the server's own sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class KubeApi:
    """Reads and writes objects as plain dicts. Counts its writes.

    Before each request it asks `may_go_on`, which raises when nothing more may be done; `asked` is
    told verb, resource and code of each request.
    """

    def __init__(
        self,
        client: ApiClient,
        asked: Asked = lambda *_: None,
        may_go_on: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = DynamicClient(client)
        self._asked = asked
        self._may_go_on = may_go_on
        self.writes = 0

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        """The object, or None if there is none."""
        try:
            return await self._request("get", resource.path(name=name, namespace=namespace))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, resource: Resource, namespace: str, selector: str, limit: int | None = None
    ) -> list[Manifest]:
        """The objects with these labels, or the first `limit` of them."""
        path = resource.path(namespace=namespace)
        answer = await self._request("get", path, label_selector=selector, limit=limit)
        # A list says once of what kind its items are.
        kind = {"apiVersion": resource.group_version, "kind": resource.kind}
        return [{**kind, **item} for item in answer["items"]]

    async def apply(self, resource: Resource, manifest: Manifest) -> Manifest:
        """Server-side apply: what `manifest` says becomes true, what others own stays."""
        return await self._apply(resource.path(**_address(manifest)), manifest)

    async def apply_ours(self, resource: Resource, manifest: Manifest) -> None:
        """Server-side apply that takes nothing over from others: ApiError 409 if the object is
        there and not ours."""
        await self._apply(resource.path(**_address(manifest)), manifest, force=False)

    async def is_missing(self, resource: Resource, namespace: str, name: str) -> bool:
        """Whether there is no object of that name, for kinds that the operator may make and not
        read: the API server says whether it would make one, and makes none."""
        body = {
            "apiVersion": resource.group_version,
            "kind": resource.kind,
            "metadata": {"name": name, "namespace": namespace},
        }
        path = resource.path(namespace=namespace)
        try:
            await self._request("post", path, body=body, dry_run="All")
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        return True

    async def apply_status(self, resource: Resource, manifest: Manifest) -> Manifest:
        """Server-side apply of the status alone."""
        return await self._apply(f"{resource.path(**_address(manifest))}/status", manifest)

    async def annotate(
        self, resource: Resource, namespace: str, name: str, annotations: dict[str, str | None]
    ) -> None:
        """Set annotations of an object that is there, or take them away: for people's requests."""
        self.writes += 1
        await self._request(
            "patch",
            resource.path(name=name, namespace=namespace),
            body={"metadata": {"annotations": annotations}},
            content_type="application/merge-patch+json",
            field_manager="kubectl-llamacluster",
        )

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest:
        """Create the object."""
        self.writes += 1
        path = resource.path(namespace=manifest["metadata"]["namespace"])
        return await self._request("post", path, body=manifest, field_manager=FIELD_MANAGER)

    async def replace(self, resource: Resource, manifest: Manifest) -> Manifest:
        """Write an object that was read: ApiError 409 if it has been changed since."""
        self.writes += 1
        path = resource.path(**_address(manifest))
        return await self._request("put", path, body=manifest, field_manager=FIELD_MANAGER)

    async def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """Delete the object, if it is there, and what it owns with it."""
        self.writes += 1
        path = resource.path(name=name, namespace=namespace)
        try:
            await self._request("delete", path, propagation_policy="Background")
        except ApiError as error:
            if error.status != 404:
                raise

    async def delete_at_once(self, resource: Resource, manifest: Manifest) -> None:
        """Delete this very object, if it is there, without waiting for anybody's farewell: of a
        pod, without the kubelet's."""
        self.writes += 1
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": manifest["metadata"]["uid"]},
        }
        try:
            await self._request("delete", resource.path(**_address(manifest)), body=options)
        except ApiError as error:
            # 409: another one of the same name is there by now.
            if error.status not in (404, 409):
                raise

    async def get_raw(self, path: str, seconds: float) -> Manifest:
        """GET of any path of the API server, such as a pod's proxy."""
        return await self._request("get", path, _request_timeout=seconds)

    async def log_lines(
        self, namespace: str, pod: str, query: Mapping[str, str]
    ) -> AsyncGenerator[str]:
        """The lines of a container's log, as long as it is followed; `query` holds the parameters
        of the API, such as `container` and `follow`."""
        response = await self._open(
            "get",
            f"{PODS.path(name=pod, namespace=namespace)}/log",
            query_params=list(query.items()),
            # A container may say nothing for days.
            _request_timeout=aiohttp.ClientTimeout(sock_connect=REQUEST_TIMEOUT_SECONDS),
        )
        async with response:
            async for line in response.content:
                yield line.decode("utf-8", "replace").rstrip("\r\n")

    async def _apply(self, path: str, manifest: Manifest, *, force: bool = True) -> Manifest:
        self.writes += 1
        return await self._request(
            "patch",
            path,
            body=as_yaml(manifest),
            # The client writes JSON with \ud83d escapes where it knows the type by its bare name.
            content_type="application/apply-patch+yaml; charset=utf-8",
            field_manager=FIELD_MANAGER,
            force_conflicts=force,
        )

    async def _request(self, method: str, path: str, **options: Any) -> Manifest:
        options.setdefault("_request_timeout", REQUEST_TIMEOUT_SECONDS)
        response = await self._open(method, path, **options)
        return cast("Manifest", json.loads(await response.read()))

    async def _open(self, method: str, path: str, **options: Any) -> aiohttp.ClientResponse:
        self._may_go_on()
        code = 0
        try:
            response = await self._client.request(method, path, serialize=False, **options)
            code = response.status
            return cast("aiohttp.ClientResponse", response)
        except DynamicApiError as error:
            code = error.status
            raise ApiError(error.status, _message(error)) from error
        finally:
            self._asked(*_verb_and_resource(method, path), code)


def _verb_and_resource(method: str, path: str) -> tuple[str, str]:
    """As RBAC names them, such as ("get", "pods/proxy"), or ("get", "/version")."""
    match path.split("/"):
        case ["", "api", _, *rest] | ["", "apis", _, _, *rest] if rest:
            pass  # [namespaces/NAMESPACE/]RESOURCE[/NAME[/SUB/...]]
        case _:
            return method, path
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    resource = "/".join([rest[0], *rest[2:3]])
    if method == "get" and len(rest) == 1:
        return "list", resource
    return {"post": "create", "put": "update"}.get(method, method), resource


_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def as_yaml(manifest: Manifest) -> str:
    """JSON that is YAML too: there a character beyond 16 bits is no pair of escapes, and some
    others must be escaped."""
    text = json.dumps(manifest, ensure_ascii=False)
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _address(manifest: Manifest) -> dict[str, str]:
    return {
        "name": manifest["metadata"]["name"],
        "namespace": manifest["metadata"]["namespace"],
    }


def _message(error: DynamicApiError) -> str:
    """The API server's own sentence."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason or error.body)


async def load_configuration(kubeconfig: str | None, context: str | None) -> Configuration:
    """Credentials: of the given kubeconfig (or context of it), else of the pod that we run in,
    else of the user's default kubeconfig.

    Raises kubernetes.aio.config.ConfigException when there are none.
    """
    configuration = Configuration()
    if kubeconfig is None and context is None:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            pass
        else:
            return configuration
    try:
        await config.load_kube_config(
            config_file=kubeconfig, context=context, client_configuration=configuration
        )
    except (TypeError, AttributeError, yaml.YAMLError) as error:  # an empty file, or another kind
        raise config.ConfigException(f"{kubeconfig or 'the kubeconfig'} is none") from error
    return configuration


@asynccontextmanager
async def connect(
    configuration: Configuration,
    asked: Asked = lambda *_: None,
    may_go_on: Callable[[], None] = lambda: None,
) -> AsyncIterator[KubeApi]:
    """A KubeApi that is closed at the end."""
    async with ApiClient(configuration) as client:
        yield KubeApi(client, asked, may_go_on)
