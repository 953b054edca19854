"""What is wrong is said in the conditions, and heals when its cause is removed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.e2e.live import TINY, Json, Live, tiny

pytestmark = pytest.mark.e2e

URI = "http://tiny-model/tiny.gguf"
MODEL_SERVER = "app.kubernetes.io/name=tiny-model"
REMOVE_IMAGE = json.dumps([{"op": "remove", "path": "/spec/image"}])
ELSEWHERE = {**TINY["spec"]["workers"], "nodeSelector": {"test/place": "here"}}
WRONG: dict[str, Json] = {
    "wrong-image": {"image": "localhost/no/such-image:1"},
    "wrong-sha256": {"model": {"uri": URI, "sha256": "0" * 64}},
    "no-node": {"workers": ELSEWHERE},
    "bad-flag": {"inference": {"extraArgs": ["--no-such-flag"]}},
    "no-model": {"model": {"uri": "http://tiny-model/notes.gguf"}},
}
"""What is wrong with each LlamaCluster of this module, by its name."""


@pytest.fixture(scope="module")
def wrong(published: Live) -> dict[str, Live]:
    """All of them, applied at once: each takes a while until it is known what is wrong."""
    serve(published, published.read("configmap", "tiny-model") | {"data": {"notes.gguf": "text"}})
    made = {name: replace(published, name=name) for name in WRONG}
    for name, live in made.items():
        live.apply(tiny(**WRONG[name]))
    return made


def serve(live: Live, files: Json) -> None:
    """Other files; with a restart, because a mounted ConfigMap follows a minute later."""
    live.kubectl("replace", "-f", "-", stdin=json.dumps(files))
    live.kubectl("rollout", "restart", "deployment/tiny-model")
    live.kubectl("rollout", "status", "deployment/tiny-model", "--timeout=120s")


def test_a_wrong_image_is_named_and_heals(wrong: dict[str, Live]) -> None:
    live = wrong["wrong-image"]
    found = live.wait_for("Ready", "False", "ImagePullFailed")
    assert "localhost/no/such-image:1" in found["message"]
    assert "spec.image" in found["message"]
    assert live.condition("Degraded")["status"] == "True"
    live.kubectl("patch", "llc", live.name, "--type=json", "-p", REMOVE_IMAGE)
    live.wait_until_ready()
    assert live.condition("Degraded")["status"] == "False"


def test_a_wrong_sha256_is_named_and_heals_with_the_right_one(wrong: dict[str, Live]) -> None:
    live = wrong["wrong-sha256"]
    found = live.wait_for("Ready", "False", "ChecksumMismatch")
    assert "0" * 64 in found["message"]
    right = next(word for word in found["message"].replace(",", " ").split() if is_digest(word))
    live.patch({"model": {"sha256": right}})
    live.wait_until_ready()


def is_digest(word: str) -> bool:
    return len(word) == 64 and set(word) <= set("0123456789abcdef") and word != "0" * 64


def test_a_worker_that_never_comes_is_named_and_heals(wrong: dict[str, Live]) -> None:
    live = wrong["no-node"]
    node = live.cluster.worker_nodes()[0]
    found = live.wait_for("Ready", "False", "Unschedulable")
    assert "no-node-group-0-" in found["message"]
    assert "node" in found["message"]
    try:
        live.cluster.kubectl("label", "node", node, "test/place=here")
        live.wait_until_ready()
    finally:
        live.cluster.kubectl("label", "node", node, "test/place-")


def test_a_bad_engine_flag_is_named_with_the_engines_words_and_heals(
    wrong: dict[str, Live],
) -> None:
    live = wrong["bad-flag"]
    found = live.wait_for("Ready", "False", "EngineBadFlag")
    assert "--no-such-flag" in found["message"]
    live.patch({"inference": {"extraArgs": []}})
    live.wait_until_ready()


def test_a_file_that_is_no_model_is_named(wrong: dict[str, Live]) -> None:
    found = wrong["no-model"].wait_for("Ready", "False", "ModelInvalid")
    assert "GGUF" in found["message"]


def test_a_missing_model_is_named_and_heals_when_the_file_appears(fresh: Live) -> None:
    fresh.kubectl("scale", "deployment/tiny-model", "--replicas=0")
    fresh.kubectl("wait", "--for=delete", "pod", "-l", MODEL_SERVER, "--timeout=120s")
    fresh.apply(tiny(model={"uri": "http://tiny-model/another.gguf"}))
    fresh.wait_for("Degraded", "True", "ModelDownloadFailed")  # no server at all
    fresh.kubectl("scale", "deployment/tiny-model", "--replicas=1")
    found = fresh.wait_for("Ready", "False", "ModelNotFound")  # a server, but no such file
    assert "http://tiny-model/another.gguf" in found["message"]
    model = fresh.read("configmap", "tiny-model")
    model["binaryData"]["another.gguf"] = model["binaryData"].pop("tiny.gguf")
    serve(fresh, model)
    fresh.wait_until_ready()
