"""`kubectl llamacluster import`: what becomes of other people's manifests."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacluster.cli.imports import UNKNOWN_URI, Imported, imported
from llamacluster.cli.manifest import problems, read_manifest
from llamacluster.cli.plugin import plugin
from tests.build import Manifest

LWS = """\
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata:
  name: llamacpp-mistral-7b-instruct-somebody-q4km
spec:
  replicas: 2
  leaderWorkerTemplate:
    size: 5
    leaderTemplate:
      spec:
        containers:
          - name: leader
            image: llamacpp-mistral-7b:latest
            command: [/llamacpp-leader, --, --n-gpu-layers, "99", --verbose, -c, "8192", -np, "2"]
            env:
              - {name: LLM_MODEL, value: /models/mistral.gguf}
              - name: LWS_SIZE
                valueFrom: {fieldRef: {fieldPath: metadata.name}}
            volumeMounts: [{name: models, mountPath: /models, subPath: gguf}]
            resources: {limits: {cpu: "4", memory: 8Gi}}
        volumes: [{name: models, persistentVolumeClaim: {claimName: shared-models}}]
    workerTemplate:
      spec:
        nodeSelector: {pool: big}
        containers:
          - name: worker
            image: llamacpp-worker:latest
            args: [--host, 0.0.0.0, --mem, "4192", -t, "6"]
            resources: {limits: {cpu: "8", memory: 12Gi}, requests: {cpu: "2"}}
