"""Who may use the API, as the gates of the groups say: pure."""

from __future__ import annotations

from collections.abc import Iterable

from llamacluster.agent.contract.messages import GateProblem, GateStatus
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.status import AccessStatus, LlamaClusterStatus
from llamacluster.controller.observation import Group
from llamacluster.planning.reasons import Reason

ATTENTION = frozenset({Reason.TlsMissing, Reason.TlsInvalid, Reason.TlsExpiring, Reason.TlsExpired})
"""What a gate may have to say that keeps it from serving nobody."""


def told(groups: Iterable[Group]) -> list[GateStatus]:
    """What the gates say, by the index of their groups."""
    ordered = sorted(groups, key=lambda group: group.index)
    found = [group.status.get("gate") for group in ordered if group.status]
    return [gate for gate in found if gate]


def access(cluster: LlamaCluster, gates: list[GateStatus]) -> AccessStatus:
    """The status: the first gate speaks for all, which have the same Secrets. No news is no
    change."""
    server, before = cluster.spec.server, cluster.status.access or AccessStatus()
    keys = next((gate["keys"] for gate in gates if gate["keys"] is not None), before.api_keys)
    expires = next(
        (gate["certificateExpires"] for gate in gates if gate["certificateExpires"]),
        before.certificate_expires,
    )
    return AccessStatus(
        api_keys=keys if server.api_keys_secret else None,
        certificate_expires=expires if server.tls_secret else None,
        advice=None if server.api_keys_secret else _how_to_add_keys(cluster.metadata.name),
    )


def attention(gates: list[GateStatus], before: LlamaClusterStatus) -> tuple[str, str] | None:
    """Reason and message of the first gate that asks for attention. No news is no change."""
    if gates:
        problem = next((gate["attention"] for gate in gates if gate["attention"]), None)
        return _pair(problem) if problem else None
    degraded = next((c for c in before.conditions if c.type == "Degraded"), None)
    return (
        (degraded.reason, degraded.message) if degraded and degraded.reason in ATTENTION else None
    )


def _pair(problem: GateProblem) -> tuple[str, str]:
    return problem["reason"], problem["message"]


def _how_to_add_keys(name: str) -> str:
    return (
        "whoever reaches the Service may use the API; to ask for keys: kubectl create secret"
        f" generic {name}-keys --from-literal=me=$(openssl rand -hex 32), and set"
        f" spec.server.apiKeysSecret.name to {name}-keys"
    )
