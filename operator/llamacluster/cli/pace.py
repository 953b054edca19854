"""How fast groups are, as their leaders' agents tell it. The status does not: it would be written
with every request."""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import click

from llamacluster.agent.contract.places import AGENT_PORT, STATUS
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.status import GroupPhase
from llamacluster.cli.connection import Place
from llamacluster.cli.portforward import port_forward
from llamacluster.resources.metadata import group_set_name

ASKED_SECONDS = 3.0
MOST_GROUPS = 8


def paces(place: Place, cluster: LlamaCluster) -> dict[int, float]:
    """Tokens per second of the last answer of each group, or of the first MOST_GROUPS that serve.
    Those that have made none, or cannot be asked, are left out: it takes kubectl, and the right to
    forward a port."""
    groups = [each.index for each in cluster.status.groups if each.phase is GroupPhase.SERVING]

    def ask(group: int) -> float | None:
        pod = f"{group_set_name(cluster)}-{group}"
        try:
            with port_forward(place, cluster.metadata.namespace, pod, AGENT_PORT) as port:
                return _told(port)
        except (click.ClickException, OSError, http.client.HTTPException):
            return None

    if not groups:
        return {}
    with ThreadPoolExecutor(MOST_GROUPS) as pool:
        answers = zip(groups, pool.map(ask, groups[:MOST_GROUPS]), strict=False)
        return {group: pace for group, pace in answers if pace}


def _told(port: int) -> float | None:
    # Imported here because it takes half a second.
    from llamacluster.controller.agents import MAX_ANSWER_BYTES, parsed

    client = http.client.HTTPConnection("127.0.0.1", port, timeout=ASKED_SECONDS)
    with closing(client):
        client.request("GET", STATUS)
        status = parsed(client.getresponse().read(MAX_ANSWER_BYTES))
    told = status.get("lastTokensPerSecond") if status else None
    return told if isinstance(told, int | float) else None
