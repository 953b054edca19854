"""A group with RPC encryption on the real cluster: its certificates, its answer, and the wire."""

from __future__ import annotations

import pytest

from llamacluster.agent.contract.places import RPC_PORT
from tests.e2e.live import Live, eventually, tiny
from tests.kind.product import ask_service
from tests.model.build import SENTENCE

pytestmark = pytest.mark.e2e

SPEAK_PLAINLY = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as connection:
    connection.sendall(bytes([14]) + (24).to_bytes(8, "little") + bytes(24))  # the RPC's HELLO
    try:
        print("answer:", connection.recv(64))
    except ConnectionResetError:
        print("answer: b''")
"""

OF_HAPROXY = """
import pathlib, socket
print([str(file) for file in pathlib.Path("/").glob("*/tunnel.cfg")])
try:
    with socket.create_connection(("127.0.0.1", 18053), 10) as connection:
        connection.sendall(b"show info\\n")
        print(connection.recv(64))
except OSError as error:
    print(error)
"""


def test_an_encrypted_group_serves_and_its_secret_may_be_lost(fresh: Live) -> None:
    live = fresh
    live.apply(tiny(rpc={"encryption": True}))
    live.wait_until_ready()
    assert answer(live) == SENTENCE

    worker = live.pods()["tiny-group-0-1"]
    said = live.kubectl(
        *("exec", "tiny-group-0", "--container=leader", "--", "python3", "-c", SPEAK_PLAINLY),
        *(worker["status"]["podIP"], str(RPC_PORT)),
    )
    assert said.strip() == "answer: b''"
    assert live.condition("Ready")["status"] == "True"
    for pod, engine in (("tiny-group-0", "leader"), ("tiny-group-0-1", "worker")):
        files: dict[str, str] = {}
        for container in (engine, "tunnel"):
            seen = live.kubectl(
                "exec", pod, f"--container={container}", "--", "python3", "-c", OF_HAPROXY
            )
            files[container], _, answered = seen.partition("\n")
            assert "HAProxy" not in answered  # its runtime API, by which the key could be read
        assert files == {engine: "[]", "tunnel": "['/tmp/tunnel.cfg']"}

    former = live.read("secret", "tiny-rpc-tls")
    live.kubectl("delete", "secret", "tiny-rpc-tls")
    live.kubectl("delete", "pod", "tiny-group-0-1", "--wait=false")

    def made_again() -> bool:
        found = live.kubectl("get", "secret", "tiny-rpc-tls", "--ignore-not-found", "-o=name")
        return bool(found.strip())

    eventually(made_again, "the Secret is made again")
    assert live.read("secret", "tiny-rpc-tls")["data"] != former["data"]
    eventually(
        lambda: (
            live.pods().get("tiny-group-0-1", worker)["metadata"]["uid"]
            != worker["metadata"]["uid"]
        ),
        "the worker has a successor",
    )
    # The others trust its certificate when their kubelets have brought them the new Secret.
    eventually(lambda: live.leader_status()["formations"] >= 2, "the group has formed anew")
    live.wait_until_ready()
    assert answer(live) == SENTENCE


def answer(live: Live) -> str:
    body = {"prompt": "Hello", "temperature": 0, "n_predict": 64}
    told = ask_service(live.cluster, live.namespace, "http://tiny:8080/completion", body)
    return str(told["content"])
