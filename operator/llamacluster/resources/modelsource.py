"""Where the model comes from, for leaders and planner alike: the user's claim of a
`pvc://claim/path`, or the user's Secret for a server."""

from __future__ import annotations

from llamacluster.agent.contract.places import CLAIM_DIR, CREDENTIALS_DIR
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.schema import name_of
from llamacluster.resources.metadata import MODEL_CLAIM_LABEL, Manifest, digest
from llamacluster.resources.pod import add_users_secret

CLAIM_VOLUME = "model-claim"
CREDENTIALS_VOLUME = "model-credentials"


def source_volumes(cluster: LlamaCluster) -> tuple[list[Manifest], list[Manifest]]:
    """Volumes and mounts of what the user has for it, which is only read."""
    volumes: list[Manifest] = []
    mounts: list[Manifest] = []
    if claim := _claim_name(cluster):
        source = {"claimName": claim, "readOnly": True}
        volumes.append({"name": CLAIM_VOLUME, "persistentVolumeClaim": source})
        mounts.append({"name": CLAIM_VOLUME, "mountPath": CLAIM_DIR, "readOnly": True})
    if name := credentials_secret(cluster):
        add_users_secret(name, CREDENTIALS_VOLUME, CREDENTIALS_DIR, volumes, mounts)
    return volumes, mounts


def credentials_secret(cluster: LlamaCluster) -> str | None:
    """Name of the Secret for the model's server."""
    return name_of(cluster.spec.model.credentials_secret)


def claim_labels(cluster: LlamaCluster) -> dict[str, str]:
    """Labels of every pod that mounts the claim, whichever LlamaCluster it is of."""
    name = _claim_name(cluster)
    # The name of a claim may be longer than the value of a label.
    return {MODEL_CLAIM_LABEL: digest(name)} if name is not None else {}


def _claim_name(cluster: LlamaCluster) -> str | None:
    uri = cluster.spec.model.uri
    return uri.removeprefix("pvc://").split("/", 1)[0] if uri.startswith("pvc://") else None
