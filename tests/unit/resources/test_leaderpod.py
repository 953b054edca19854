"""The leader's pod: where the model comes from, and its port."""

from __future__ import annotations

import pytest

from llamacluster.agent.contract.options import GateOptions, LeaderOptions, parse
from llamacluster.agent.contract.places import CLAIM_DIR, CREDENTIALS_DIR, MODEL_DIR
from llamacluster.resources.leaderpod import leader_pod
from llamacluster.resources.metadata import MODEL_CLAIM_LABEL
from llamacluster.resources.workerpod import worker_pod
from tests.build import IMAGE, Manifest, a_plan, llama_cluster

PLAN = a_plan()


def model_volumes(**model: object) -> tuple[list[Manifest], list[Manifest]]:
    """Volumes and mounts of the leader, but for its scratch directory, its token, and what is the
    gate's."""
    spec = leader_pod(llama_cluster(model=model), IMAGE, PLAN)["spec"]
    mounts = spec["containers"][0]["volumeMounts"]
    return (
        [volume for volume in spec["volumes"] if volume["name"] not in ("tmp", "control", "gate")],
        [mount for mount in mounts if mount["name"] not in ("tmp", "control")],
    )


@pytest.mark.parametrize("uri", ["http://h/m.gguf", "https://h/m.gguf", "hf://o/r/m.gguf"])
def test_a_download_goes_to_the_pods_own_storage(uri: str) -> None:
    volumes, mounts = model_volumes(uri=uri)
    assert volumes == [{"name": "model", "emptyDir": {}}]
    assert mounts == [{"name": "model", "mountPath": MODEL_DIR}]


def test_a_download_goes_to_the_claim_if_there_is_one() -> None:
    volumes, mounts = model_volumes(uri="http://h/m.gguf", storage={"size": "1Gi"})
    assert volumes == []  # the claim's template brings it
    assert mounts == [{"name": "model", "mountPath": MODEL_DIR}]


@pytest.mark.parametrize("uri", ["pvc://my-claim/m.gguf", "pvc://my-claim/deep/m.gguf"])
def test_the_users_claim_is_mounted_and_cannot_be_written(uri: str) -> None:
    volumes, mounts = model_volumes(uri=uri)
    claim = {"claimName": "my-claim", "readOnly": True}
    assert volumes == [{"name": "model-claim", "persistentVolumeClaim": claim}]
    assert mounts == [{"name": "model-claim", "mountPath": CLAIM_DIR, "readOnly": True}]


def test_the_secret_for_the_models_server_is_the_leaders_alone() -> None:
    model = {"uri": "https://h/m.gguf", "credentialsSecret": {"name": "hub"}}
    volumes, mounts = model_volumes(**model)
    secret = {"secretName": "hub", "optional": True, "defaultMode": 0o440}
    assert {"name": "model-credentials", "secret": secret} in volumes
    assert {"name": "model-credentials", "mountPath": CREDENTIALS_DIR, "readOnly": True} in mounts
    leader, gate = leader_pod(llama_cluster(model=model), IMAGE, PLAN)["spec"]["containers"]
    options = parse(leader["args"])
    assert isinstance(options, LeaderOptions)
    assert options.credentials_secret == "hub"
    assert "model-credentials" not in str(gate)
    assert "hub" not in str(worker_pod(llama_cluster(model=model), IMAGE, PLAN))


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("hf://o/r/m.gguf", "o/r/resolve/main/m.gguf"),
        ("hf://o/r/Q4/m-00001-of-00002.gguf@v1.0", "o/r/resolve/v1.0/Q4/m-00001-of-00002.gguf"),
        ("hf://o/r/m.gguf@refs/pr/1", "o/r/resolve/refs%2Fpr%2F1/m.gguf"),
        ("hf://o/r/ü+?#%20.gguf", "o/r/resolve/main/%C3%BC%2B%3F%23%2520.gguf"),
    ],
)  # fmt: skip
def test_a_file_on_hugging_face_has_an_https_address(uri: str, url: str) -> None:
    [container, _] = leader_pod(llama_cluster(model={"uri": uri}), IMAGE, PLAN)["spec"][
        "containers"
    ]
    options = parse(container["args"])
    assert isinstance(options, LeaderOptions)
    assert options.model_uri == f"https://huggingface.co/{url}"


