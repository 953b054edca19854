"""The user's claim with the model, of `pvc://claim/path`: mounted by leaders and by the planner."""

from __future__ import annotations

from llamacluster.agent.contract.places import CLAIM_DIR
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.resources.metadata import MODEL_CLAIM_LABEL, Manifest, digest

VOLUME = "model-claim"


def claim_volume(cluster: LlamaCluster) -> tuple[list[Manifest], list[Manifest]]:
    """Volumes and mounts of the claim, which is only read; none for a model from elsewhere."""
    name = _claim_name(cluster)
    if name is None:
        return [], []
    volume = {"name": VOLUME, "persistentVolumeClaim": {"claimName": name, "readOnly": True}}
    mount = {"name": VOLUME, "mountPath": CLAIM_DIR, "readOnly": True}
    return [volume], [mount]


def claim_labels(cluster: LlamaCluster) -> dict[str, str]:
    """Labels of every pod that mounts the claim, whichever LlamaCluster it is of."""
    name = _claim_name(cluster)
    # The name of a claim may be longer than the value of a label.
    return {MODEL_CLAIM_LABEL: digest(name)} if name is not None else {}


def _claim_name(cluster: LlamaCluster) -> str | None:
    uri = cluster.spec.model.uri
    return uri.removeprefix("pvc://").split("/", 1)[0] if uri.startswith("pvc://") else None
