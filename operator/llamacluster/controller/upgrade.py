"""Whether this operator would make other pods from the same spec, and whether a person asks for it.

Neither a newer operator nor another default image may restart what runs. The status tells of them,
and an annotation on the LeaderWorkerSet asks for them: that is the operator's object, so that the
request is no edit of the user's, which a tool may be keeping as it is in a repository.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.status import MAX_CHANGES, UpgradeStatus
from llamacluster.resources.leaderworkerset import (
    leader_worker_set,
    running_image,
    running_plan,
    running_template,
    running_template_id,
    runs_this_spec,
    template_id,
    wanted_template_id,
)
from llamacluster.resources.metadata import Manifest

MAX_CHANGE = 200


def find_upgrade(
    cluster: LlamaCluster, group_set: Manifest | None, engine_image: str
) -> UpgradeStatus | None:
    """The upgrade that is available; None if the groups are as this operator would make them, or
    are about to be, because the spec has changed."""
    if group_set is None or not runs_this_spec(cluster, group_set):
        return None
    image = cluster.spec.image or engine_image
    offered = template_id(cluster, image)
    if offered == running_template_id(group_set):
        return None
    return UpgradeStatus(
        id=offered,
        image=image,
        changes=_changes(cluster, group_set, image, offered),
        requested=wanted_template_id(group_set) == offered,
    )


def _changes(cluster: LlamaCluster, group_set: Manifest, image: str, offered: str) -> list[str]:
    """What changes of the pods, but for a plan that is still to be made."""
    said, plan = cluster.status.upgrade, cluster.status.plan
    if said and said.id == offered:
        return said.changes
    before = running_template(group_set)
    if before is None or plan is None or plan.inputs_hash != running_plan(group_set):
        return [f"image: {running_image(group_set)} -> {image}"]
    after = leader_worker_set(cluster, image, plan)["spec"]["leaderWorkerTemplate"]
    found = [line[:MAX_CHANGE] for line in islice(differences(before, after), MAX_CHANGES)]
    return found or ["the plan is made anew"]


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """What differs between two manifests, in lines such as `a.b: 1 -> 2`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            place = f"{path}.{key}" if path else key
            yield from differences(before.get(key), after.get(key), place)
    elif isinstance(before, list) and isinstance(after, list) and _named(before + after):
        old, new = ({entry["name"]: entry for entry in entries} for entries in (before, after))
        for name in sorted(old.keys() | new.keys()):
            yield from differences(old.get(name), new.get(name), f"{path}[{name}]")
    elif isinstance(before, list) and isinstance(after, list):
        yield from (f"{path}: without {_told(entry)}" for entry in before if entry not in after)
        yield from (f"{path}: with {_told(entry)}" for entry in after if entry not in before)
    elif before != after:
        yield f"{path}: {_told(before)} -> {_told(after)}"


def _named(entries: list[Any]) -> bool:
    return all(isinstance(entry, dict) and "name" in entry for entry in entries)


def _told(value: Any) -> str:
    if value is None:
        return "nothing"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
