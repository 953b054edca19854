"""Whether an object has to be applied, and why, without asking the API server.

An apply that changes nothing is still a write request. So every object of ours carries the digest
of what was last applied: a different digest means that we want something else now. Where it is the
same, every field that we want is compared with what is there: a difference is somebody's edit.
"""

from __future__ import annotations

from typing import Any

from llamacluster.api import KIND
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.quantity import parse_quantity
from llamacluster.resources.metadata import DESIRED_HASH_ANNOTATION, Manifest, digest

_LIST_KEYS = {
    # Lists that server-side apply merges by these fields: others may add entries of their own.
    "containers": ("name",),
    "imagePullSecrets": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port", "protocol"),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
_QUANTITIES = (".limits", ".requests")


class NotOurs(Exception):
    """The object exists and belongs to something else."""


class PredecessorRemains(Exception):
    """The object belongs to a deleted LlamaCluster of the same name and will go soon."""


def with_digest(desired: Manifest) -> Manifest:
    """`desired` with the digest of itself as an annotation."""
    metadata = desired["metadata"]
    annotations = {**metadata.get("annotations", {}), DESIRED_HASH_ANNOTATION: digest(desired)}
    return {**desired, "metadata": {**metadata, "annotations": annotations}}


def difference(desired: Manifest, live: Manifest | None) -> str | None:
    """Why `desired` (with its digest) must be applied, in words; None if it need not be."""
    if live is None:
        return "it does not exist"
    # A difference of the spec says more to a person than that of the digests.
    metadata_last = dict(sorted(desired.items(), key=lambda part: part[0] == "metadata"))
    return _first_difference(metadata_last, live, "") or _opened(desired, live)


def is_other_wish(desired: Manifest, live: Manifest) -> bool:
    """Whether something else was wanted when `live` was applied: else it was edited since."""
    wanted, applied = (
        one["metadata"].get("annotations", {}).get(DESIRED_HASH_ANNOTATION)
        for one in (desired, live)
    )
    return bool(wanted != applied)


def is_owned(cluster: LlamaCluster, live: Manifest) -> bool:
    """Whether `live` is controlled by this LlamaCluster."""
    owner = _controller(live)
    return owner is not None and owner["uid"] == cluster.metadata.uid


def check_ownership(cluster: LlamaCluster, live: Manifest) -> None:
    """Raises NotOurs or PredecessorRemains unless `live` is controlled by this LlamaCluster."""
    name = f"{live['kind']} {live['metadata']['name']}"
    owner = _controller(live)
    if owner is None:
        raise NotOurs(
            f"{name} exists already and was not made for this LlamaCluster: "
            "delete it, or give the LlamaCluster another name"
        )
    if owner["uid"] == cluster.metadata.uid:
        return
    if owner["kind"] == KIND and owner["name"] == cluster.metadata.name:
        raise PredecessorRemains(f"{name} of the deleted LlamaCluster is still being removed")
    raise NotOurs(
        f"{name} exists already and belongs to {owner['kind']} {owner['name']}: "
        "give the LlamaCluster another name"
    )


def _controller(live: Manifest) -> Manifest | None:
    references: list[Manifest] = live["metadata"].get("ownerReferences", [])
    return next((owner for owner in references if owner.get("controller")), None)


def _opened(desired: Manifest, live: Manifest) -> str | None:
    """Where a NetworkPolicy says more than we want: of that, anything more is a way in, or a pod
    that it does not close. Only what we say is compared, because apply takes nothing else away."""
    if desired.get("kind") != "NetworkPolicy":
        return None
    for key, value in desired["spec"].items():
        if _stored(value) != _stored(live["spec"].get(key)):
            return f".spec.{key} says more than it should"
    return None


def _stored(value: Any) -> Any:
    """A part of a NetworkPolicy as the API server has it: without what is empty, but for selectors,
    where that means everything."""
    if isinstance(value, list):
        return [_stored(entry) for entry in value] or None
    if not isinstance(value, dict):
        return value
    parts = {key: _stored(part) for key, part in value.items()}
    return {key: part for key, part in parts.items() if part not in (None, {}) or "Selector" in key}


def _first_difference(desired: Any, live: Any, path: str) -> str | None:
    """The first place where `live` lacks something of `desired`; anything more is not ours."""
    if isinstance(desired, dict) and isinstance(live, dict):
        for key, value in desired.items():
            here = f"{path}.{key}"
            if key not in live:
                if value in ({}, [], ""):
                    continue  # the API server and webhooks drop empty parts of built-in types
                return f"{here} is missing"
            if path.endswith(_QUANTITIES) and _equal_quantities(value, live[key]):
                continue
            if found := _first_difference(value, live[key], here):
                return found
        return None
    if isinstance(desired, list) and isinstance(live, list):
        return _first_difference_of_lists(desired, live, path)
    if desired != live:
        return f"{path} is {live!r} instead of {desired!r}"
    return None


def _first_difference_of_lists(desired: list[Any], live: list[Any], path: str) -> str | None:
    fields = _LIST_KEYS.get(path.rsplit(".", 1)[-1])
    if fields is None:
        if len(desired) != len(live):
            return f"{path} has {len(live)} entries instead of {len(desired)}"
        pairs = list(enumerate(zip(desired, live, strict=True)))
    else:
        pairs = []
        for index, wanted in enumerate(desired):
            keys = {field: wanted[field] for field in fields if field in wanted}
            found = next((entry for entry in live if keys.items() <= entry.items()), None)
            if found is None:
                return f"{path} has no entry {', '.join(f'{k} {v}' for k, v in keys.items())}"
            pairs.append((index, (wanted, found)))
    for index, (one, other) in pairs:
        if why := _first_difference(one, other, f"{path}[{index}]"):
            return why
    return None


def _equal_quantities(one: str | int, other: str | int) -> bool:
    """Whether both mean the same: LeaderWorkerSet's webhook rewrites 1000m into 1."""
    try:
        return parse_quantity(one) == parse_quantity(other)
    except ValueError:
        return False
