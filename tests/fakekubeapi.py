"""An API server in memory. tests/cluster/test_kubeapi.py holds it and the real one to the same
behaviour."""

from __future__ import annotations

import copy
import itertools
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubernetes.aio.dynamic import Resource

from llamacluster.controller.kubeapi import LLAMACLUSTERS, ApiError, KubeApi
from tests.build import Manifest

Key = tuple[str, str, str]
"""Plural, namespace and name."""


LONG_AGO = "2026-01-01T00:00:00Z"


@dataclass
class FakeKubeApi(KubeApi):
    """Stores objects by server-side apply of one field manager, beside edits by others."""

    objects: dict[Key, Manifest] = field(default_factory=dict)
    refusals: dict[str, ApiError | TimeoutError] = field(default_factory=dict)
    """Errors that writes of a kind (by plural, or plural/status), its reads (plural/get) and
    removals (plural/delete) meet."""
    unknown: set[str] = field(default_factory=set)
    """Plurals that the API server does not know."""
    writes: int = 0
    reads: list[str] = field(default_factory=list)
    """Plurals of what was read, in order."""
    used: set[tuple[str, str, str]] = field(default_factory=set)
    """API group, resource and verb of each right that was needed."""
    logs: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """By pod and container, whatever is asked for: tests/e2e/test_plugin.py asks the real one."""
    log_queries: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._applied: dict[Key, Manifest] = {}
        self._versions = itertools.count(1)
        self._names = itertools.count(1)

    # As the operator sees it

    async def get(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        seconds: float = 0,  # noqa: ARG002
    ) -> Manifest | None:
        self.reads.append(resource.name)
        self._use(resource, "get")
        if f"{resource.name}/get" in self.refusals:
            raise self.refusals[f"{resource.name}/get"]
        namespace = namespace if resource.namespaced else ""
        return copy.deepcopy(self.objects.get((resource.name, namespace, name)))

    async def list(
        self, resource: Resource, namespace: str, selector: str, limit: int | None = None
    ) -> list[Manifest]:
        self.reads.append(resource.name)
        self._use(resource, "list")
        wanted = dict(term.split("=", 1) for term in selector.split(","))
        found = [
            copy.deepcopy(stored)
            for (plural, place, _), stored in self.objects.items()
            if (plural, place) == (resource.name, namespace)
            and wanted.items() <= stored["metadata"].get("labels", {}).items()
        ]
        return found[:limit]

    async def apply(self, resource: Resource, manifest: Manifest) -> Manifest:
        self._use(resource, "patch")
        key = self._write(resource.name, manifest)
        wanted = copy.deepcopy(manifest)
        if key not in self.objects:
            self._use(resource, "create")  # as well as patch
            self.put(resource, wanted)
        else:
            live = self.objects[key]
            before = copy.deepcopy(live)
            _remove(live, self._applied.get(key, {}), wanted)
            _merge(live, wanted)
            if live != before:
                self._bump(live, spec_changed=live.get("spec") != before.get("spec"))
        self._applied[key] = copy.deepcopy(manifest)
        return copy.deepcopy(self.objects[key])

    async def apply_ours(self, resource: Resource, manifest: Manifest) -> None:
        metadata = manifest["metadata"]
        key = (resource.name, metadata["namespace"], metadata["name"])
        if key in self.objects and key not in self._applied:
            self.writes += 1
            raise ApiError(409, "Apply failed with 1 conflict")
        await self.apply(resource, manifest)

    async def is_missing(self, resource: Resource, namespace: str, name: str) -> bool:
        self._use(resource, "create")
        if resource.name in self.refusals:
            raise self.refusals[resource.name]
        return (resource.name, namespace, name) not in self.objects

    async def apply_status(self, resource: Resource, manifest: Manifest) -> Manifest:
        self._use(resource, "patch", "status")
        key = self._write(f"{resource.name}/status", manifest, resource.name)
        live = self.objects.get(key)
        if live is None:
            raise ApiError(404, f'{resource.name} "{key[2]}" not found')
        seen = manifest["metadata"].get("resourceVersion", live["metadata"]["resourceVersion"])
        if seen != live["metadata"]["resourceVersion"]:
            raise ApiError(409, "the object has been modified")
        if live.get("status") != manifest["status"]:
            live["status"] = copy.deepcopy(manifest["status"])
            self._bump(live, spec_changed=False)
        return copy.deepcopy(live)

    async def annotate(
        self, resource: Resource, namespace: str, name: str, annotations: dict[str, str | None]
    ) -> None:
        self.writes += 1
        live = self.objects.get((resource.name, namespace, name))
        if live is None:
            raise ApiError(404, f'{resource.name} "{name}" not found')
        kept = {**live["metadata"].get("annotations", {}), **annotations}
        live["metadata"]["annotations"] = {k: v for k, v in kept.items() if v is not None}
        self._bump(live, spec_changed=False)

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest:
        self._use(resource, "create")
        manifest = copy.deepcopy(manifest)
        metadata = manifest["metadata"]
        if "name" not in metadata:
            metadata["name"] = f"{metadata.pop('generateName')}{next(self._names):05}"
        if self._write(resource.name, manifest) in self.objects:
            raise ApiError(409, f'{resource.name} "{metadata["name"]}" already exists')
        return self.put(resource, manifest)

    async def replace(self, resource: Resource, manifest: Manifest) -> Manifest:
        key = self._write(resource.name, manifest)
        live = self.objects.get(key)
        if live is None:
            raise ApiError(404, f'{resource.name} "{key[2]}" not found')
        if manifest["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            raise ApiError(409, "the object has been modified")
        self.objects[key] = copy.deepcopy(manifest)
        self._bump(self.objects[key], spec_changed=manifest.get("spec") != live.get("spec"))
        return copy.deepcopy(self.objects[key])

    async def delete(self, resource: Resource, namespace: str, name: str) -> None:
        self._use(resource, "delete")
        self.writes += 1
        if f"{resource.name}/delete" in self.refusals:
            raise self.refusals[f"{resource.name}/delete"]
        self.objects.pop((resource.name, namespace, name), None)
        self._applied.pop((resource.name, namespace, name), None)

    async def delete_at_once(self, resource: Resource, manifest: Manifest) -> None:
        self._use(resource, "delete")
        self.writes += 1
        if f"{resource.name}/delete" in self.refusals:
            raise self.refusals[f"{resource.name}/delete"]
        metadata = manifest["metadata"]
        key = (resource.name, metadata["namespace"], metadata["name"])
        live = self.objects.get(key)
        if live and live["metadata"]["uid"] == metadata["uid"]:
            del self.objects[key]

    async def get_raw(self, path: str, seconds: float) -> Manifest:  # noqa: ARG002
        if path == f"/apis/{LLAMACLUSTERS.group_version}":
            return {"kind": "APIResourceList"}
        raise ApiError(404, f"nothing at {path}")

    async def log_lines(
        self,
        namespace: str,  # noqa: ARG002
        pod: str,
        query: Mapping[str, str],
    ) -> AsyncGenerator[str]:
        """A followed log ends at its end, as that of a container does."""
        self.log_queries.append(dict(query))
        if "pods/log" in self.refusals:
            raise self.refusals["pods/log"]
        for line in self.logs.get((pod, query["container"]), []):
            yield line

    # As everybody else sees it

    def put(self, resource: Resource, manifest: Manifest) -> Manifest:
        """Store an object that somebody else made."""
        stored = copy.deepcopy(manifest)
        metadata = stored["metadata"]
        number = next(self._versions)
        metadata.setdefault("uid", f"00000000-0000-0000-0000-{number:012}")
        metadata["resourceVersion"] = str(number)
        metadata.setdefault("generation", 1)
        metadata.setdefault("creationTimestamp", LONG_AGO)
        namespace = metadata["namespace"] if resource.namespaced else ""
        self.objects[resource.name, namespace, metadata["name"]] = stored
        return copy.deepcopy(stored)

    def edit(self, resource: Resource, namespace: str, name: str, changes: Manifest) -> None:
        """A change by somebody else."""
        live = self.objects[resource.name, namespace, name]
        before = copy.deepcopy(live.get("spec"))
        _merge(live, changes)
        self._bump(live, spec_changed=live.get("spec") != before)

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        """A removal by somebody else."""
        key = (resource.name, namespace, name)
        del self.objects[key]
        self._applied.pop(key, None)

    def _use(self, resource: Resource, verb: str, part: str = "") -> None:
        name = f"{resource.name}/{part}" if part else resource.name
        self.used.add((resource.group, name, verb))

    def _write(self, what: str, manifest: Manifest, plural: str | None = None) -> Key:
        plural = plural or what
        self.writes += 1
        if plural in self.unknown:
            raise ApiError(404, "the server could not find the requested resource")
        if what in self.refusals:
            raise self.refusals[what]
        return plural, manifest["metadata"]["namespace"], manifest["metadata"]["name"]

    def _bump(self, live: Manifest, *, spec_changed: bool) -> None:
        live["metadata"]["resourceVersion"] = str(next(self._versions))
        if spec_changed:
            live["metadata"]["generation"] += 1


def _merge(live: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Put `wanted` into `live`. Lists are replaced; the real server merges some of them."""
    for key, value in wanted.items():
        if isinstance(value, dict) and isinstance(live.get(key), dict):
            _merge(live[key], value)
        else:
            live[key] = copy.deepcopy(value)


def _remove(live: dict[str, Any], applied: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Take out of `live` what was applied before and is not wanted any more."""
    for key, value in applied.items():
        if key not in wanted:
            live.pop(key, None)
        elif isinstance(value, dict) and isinstance(live.get(key), dict):
            _remove(live[key], value, wanted[key])
