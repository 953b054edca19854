"""API keys and TLS of a real LlamaCluster, with the OpenAI client."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from openai import DefaultHttpxClient, OpenAI

from tests.e2e.live import Json, Live, eventually, secret, tiny
from tests.engine.secret import certificate as signed
from tests.model.build import SENTENCE

pytestmark = pytest.mark.e2e

HOST = "tiny"


def certificate(folder: Path, name: str) -> dict[str, str]:
    """The entries of a kubernetes.io/tls Secret for the Service, as cert-manager would write it."""
    entries = signed(folder, name, HOST)
    return {**entries, "ca.crt": entries["tls.crt"]}


@contextmanager
def client(live: Live, key: str, ca: Path) -> Iterator[OpenAI]:
    with live.api() as url:
        base = url.replace("http://", "https://")
        yield OpenAI(
            base_url=f"{base}/v1",
            api_key=key,
            http_client=DefaultHttpxClient(verify=ssl.create_default_context(cafile=ca)),
            max_retries=0,
        )


def models(live: Live, key: str, ca: Path) -> list[str] | None:
    """What is listed for this key; None when it is refused."""
    with client(live, key, ca) as api:
        try:
            return [model.id for model in api.models.list()]
        except openai.AuthenticationError:
            return None
        except openai.APIConnectionError:
            return []


def hurry(live: Live) -> None:
    """The kubelet looks after a pod's Secrets once a minute, and when the pod changes."""
    for name in live.pods():
        live.kubectl("annotate", "--overwrite", "pod", name, f"hurry={secrets.token_hex(4)}")


def test_keys_and_certificate_come_go_and_are_renewed_as_the_group_runs(
    fresh: Live, tmp_path: Path
) -> None:
    alice, bob = secrets.token_hex(16), secrets.token_hex(16)
    fresh.apply(tiny(server={"apiKeysSecret": {"name": "keys"}, "tlsSecret": {"name": "tls"}}))

    # Nothing is open, and it is said what is missing.
    first = certificate(tmp_path, "one")
    fresh.kubectl("apply", "-f", "-", stdin=secret("tls", first, "kubernetes.io/tls"))
    missing = fresh.wait_for("Ready", "False", "ApiKeysMissing")
    assert "Secret keys" in missing["message"]
    assert fresh.condition("Degraded")["reason"] == "ApiKeysMissing"

    fresh.kubectl("create", "secret", "generic", "keys", f"--from-literal=alice={alice}")
    hurry(fresh)
    fresh.wait_until_ready()
    pods = {pod["metadata"]["uid"] for pod in fresh.pods().values()}
    status = fresh.get()["status"]
    assert status["endpoint"] == f"https://tiny.{fresh.namespace}.svc:8080/v1"
    assert status["access"]["apiKeys"] == 1
    assert status["access"]["certificateExpires"]
    assert "advice" not in status["access"]

    ca = tmp_path / "one.crt"
    with client(fresh, alice, ca) as api:
        chat = api.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Hi"}], temperature=0
        )
        assert (chat.choices[0].message.content or "").strip() == SENTENCE
    with client(fresh, "nobody", ca) as api, pytest.raises(openai.AuthenticationError) as refused:
        api.models.list()
    assert refused.value.status_code == 401
    assert refused.value.code == "invalid_api_key"

    # The plug-in gets through both.
    told = fresh.plugin("chat", stdin="Hi", LLAMACLUSTER_API_KEY=alice)
    assert (told.exit_code, told.stdout.strip()) == (0, SENTENCE), told.output
    refused_too = fresh.plugin("chat", stdin="Hi", LLAMACLUSTER_API_KEY="nobody")
    assert refused_too.exit_code == 1
    assert "give an API key by --api-key-file" in refused_too.stderr

    # Keys change and the certificate is renewed, under the same pods.
    fresh.kubectl("replace", "-f", "-", stdin=secret("keys", {"bob": bob}))
    second = certificate(tmp_path, "two")
    fresh.kubectl("apply", "-f", "-", stdin=secret("tls", second, "kubernetes.io/tls"))
    hurry(fresh)
    renewed = tmp_path / "two.crt"
    eventually(lambda: models(fresh, bob, renewed) == ["tiny"], "Bob is let in")
    assert models(fresh, alice, renewed) is None
    assert fresh.condition("Ready")["status"] == "True"

    # Without the Secret it is closed, and opens when there is one again.
    fresh.kubectl("delete", "secret", "keys")
    hurry(fresh)
    fresh.wait_for("Ready", "False", "ApiKeysMissing")
    fresh.kubectl("create", "secret", "generic", "keys", f"--from-literal=bob={bob}")
    hurry(fresh)
    fresh.wait_until_ready()
    assert {pod["metadata"]["uid"] for pod in fresh.pods().values()} == pods
    assert restarts(fresh) == 0

    # No key is anywhere but in its Secret.
    said = fresh.kubectl("get", "llc,lws,pods,events,svc", "-o", "json")
    for name in fresh.pods():
        said += fresh.kubectl("logs", name, "--all-containers")
    assert alice not in said
    assert bob not in said


def restarts(live: Live) -> int:
    pods: list[Json] = list(live.pods().values())
    return sum(c["restartCount"] for pod in pods for c in pod["status"]["containerStatuses"])