"""
DEPLOYMENT: Manifest = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "chat", "namespace": "ml"},
    "spec": {
        "replicas": 1,
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "server",
                        "image": "ghcr.io/ggml-org/llama.cpp:server",
                        "args": ["-mu", "https://models/m.gguf", "-c", "4096", "-np", "1"],
                        "resources": {"limits": {"memory": "16Gi", "cpu": "4"}},
                    }
                ]
            }
        },
    },
}


OF_THE_POD = (
    *("volumes", "initContainers", "nodeSelector", "tolerations", "affinity"),
    *("priorityClassName", "imagePullSecrets", "serviceAccountName"),
)


def deployment(*args: str, **container: Any) -> Manifest:
    """DEPLOYMENT with arguments after its own, and other fields of its container and pod."""
    made = copy.deepcopy(DEPLOYMENT)
    pod = made["spec"]["template"]["spec"]
    pod.update({key: container.pop(key) for key in OF_THE_POD if key in container})
    server = pod["containers"][0]
    server["args"] = [*server["args"], *args]
    server.update(container)
    return made


def on_hugging_face(*args: str, **container: Any) -> Manifest:
    """DEPLOYMENT with a model from there, and nothing else of its own arguments."""
    return deployment(args=["-hf", "o/r", "-hff", "m.gguf", *args], **container)


def only(*documents: Manifest) -> Imported:
    [found] = imported(documents)
    return found


def spec(*args: str, **container: Any) -> Any:
    found = only(deployment(*args, **container)).manifest
    assert problems(found) == []
    return found["spec"]


def notes(*args: str, **container: Any) -> str:
    return "\n".join(only(deployment(*args, **container)).notes)


def test_leaderworkersets_own_example_becomes_a_group() -> None:
    found = only(yaml.safe_load(LWS))
    assert problems(found.manifest) == []
    assert found.manifest == {
        "apiVersion": "llamacluster.dev/v1alpha1",
        "kind": "LlamaCluster",
        "metadata": {"name": "llamacpp-mistral-7b-instruct-somebody-q"},
        "spec": {
            "model": {"uri": "pvc://shared-models/gguf/mistral.gguf"},
            "replicas": 2,
            "workers": {
                "count": 4,
                "resources": {
                    "limits": {"cpu": "8", "memory": "12Gi"},
                    "requests": {"cpu": "2"},
                },
                "nodeSelector": {"pool": "big"},
                "threads": 6,
            },
            "leader": {"resources": {"limits": {"cpu": "4", "memory": "8Gi"}}},
            "inference": {"parallel": 2, "contextSize": 4096},
        },
    }
    told = "\n".join(found.notes)
    for words in (
        "has at most 39 characters",
        "--verbose is left out",
        "--n-gpu-layers 99 is left",
    ):
        assert words in told


def test_a_plain_deployment_keeps_what_it_says() -> None:
    found = only(deployment("-t", "4"))
    assert found.manifest["metadata"] == {"name": "chat", "namespace": "ml"}
    assert found.manifest["spec"] == {
        "model": {"uri": "https://models/m.gguf"},
        # Threads follow the limit by themselves.
        "workers": {"resources": {"limits": {"memory": "16Gi", "cpu": "4"}}},
        "inference": {"contextSize": 4096},
    }
    assert "plans how many workers" in "\n".join(found.notes)


@pytest.mark.parametrize(
    ("args", "part", "expected"),
    [
        (["-np", "4"], "inference", {"parallel": 4, "contextSize": 1024}),
        (["--ctx_size=8192"], "inference", {"contextSize": 8192}),
        (
            ["-ctk", "q8_0", "--cache-type-v", "q4_0", "-b", "1024", "-ub", "256"],
            "inference",
            {
                "contextSize": 4096,
                "batchSize": 1024,
                "ubatchSize": 256,
                "cacheTypeK": "q8_0",
                "cacheTypeV": "q4_0",
            },
        ),
        (
            ["--embeddings", "--temp", "-0.5", "--jinja"],
            "inference",
            {
                "contextSize": 4096,
                "embeddings": True,
                "extraArgs": ["--temp", "-0.5", "--jinja"],
            },
        ),
        (["--port", "9000", "--host", "0.0.0.0"], "server", {"port": 9000}),
        (["--rpc", "a:50052,b:50052,c:50052"], "workers", {"count": 3}),
        (["-hf", "org/repo", "-hff", "m.gguf"], "model", {"uri": "https://models/m.gguf"}),
    ],
)
def test_flags_find_their_fields(args: list[str], part: str, expected: Manifest) -> None:
    found = spec(*args)[part]
    assert {key: found.get(key) for key in expected} == expected
    assert part == "workers" or found == expected


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-ts", "3,1"], "-ts 3,1 is left out: the operator plans which worker holds which"),
        (["-md", "draft.gguf"], "does not count the memory of a draft model"),
        (["--slots", "--metrics"], "--metrics is left out"),
        (
            ["-np", "4"],
            "4096 is of all 4 slots: inference.contextSize, of each, is 1024",
        ),
        (["-c", "0"], "without --ctx-size the engine takes the model's"),
        (["-np", "-1"], "without --parallel the engine chooses its slots"),
        (["--port", "80"], "the port 80 became 8080"),
        (["--api-key", "hush"], "put it into the Secret chat-api-keys"),
    ],
)
def test_what_is_left_out_or_changed_is_told(args: list[str], words: str) -> None:
    assert words in notes(*args)


def test_keys_are_never_repeated() -> None:
    found = only(on_hugging_face("--api-key", "hush", "-hft", "hush"))
    model = {"uri": "hf://o/r/m.gguf", "credentialsSecret": {"name": "chat-model"}}
    assert found.manifest["spec"]["model"] == model
    assert "--from-file=token=FILE" in "\n".join(found.notes)
    assert found.manifest["spec"]["server"] == {"apiKeysSecret": {"name": "chat-api-keys"}}
    assert "hush" not in str(found)


@pytest.mark.parametrize(
    ("key", "name", "told"), [("token", "hub", False), ("HF_TOKEN", "chat-model", True)]
)
def test_the_secret_with_the_token_of_hugging_face_is_named(
    key: str, name: str, told: bool
) -> None:
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": key}}}
    found = only(on_hugging_face(env=[token]))
    assert found.manifest["spec"]["model"]["credentialsSecret"] == {"name": name}
    assert (
        "kubectl create secret generic chat-model --from-file=token=FILE" in "\n".join(found.notes)
    ) is told


def test_a_token_of_hugging_face_is_for_no_other_server() -> None:
    found = only(deployment("--model-url", "https://a/b.gguf", "--hf-token", "hush"))
    assert found.manifest["spec"]["model"] == {"uri": "https://a/b.gguf"}
    assert "the token for Hugging Face is left out" in "\n".join(found.notes)


def test_secrets_that_are_there_are_named() -> None:
    key = {"name": "LLAMA_API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}}
    found = spec(
        *("--ssl-cert-file", "/tls/tls.crt", "--ssl-key-file", "/tls/tls.key"),
        env=[key],
        volumeMounts=[{"name": "tls", "mountPath": "/tls"}],
        volumes=[{"name": "tls", "secret": {"secretName": "chat-certificate"}}],
    )
    assert found["server"] == {
        "apiKeysSecret": {"name": "keys"},
        "tlsSecret": {"name": "chat-certificate"},
    }


def stored_in(**volume: Manifest) -> Manifest:
    """A container that has a volume at /models."""
    return {
        "args": ["-m", "/models/a/m.gguf"],
        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
        "volumes": [{"name": "models", **volume}],
    }


FETCHES = [{"command": ["sh", "-c", "wget -O /models/a/m.gguf 'https://a/m.gguf'"]}]
VARIABLE = [{"name": "DIR", "value": "/baked"}]
URL = [{"name": "LLAMA_ARG_MODEL_URL", "value": "https://a/b.gguf"}]


@pytest.mark.parametrize(
    ("container", "uri"),
    [
        (
            {"args": ["-hf", "o/r", "-hff", "m.gguf"]},
            "hf://o/r/m.gguf",
        ),
        ({"args": [], "env": URL}, "https://a/b.gguf"),
        (stored_in(persistentVolumeClaim={"claimName": "c"}), "pvc://c/a/m.gguf"),
        ({"args": ["-m", "$(DIR)/m.gguf"], "env": VARIABLE}, "file:///baked/m.gguf"),
        ({**stored_in(emptyDir={}), "initContainers": FETCHES}, "https://a/m.gguf"),
        (stored_in(hostPath={"path": "/m"}), UNKNOWN_URI),
        ({"args": ["-hf", "org/repo:Q4_K_M"]}, UNKNOWN_URI),
        ({"args": []}, UNKNOWN_URI),
    ],
)
def test_the_model_is_found_where_it_is(container: Manifest, uri: str) -> None:
    made = deployment(**container)
    made["spec"]["template"]["spec"]["containers"][0]["args"] = container["args"]
    assert only(made).manifest["spec"]["model"]["uri"] == uri


@pytest.mark.parametrize(
    "script",
    [
        "cd /app && exec llama-server -m /m.gguf -np 3 ${EXTRA}; echo done",
        "set -e\nulimit -l unlimited\n./build/bin/llama-server \\\n  -m /m.gguf -np 3 -c $SIZE\n",
        "LD_LIBRARY_PATH=/app /app/llama-server -m '/m.gguf' -np 3 2>&1 | tee log",
    ],
)
def test_the_server_is_found_in_a_shell_script(script: str) -> None:
    made = deployment(command=["/bin/sh", "-c", script])
    made["spec"]["template"]["spec"]["containers"][0]["args"] = []
    found = only(made).manifest["spec"]
    assert found["inference"]["parallel"] == 3
    assert found["model"]["uri"] == "file:///m.gguf"


def test_gpus_and_neighbours_are_left_out_with_a_word() -> None:
    made = deployment(resources={"limits": {"nvidia.com/gpu": "1"}})
    made["spec"]["template"]["spec"]["containers"].append({"name": "proxy", "image": "nginx"})
    found = only(made)
    told = "\n".join(found.notes)
    assert "nvidia.com/gpu is left out" in told
    assert "other containers are left out: proxy" in told
    # Neither a count nor a memory limit is there to plan by.
    assert found.manifest["spec"]["workers"] == {"count": 2}


@given(st.data())
@settings(max_examples=200)
def test_what_is_out_of_shape_is_no_traceback(data: st.DataObject) -> None:
    made = copy.deepcopy(
        data.draw(st.sampled_from([service("chat"), deployment("-m", "/m/a"), yaml.safe_load(LWS)]))
    )
    place: Any = made["spec"]
    while True:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else [0]))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(st.sampled_from([None, 3, "text", [], [3], [None], {}, {"a": 1}]))
    for found in imported([made, DEPLOYMENT]):
        problems(found.manifest)


def test_leader_and_workers_go_to_the_nodes_that_the_server_was_for() -> None:
    scheduling = {
        "nodeSelector": {"pool": "big"},
        "tolerations": [{"key": "pool", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
    }
    found = spec("-t", "3", **scheduling)
    # Resources and threads were for the layers, which are the workers'.
    assert found["leader"] == scheduling
    assert scheduling.items() <= found["workers"].items()


def test_the_secrets_to_pull_images_with_are_kept() -> None:
    assert spec(imagePullSecrets=[{"name": "hub"}])["imagePullSecrets"] == [{"name": "hub"}]


def test_a_service_account_is_left_out_with_a_word() -> None:
    assert "the service account chatty is left out" in notes(serviceAccountName="chatty")
    assert "service account" not in notes(serviceAccountName="default")


def service(name: str, namespace: str | None = None, **fields: Any) -> Manifest:
    """A Service that leads to DEPLOYMENT, once that has the label `app: chat`."""
    metadata = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    ports = [{"port": 8080}]
    fields = {"selector": {"app": "chat"}, "ports": ports, **fields}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": fields}


def beside(*services: Manifest) -> Imported:
    """What becomes of DEPLOYMENT with these in its file."""
    made = deployment()
    made["spec"]["template"]["metadata"] = {"labels": {"app": "chat", "tier": "1"}}
    return only(*services, made)


IN_THE_WAY = (
    "Service chat is in the way of the operator's own: delete it, or give the LlamaCluster another"
    " name"
)


@pytest.mark.parametrize(
    ("there", "to_do", "told"),
    [
        (service("chat"), [IN_THE_WAY], ""),
        (service("chat", "ml", selector={"app": "other"}), [IN_THE_WAY], ""),
        (
            service("chat", type="LoadBalancer", ports=[{"port": 80}]),
            [IN_THE_WAY],
            "Service chat (LoadBalancer, port 80) is left out: the operator makes Service chat"
            " (ClusterIP, port 8080; see server.service and server.port)",
        ),
        (
            service("front", type="NodePort"),
            [],
            "Service front (NodePort, port 8080) is left out: the operator makes Service chat",
        ),
        (service("chat", "web"), [], ""),
        (service("other", selector={"app": "other"}), [], ""),
    ],
)
def test_what_stands_in_the_way_of_the_operators_service_is_told(
    there: Manifest, to_do: list[str], told: str
) -> None:
    found = beside(there)
    assert found.to_do == to_do
    text = "\n".join(found.notes)
    assert told in text
    assert bool(told) == ("Service" in text)


def test_a_service_of_a_leaderworkerset_is_known_by_its_labels() -> None:
    made = yaml.safe_load(LWS)
    name = "leaderworkerset.sigs.k8s.io/name"
    front = service("front", selector={name: made["metadata"]["name"]})
    assert "Service front (ClusterIP, port 8080) is left out" in "\n".join(only(front, made).notes)


def test_the_service_that_a_leaderworkerset_brings_is_in_the_way_too() -> None:
    made = yaml.safe_load(LWS)
    made["metadata"]["name"] = "chat"
    assert only(made).to_do == [
        "Service chat, which LeaderWorkerSet chat has, is in the way of the operator's own: delete"
        " the LeaderWorkerSet, or give the LlamaCluster another name"
    ]
    made["spec"]["networkConfig"] = {"subdomainPolicy": "UniquePerReplica"}
    assert only(made).to_do == []


def test_rpc_servers_are_no_servers() -> None:
    assert imported([deployment(command=["/app/ggml-rpc-server"])]) == []


def run(text: str, *args: str) -> Result:
    return CliRunner().invoke(plugin, ["import", "-", *args], input=text)


def test_it_prints_a_manifest_and_tells_the_rest_on_standard_error() -> None:
    done = run(yaml.safe_dump_all([service("front"), DEPLOYMENT, yaml.safe_load(LWS)]))
    assert done.exit_code == 0
    kinds = [each["kind"] for each in yaml.safe_load_all(done.stdout)]
    assert kinds == ["LlamaCluster", "LlamaCluster"]
    assert "note: chat: the image ghcr.io/ggml-org/llama.cpp:server is left out" in done.stderr
    assert (
        json.loads(run(yaml.safe_dump(DEPLOYMENT), "-o", "json").stdout)["kind"] == "LlamaCluster"
    )


def test_several_in_json_are_one_list_that_kubectl_takes() -> None:
    done = run(yaml.safe_dump_all([DEPLOYMENT, yaml.safe_load(LWS)]), "-o", "json")
    assert json.loads(done.stdout)["kind"] == "List"
    assert [each.kind for each in read_manifest(done.stdout.encode(), "m")] == ["LlamaCluster"] * 2


def test_what_is_to_be_filled_in_is_asked_for() -> None:
    done = run(yaml.safe_dump(deployment("-mu", "", "-hf", "org/repo", "-ctk", "q3_x")))
    assert done.exit_code == 1
    assert "to do: spec.inference.cacheTypeK" in done.stderr
    assert "to do: spec.model.uri: write where the model is" in done.stderr


def test_a_service_in_the_way_is_something_to_do() -> None:
    done = run(yaml.safe_dump_all([service("chat"), DEPLOYMENT]))
    assert done.exit_code == 1
    assert f"to do: {IN_THE_WAY}" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: Service\napiVersion: v1", "that runs llama-server, but: Service"),
        ("", "standard input is empty: it should hold a LeaderWorkerSet, Deployment or"),
        ("---\n", "standard input is empty"),
        ("a: [", "neither YAML nor JSON"),
        (yaml.safe_dump({"apiVersion": "apps/v1", "kind": "Deployment", "spec": 3}), "runs llama"),
    ],
)
def test_a_file_without_a_server_is_bad_input(text: str, words: str) -> None:
    done = run(text)
    assert done.exit_code == 2
    assert words in done.stderr
