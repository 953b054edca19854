"""A group of one leader and two workers on three nodes serves as one process would."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
from openai import OpenAI

from tests.e2e.live import Live, eventually, tiny
from tests.kind.images import BuiltImages
from tests.kind.portforward import port_forward
from tests.kind.product import ask_service
from tests.model.build import SENTENCE

pytestmark = pytest.mark.e2e

PROMPTS = ["Hello", "What is the answer?", "a b c 1 2 3", "Ünïcödé 日本語 🦙"]


def plain_server(image: str) -> dict[str, Any]:
    """llama-server alone in one process, on the same file and the same build."""
    fetch = (
        "import urllib.request, os;"
        "urllib.request.urlretrieve('http://tiny-model/tiny.gguf', '/tmp/tiny.gguf');"
        "os.execvp('llama-server', 'llama-server -m /tmp/tiny.gguf --host 0.0.0.0 --port 8080 "
        "-c 2048 -np 1 -t 1 --fit off --cache-ram 0'.split())"
    )
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "plain"},
        "spec": {
            "containers": [
                {
                    "name": "plain",
                    "image": image,
                    "command": ["python3", "-c", fetch],
                    "securityContext": restricted,
                    "readinessProbe": {
                        "httpGet": {"path": "/health", "port": 8080},
                        "periodSeconds": 1,
                    },
                }
            ]
        },
    }


def greedy(url: str, prompt: str) -> list[int]:
    """Tokens of a greedy completion."""
    body = {"prompt": prompt, "n_predict": 32, "temperature": 0, "return_tokens": True}
    request = urllib.request.Request(
        f"{url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        tokens: list[int] = json.load(response)["tokens"]
        return tokens


def test_the_pods_are_spread_over_three_nodes(group: Live) -> None:
    nodes = {pod["spec"]["nodeName"] for pod in group.pods().values()}
    assert len(group.pods()) == 3
    assert len(nodes) == 3


def test_both_workers_hold_layers_and_the_leader_none(group: Live) -> None:
    status = group.leader_status()
    held = {part["worker"]: part["layers"] for part in status["placement"]}
    assert status["model"] is not None
    assert status["model"]["layers"] is not None
    assert held.keys() == {"tiny-group-0-1", "tiny-group-0-2"}
    assert min(held.values()) > 0
    assert sum(held.values()) == status["model"]["layers"] + 1  # with the output layer
    assert status["leader"] is not None
    assert status["leader"]["layers"] == 0
    # What the engine itself told: a layer brings its part of the KV cache with it.
    for part in status["placement"]:
        assert part["modelBytes"] > 0
        assert part["contextBytes"] > 0
    assert status["leader"]["contextBytes"] == 0


def test_greedy_output_is_that_of_a_single_process(group: Live, images: BuiltImages) -> None:
    group.kubectl("apply", "-f", "-", stdin=json.dumps(plain_server(images.engine)))
    group.kubectl("wait", "--for=condition=Ready", "pod/plain", "--timeout=240s")
    with (
        group.api() as ours,
        port_forward(group.cluster, group.namespace, "pod/plain", 8080) as plain,
    ):
        for prompt in PROMPTS:
            expected = greedy(plain, prompt)
            assert len(expected) > 3
            assert greedy(ours, prompt) == expected


def test_the_openai_client_lists_models_chats_and_streams(group: Live) -> None:
    with group.api() as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="unused")
        assert [model.id for model in client.models.list()] == ["tiny"]

        chat = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Hi"}], temperature=0
        )
        assert (chat.choices[0].message.content or "").strip() == SENTENCE

        stream = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "Hi"}],
            temperature=0,
            stream=True,
        )
        pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
        words = [piece for piece in pieces if piece]
        assert len(words) > 5
        assert "".join(words).strip() == SENTENCE


def test_the_endpoint_in_status_answers_inside_the_cluster(group: Live) -> None:
    """By the Service's name and address, as no port-forward goes."""
    endpoint = group.get()["status"]["endpoint"]
    body = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0}
    url = f"{endpoint}/chat/completions"
    answer = ask_service(group.cluster, group.namespace, url, body)
    assert answer["choices"][0]["message"]["content"].strip() == SENTENCE


def test_status_tells_what_runs_and_where_to_reach_it(group: Live) -> None:
    found = group.get()
    status = found["status"]
    assert status["endpoint"] == f"http://tiny.{group.namespace}.svc:8080/v1"
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert status["modelFile"] == "tiny.gguf"
    assert status["engine"]["version"]
    assert status["groups"][0]["workersAttached"] == 2
    listed = group.kubectl("get", "llc")
    assert listed.split()[:6] == ["NAME", "MODEL", "TOPOLOGY", "WORKERS", "READY", "REASON"]
    assert "tiny.gguf" in listed


def test_the_operator_leaves_the_users_object_alone(group: Live) -> None:
    metadata = group.get()["metadata"]
    assert "finalizers" not in metadata
    assert set(metadata.get("annotations", {})) <= {
        "kubectl.kubernetes.io/last-applied-configuration"
    }


def test_events_tell_the_story(group: Live) -> None:
    events = group.read("events", "--field-selector=involvedObject.kind=LlamaCluster")["items"]
    assert "Ready" in {event["reason"] for event in events}


def test_an_embedding_model_embeds(fresh: Live) -> None:
    fresh.apply(tiny(inference={"embeddings": True, "contextSize": 512}))
    fresh.wait_until_ready()
    with fresh.api() as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="unused")
        answer = client.embeddings.create(
            model="tiny", input=["one", "two words"], encoding_format="float"
        )
    one, two = (item.embedding for item in answer.data)
    assert len(one) == len(two) > 8
    assert one != two


def test_deleting_leaves_nothing_behind(fresh: Live) -> None:
    fresh.apply(tiny(model={"uri": "http://tiny-model/tiny.gguf", "storage": {"size": "64Mi"}}))
    fresh.wait_until_ready()
    assert fresh.read("pvc")["items"]
    fresh.kubectl("delete", "llc", "tiny", "--timeout=120s")

    def left() -> list[str]:
        kinds = "lws,svc,pods,statefulsets,controllerrevisions,pvc,llc"
        found = fresh.kubectl("get", kinds, "-o", "name").split()
        return [name for name in found if "tiny-model" not in name]

    eventually(lambda: not left(), "nothing is left of the LlamaCluster")
