"""What is wrong is said in the conditions, and heals when its cause is removed."""

from __future__ import annotations

import json

import pytest

from tests.e2e.live import TINY, Json, Live, tiny

pytestmark = pytest.mark.e2e

URI = "http://tiny-model/tiny.gguf"
MODEL_SERVER = "app.kubernetes.io/name=tiny-model"


def test_a_wrong_image_is_named_and_heals(fresh: Live) -> None:
    fresh.apply(tiny(image="localhost/no/such-image:1"))
    found = fresh.wait_for("Ready", "False", "ImagePullFailed")
    assert "localhost/no/such-image:1" in found["message"]
    assert "spec.image" in found["message"]
    assert fresh.condition("Degraded")["status"] == "True"
    fresh.kubectl("patch", "llc", "tiny", "--type=json", "-p", REMOVE_IMAGE)
    fresh.wait_until_ready()
    assert fresh.condition("Degraded")["status"] == "False"


REMOVE_IMAGE = json.dumps([{"op": "remove", "path": "/spec/image"}])


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
    replace(fresh, model)
    fresh.wait_until_ready()


def test_a_wrong_sha256_is_named_and_heals_with_the_right_one(fresh: Live) -> None:
    fresh.apply(tiny(model={"uri": URI, "sha256": "0" * 64}))
    found = fresh.wait_for("Ready", "False", "ChecksumMismatch")
    assert "0" * 64 in found["message"]
    right = next(word for word in found["message"].replace(",", " ").split() if is_digest(word))
    fresh.patch({"model": {"sha256": right}})
    fresh.wait_until_ready()


def serve_also(live: Live, file: str, text: str) -> None:
    model = live.read("configmap", "tiny-model")
    replace(live, model | {"data": {file: text}})


def replace(live: Live, model: Json) -> None:
    """Replace the served files; a restart, because a mounted ConfigMap follows a minute later."""
    live.kubectl("replace", "-f", "-", stdin=json.dumps(model))
    live.kubectl("rollout", "restart", "deployment/tiny-model")
    live.kubectl("rollout", "status", "deployment/tiny-model", "--timeout=120s")


def is_digest(word: str) -> bool:
    return len(word) == 64 and set(word) <= set("0123456789abcdef") and word != "0" * 64


def test_a_worker_that_never_comes_is_named_and_heals(fresh: Live) -> None:
    node = fresh.cluster.worker_nodes()[0]
    workers = {**TINY["spec"]["workers"], "nodeSelector": {"test/place": "here"}}
    fresh.apply(tiny(workers=workers))
    found = fresh.wait_for("Ready", "False", "Unschedulable")
    assert "tiny-group-0-" in found["message"]
    assert "node" in found["message"]
    try:
        fresh.cluster.kubectl("label", "node", node, "test/place=here")
        fresh.wait_until_ready()
    finally:
        fresh.cluster.kubectl("label", "node", node, "test/place-")


def test_a_bad_engine_flag_is_named_with_the_engines_words_and_heals(fresh: Live) -> None:
    fresh.apply(tiny(inference={"extraArgs": ["--no-such-flag"]}))
    found = fresh.wait_for("Ready", "False", "EngineBadFlag")
    assert "--no-such-flag" in found["message"]
    fresh.patch({"inference": {"extraArgs": []}})
    fresh.wait_until_ready()


def test_a_file_that_is_no_model_is_named(fresh: Live) -> None:
    serve_also(fresh, "notes.gguf", "not a model")
    fresh.apply(tiny(model={"uri": "http://tiny-model/notes.gguf"}))
    found = fresh.wait_for("Ready", "False", "ModelInvalid")
    assert "GGUF" in found["message"]