def test_a_file_of_the_image_needs_no_volume() -> None:
    assert model_volumes(uri="file:///models/m.gguf") == ([], [])


def test_the_gate_stands_before_the_engine() -> None:
    cluster = llama_cluster(
        server={"port": 9000}, inference={"parallel": 3}, terminationGracePeriodSeconds=60
    )
    leader, gate = leader_pod(cluster, IMAGE, PLAN)["spec"]["containers"]
    assert gate["ports"] == [{"name": "http", "containerPort": 9000}]
    assert parse(gate["args"]) == GateOptions(
        parallel=3, context_size=4096, server_port=9000, grace_seconds=60
    )
    assert gate["securityContext"] == leader["securityContext"]
    assert gate["resources"]["limits"] == {"memory": "128Mi"}
    assert gate.keys().isdisjoint({"readinessProbe", "livenessProbe"})


def test_the_queue_and_the_hang_detector_are_the_users() -> None:
    cluster = llama_cluster(
        server={"queue": {"maxRequests": 5, "timeoutSeconds": 7}},
        recovery={"hungEngineSeconds": 90},
    )
    leader, gate = leader_pod(cluster, IMAGE, PLAN)["spec"]["containers"]
    gate_options, options = parse(gate["args"]), parse(leader["args"])
    assert isinstance(gate_options, GateOptions)
    assert (gate_options.queue, gate_options.queue_seconds) == (5, 7)
    assert isinstance(options, LeaderOptions)
    assert options.hung_engine_seconds == 90


def test_the_leader_knows_the_port_of_its_gate() -> None:
    container, *_ = leader_pod(llama_cluster(server={"port": 9000}), IMAGE, PLAN)["spec"][
        "containers"
    ]
    options = parse(container["args"])
    assert isinstance(options, LeaderOptions)
    assert options.server_port == 9000


def test_the_api_lists_the_model_under_the_clusters_name() -> None:
    container, *_ = leader_pod(llama_cluster("gemma"), IMAGE, PLAN)["spec"]["containers"]
    assert "--model-name=gemma" in container["args"]


def test_the_layers_are_the_plans() -> None:
    container, *_ = leader_pod(llama_cluster(), IMAGE, a_plan(3, 3, 2))["spec"]["containers"]
    assert "--layers=3,3,2" in container["args"]


def test_leaders_that_mount_one_claim_have_one_label() -> None:
    def label(uri: str, name: str = "x") -> str | None:
        pod = leader_pod(llama_cluster(name, model={"uri": uri}), IMAGE, PLAN)
        value: str | None = pod["metadata"]["labels"].get(MODEL_CLAIM_LABEL)
        return value

    one = label("pvc://a/m.gguf")
    assert one is not None
    assert len(one) <= 63
    assert one == label("pvc://a/other.gguf", "y")
    assert one != label("pvc://b/m.gguf")
    assert label("http://h/m.gguf") is None


def test_the_gate_alone_has_the_secrets_of_the_api() -> None:
    server = {"apiKeysSecret": {"name": "k"}, "tlsSecret": {"name": "t"}}
    spec = leader_pod(llama_cluster(server=server), IMAGE, PLAN)["spec"]
    volumes = {volume.pop("name"): volume for volume in spec["volumes"]}
    assert volumes["gate"] == {"emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}
    # A Secret that is missing must not keep the pod from starting.
    for volume, name in (("api-keys", "k"), ("tls", "t")):
        assert volumes[volume] == {
            "secret": {"secretName": name, "optional": True, "defaultMode": 0o440}
        }
    leader, gate = spec["containers"]
    assert {mount["name"] for mount in gate["volumeMounts"]} == {"tmp", "gate", "api-keys", "tls"}
    assert {mount["name"] for mount in leader["volumeMounts"]}.isdisjoint(
        {"gate", "api-keys", "tls"}
    )
    options = parse(gate["args"])
    assert isinstance(options, GateOptions)
    assert (options.api_keys_secret, options.tls_secret) == ("k", "t")


def test_without_secrets_the_gate_has_no_volume_of_them() -> None:
    spec = leader_pod(llama_cluster(), IMAGE, PLAN)["spec"]
    assert {volume["name"] for volume in spec["volumes"]}.isdisjoint({"api-keys", "tls"})
