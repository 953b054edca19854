"""What a person would look up when a test waited in vain: where the cluster stands, in a screen.

A failed run may be all that is left of its cluster, so it has to say this itself.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.kind.cluster import Cluster
from tests.kind.command import CommandFailed

Json = dict[str, Any]
MOST_EVENTS = 12
WIDTH = 240
NEW = timedelta(minutes=10)
WELL = {
    "Ready": "True",
    "Planned": "True",
    "Isolated": "True",
    "Progressing": "False",
    "Degraded": "False",
}


def scene(cluster: Cluster, namespace: str) -> str:
    """The pods and last warnings of a namespace, and what its LlamaClusters complain of; and all
    nodes and pods of the cluster that are not well, and containers that ended of late."""

    def items(*what: str) -> list[Json]:
        found: list[Json] = json.loads(cluster.kubectl("get", *what, "-o", "json"))["items"]
        return found

    try:
        here = f"--namespace={namespace}"
        lines = [
            *(line for node in items("nodes") for line in _node(node)),
            *(line for pod in items("pods", "--all-namespaces") for line in _pod(pod, namespace)),
            *(line for llc in items("llc", here) for line in _conditions(llc)),
            *_warnings(items("events", here, "--field-selector=type=Warning")),
        ]
    except CommandFailed as failed:
        return f"the cluster does not answer: {failed}"
    return "\n".join(textwrap.shorten(line, WIDTH) for line in lines)


def _node(node: Json) -> Iterator[str]:
    name = node["metadata"]["name"]
    for condition in node["status"]["conditions"]:
        if (condition["status"] == "True") != (condition["type"] == "Ready"):
            yield f"node {name}: {condition['type']}={condition['status']} {condition['message']}"
    if node["spec"].get("unschedulable"):
        yield f"node {name}: unschedulable"


def _pod(pod: Json, namespace: str) -> Iterator[str]:
    """All pods of the namespace; of others those that are not well."""
    metadata, status = pod["metadata"], pod["status"]
    if status["phase"] == "Succeeded":
        return
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    is_well = conditions.get("Ready", {}).get("status") == "True"
    is_ours = metadata["namespace"] == namespace
    ends = " is being deleted" * ("deletionTimestamp" in metadata)
    if is_ours or ends or not is_well:
        node = pod["spec"].get("nodeName")
        ready = "Ready" if is_well else "not Ready"
        yield f"pod {metadata['name']} on {node}: {status['phase']}, {ready}{ends}"
    placed = conditions.get("PodScheduled", {})
    if placed.get("status") == "False":
        yield f"  {placed.get('reason')}: {placed.get('message')}"
    for container in (
        *status.get("initContainerStatuses", []),
        *status.get("containerStatuses", []),
    ):
        waits = container["state"].get("waiting")
        told = f"  container {container['name']} of {metadata['name']}"
        if waits:
            yield f"{told}: {waits.get('reason')} {waits.get('message', '')}"
        if (end := container.get("lastState", {}).get("terminated")) and _is_new(end["finishedAt"]):
            yield f"{told}: ended {end['finishedAt']}, {end.get('reason')} {end['exitCode']}"


def _is_new(time: str) -> bool:
    return datetime.now(UTC) - datetime.fromisoformat(time) < NEW


def _conditions(llc: Json) -> Iterator[str]:
    for condition in llc.get("status", {}).get("conditions", []):
        if condition["status"] != WELL.get(condition["type"]):
            yield (
                f"llc {llc['metadata']['name']}: {condition['type']}={condition['status']}"
                f" {condition['reason']}: {condition['message']}"
            )


def _warnings(events: list[Json]) -> Iterator[str]:
    def when(event: Json) -> str:
        series = event.get("series") or {}
        return str(
            series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
        )

    for event in sorted(events, key=when)[-MOST_EVENTS:]:
        of = f"{event['involvedObject']['kind']}/{event['involvedObject'].get('name')}"
        yield f"{when(event)} {of} {event['reason']} x{event.get('count')}: {event.get('message')}"
