"""The Secret with the token by which the agents of a LlamaCluster know each other."""

from __future__ import annotations

from llamacluster.agent.contract.places import CONTROL_DIR, CONTROL_TOKEN_KEY
from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.resources.metadata import Manifest, control_secret_name, object_metadata

VOLUME = "control"


def control_secret(cluster: LlamaCluster, token: str) -> Manifest:
    """Not immutable: the kubelet never looks again at a Secret that is."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": object_metadata(cluster, control_secret_name(cluster)),
        "type": "Opaque",
        "stringData": {CONTROL_TOKEN_KEY: token},
    }


def control_volume(cluster: LlamaCluster) -> Manifest:
    """The Secret as a volume, for the agents' group to read."""
    return {
        "name": VOLUME,
        "secret": {"secretName": control_secret_name(cluster), "defaultMode": 0o440},
    }


CONTROL_MOUNT: Manifest = {
    "name": VOLUME,
    "mountPath": CONTROL_DIR,
    "readOnly": True,
}
