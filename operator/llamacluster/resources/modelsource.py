"""Where the model comes from, for leaders and planner alike: the user's claim of a
`pvc://claim/path`, or the user's Secret for a server."""

from __future__ import annotations

from llamacluster.agent.contract.places import CLAIM_DIR, CREDENTIALS_DIR
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.resources.metadata import MODEL_CLAIM_LABEL, Manifest, digest

CLAIM_VOLUME = "model-claim"
CREDENTIALS_VOLUME = "model-credentials"


def is_downloaded(cluster: LlamaCluster) -> bool:
    """Whether the model comes from a web server."""
    return cluster.spec.model.location.startswith(("http://", "https://"))


def source_volumes(cluster: LlamaCluster) -> tuple[list[Manifest], list[Manifest]]:
    """Volumes and mounts of what the user has for it, which is only read."""
    volumes: list[Manifest] = []
    mounts: list[Manifest] = []
    if claim := _claim_name(cluster):
        source = {"claimName": claim, "readOnly": True}
        volumes.append({"name": CLAIM_VOLUME, "persistentVolumeClaim": source})
        mounts.append({"name": CLAIM_VOLUME, "mountPath": CLAIM_DIR, "readOnly": True})
    if name := credentials_secret(cluster):
        # Optional: the agent says that it is missing, and takes it up when it comes.
        secret = {"secretName": name, "optional": True, "defaultMode": 0o440}
        volumes.append({"name": CREDENTIALS_VOLUME, "secret": secret})
        mounts.append({"name": CREDENTIALS_VOLUME, "mountPath": CREDENTIALS_DIR, "readOnly": True})
    return volumes, mounts


def credentials_secret(cluster: LlamaCluster) -> str | None:
    """Name of the Secret for the model's server."""
    reference = cluster.spec.model.credentials_secret
    return reference.name if reference else None


def claim_labels(cluster: LlamaCluster) -> dict[str, str]:
    """Labels of every pod that mounts the claim, whichever LlamaCluster it is of."""
    name = _claim_name(cluster)
    # The name of a claim may be longer than the value of a label.
    return {MODEL_CLAIM_LABEL: digest(name)} if name is not None else {}


def _claim_name(cluster: LlamaCluster) -> str | None:
    uri = cluster.spec.model.uri
    return uri.removeprefix("pvc://").split("/", 1)[0] if uri.startswith("pvc://") else None
