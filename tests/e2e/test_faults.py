"""What is wrong is said in the conditions, and heals when its cause is removed."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.e2e.live import TINY, Json, Live, secret, tiny
from tests.engine.secret import certificate
from tests.kind.images import BuiltImages
from tests.kind.product import EXAMPLES

pytestmark = pytest.mark.e2e

URI = "http://tiny-model/tiny.gguf"
MODEL_SERVER = "app.kubernetes.io/name=tiny-model"
REMOVE_IMAGE = json.dumps([{"op": "remove", "path": "/spec/image"}])
HUB = {"name": "hub"}
TOKEN = secrets.token_hex()
PRIVATE = """
import functools, os, ssl
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.headers["Authorization"] == "Bearer " + os.environ["TOKEN"]:
            super().do_GET()
        else:
            self.send_error(401)

tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
tls.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
server = ThreadingHTTPServer(("", 8000), functools.partial(Handler, directory="/models"))
server.socket = tls.wrap_socket(
    server.socket, server_side=True, do_handshake_on_connect=False
)
server.serve_forever()
"""
"""Serves /models to who has the token, with a certificate of its own authority."""
ELSEWHERE = {**TINY["spec"]["workers"], "nodeSelector": {"test/place": "here"}}
WRONG: dict[str, Json] = {
    "wrong-image": {"image": "localhost/no/such-image:1"},
    "wrong-sha256": {"model": {"uri": URI, "sha256": "0" * 64}},
    "no-node": {"workers": ELSEWHERE},
    "bad-flag": {"inference": {"extraArgs": ["--no-such-flag"]}},
    "no-model": {"model": {"uri": "http://tiny-model/notes.gguf"}},
    "no-secret": {"model": {"uri": "https://private/tiny.gguf", "credentialsSecret": HUB}},
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


@pytest.fixture(scope="module")
def authority(published: Live, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Who signed the certificate of https://private, which serves what tiny-model does, but to who
    has TOKEN."""
    folder = tmp_path_factory.mktemp("private")
    entries = {**certificate(folder, "private"), "token": TOKEN}
    published.kubectl("create", "-f", "-", stdin=secret("private", entries, "kubernetes.io/tls"))
    deployment, service = (
        json.loads(json.dumps(each).replace("tiny-model", "private"))
        for each in yaml.safe_load_all((EXAMPLES / "tiny-model.yaml").read_text())
    )
    pod = deployment["spec"]["template"]["spec"]
    [server] = pod["containers"]
    running = published.read("deployment", "tiny-model")["spec"]["template"]["spec"]
    server |= {
        "image": running["containers"][0]["image"],
        "command": ["python3", "-c", PRIVATE],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
    }
    token = {"secretKeyRef": {"name": "private", "key": "token"}}
    server["env"] = [{"name": "TOKEN", "valueFrom": token}]
    server["volumeMounts"].append({"name": "tls", "mountPath": "/tls"})
    pod["volumes"] = [
        {"name": "models", "configMap": {"name": "tiny-model"}},
        {"name": "tls", "secret": {"secretName": "private"}},
    ]
    service["spec"]["ports"][0]["port"] = 443
    for each in (deployment, service):
        published.kubectl("create", "-f", "-", stdin=json.dumps(each))
    published.kubectl("rollout", "status", "deployment/private", "--timeout=120s")
    return folder / "private.crt"


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


def test_an_image_that_is_no_engines_is_known_by_its_last_words(
    published: Live, images: BuiltImages
) -> None:
    live = replace(published, name="not-an-engine")
    live.apply(tiny(image=images.operator))
    found = live.wait_for("Planned", "False", "ContainerFailed")
    assert "ended with exit code 2: llamacluster-operator: error: " in found["message"]
    live.kubectl("delete", "llc", live.name)


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


def test_a_model_behind_a_token_waits_for_its_secret_and_is_served(
    wrong: dict[str, Live], authority: Path
) -> None:
    live = wrong["no-secret"]
    found = live.wait_for("Ready", "False", "CredentialsMissing")
    assert "kubectl create secret generic hub --from-file=token=FILE" in found["message"]
    entries = {"token": f"{TOKEN}\n", "ca.crt": authority.read_text()}
    live.kubectl("create", "-f", "-", stdin=secret("hub", entries))
    live.wait_until_ready()
    kinds = "llc,leaderworkersets,statefulsets,jobs,pods,events"
    for told in (
        live.kubectl("get", kinds, "-o", "json"),
        live.kubectl("logs", "-l", live.selector, "--all-containers", "--tail=-1"),
    ):
        assert "https://private/tiny.gguf" in told
        assert TOKEN not in told


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
