"""`make demo`: from nothing to an answer from a group of pods."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import textwrap
import time
from dataclasses import dataclass
from typing import Any

from tests.kind.cluster import Cluster, down_all, environment, known
from tests.kind.command import CommandFailed, SetupError
from tests.kind.host import cache
from tests.kind.images import build_images
from tests.kind.product import (
    EXAMPLES,
    OPERATOR_PODS,
    SYSTEM_NAMESPACE,
    ask_service,
    install_operator,
    operator_is_installed,
    publish_model,
)
from tests.kind.steps import Step, elapsed, step

CLUSTER = "llamacluster"
NAMESPACE = "demo"
NAME = "tiny"
SECONDS_UNTIL_READY = 300
QUESTION = "Who computed this answer?"


@dataclass(frozen=True)
class Answer:
    """What came back from the chat request."""

    text: str
    prompt_per_second: float
    predicted_per_second: float


def main(arguments: list[str]) -> int:
    """Run the demo, or take it down; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.kind.demo", description=__doc__)
    parser.add_argument("command", choices=["run", "down"])
    try:
        if parser.parse_args(arguments).command == "down":
            down()
        else:
            demo()
    except KeyboardInterrupt:
        return 130
    except (CommandFailed, SetupError) as error:
        if not getattr(error, "told", False):
            print(error, file=sys.stderr)
        return 1
    return 0


def demo() -> None:
    """Every step looks first whether its work is done: a second run changes nothing."""
    started = time.monotonic()
    cluster = Cluster(CLUSTER)
    cluster.up()
    images = build_images()
    cluster.load(images.engine)
    cluster.load(images.operator)
    where = f"kubectl --context kind-{CLUSTER}"
    with step("Operator: install its Helm chart", f"{where} -n {SYSTEM_NAMESPACE} get pods") as now:
        if operator_is_installed(cluster, images):
            now.note = "is there already"
        else:
            install_operator(cluster, images)
    with step("Model: make the tiny model and serve it in the cluster"):
        namespace = cluster.kubectl(
            "create", "namespace", NAMESPACE, "--dry-run=client", "-o", "yaml"
        )
        cluster.kubectl("apply", "-f", "-", stdin=namespace)
        publish_model(cluster, images, NAMESPACE)
    with step("LlamaCluster: apply examples/tiny.yaml"):
        cluster.kubectl("apply", f"-n={NAMESPACE}", "-f", str(EXAMPLES / "tiny.yaml"))
    with step(
        "LlamaCluster: wait until Ready",
        f"{where} -n {NAMESPACE} describe llc {NAME}; "
        f"{where} -n {SYSTEM_NAMESPACE} logs --prefix -l {OPERATOR_PODS}",
    ) as now:
        wait_until_ready(cluster, now)
    with step("Chat: ask through the Service") as now:
        answer = chat(cluster)
        now.note = f"{answer.predicted_per_second:.0f} tokens/s"
    show(answer, leader_status(cluster))
    show_next_commands(cluster)
    print(f"\nAll in {elapsed(time.monotonic() - started)}. Remove everything: make demo-down")


def down() -> None:
    """Remove the demo's cluster; the Docker engine too if we started it and nobody else uses it."""
    if set(known()) <= {CLUSTER}:
        down_all()
    else:
        Cluster(CLUSTER).down()
    print(f"What was built stays for the next time, in {cache()}: delete it as you like.")


def wait_until_ready(cluster: Cluster, now: Step) -> None:
    """Until the LlamaCluster is Ready in its newest generation; its own words are the progress."""
    deadline = time.monotonic() + SECONDS_UNTIL_READY
    while True:
        found = json.loads(cluster.kubectl("get", "llc", NAME, f"-n={NAMESPACE}", "-o", "json"))
        conditions = {c["type"]: c for c in found.get("status", {}).get("conditions", [])}
        ready = conditions.get("Ready", {"status": "Unknown", "reason": "", "message": ""})
        newest = ready.get("observedGeneration") == found["metadata"]["generation"]
        if ready["status"] == "True" and newest:
            return
        now.doing(f"{ready['reason']}: {ready['message']}")
        if time.monotonic() > deadline:
            raise SetupError(
                f"not Ready after {SECONDS_UNTIL_READY} s: {ready['reason']}: {ready['message']}"
            )
        time.sleep(1)


def chat(cluster: Cluster) -> Answer:
    """One chat request, as any OpenAI client in the cluster sends it to the Service."""
    body = {
        "model": NAME,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 100,
    }
    endpoint = cluster.kubectl(
        *("get", "llc", NAME, f"-n={NAMESPACE}", "-o", "jsonpath={.status.endpoint}")
    )
    found = ask_service(cluster, NAMESPACE, f"{endpoint}/chat/completions", body)
    timings = found["timings"]
    return Answer(
        text=found["choices"][0]["message"]["content"].strip(),
        prompt_per_second=timings["prompt_per_second"],
        predicted_per_second=timings["predicted_per_second"],
    )


def leader_status(cluster: Cluster) -> dict[str, Any]:
    """What the leader's agent read from the running engine."""
    # From within its pod: NetworkPolicies let nobody else ask but the operator.
    code = (
        "from urllib.request import urlopen;"
        "print(urlopen('http://127.0.0.1:50051/status', timeout=10).read().decode())"
    )
    told = cluster.kubectl(
        *("exec", f"--namespace={NAMESPACE}", f"{NAME}-group-0", "--container=leader", "--"),
        *("python3", "-c", code),
    )
    status: dict[str, Any] = json.loads(told)
    return status


def show(answer: Answer, status: dict[str, Any]) -> None:
    """The answer, its speed, and which pod holds what, in 80 columns."""
    print(f"\n  you    {QUESTION}")
    print(textwrap.fill(answer.text, 78, initial_indent="  model  ", subsequent_indent=" " * 9))
    print(
        f"\n  {answer.predicted_per_second:.0f} tokens/s generated, "
        f"{answer.prompt_per_second:.0f} tokens/s of prompt read.\n"
    )
    row = "  {:<18} {:<7} {:>12} {:>12} {:>12}"
    print(row.format("POD", "LAYERS", "WEIGHTS", "KV CACHE", "COMPUTE"))
    parts = [
        (part["worker"], f"{part['firstLayer']}-{part['lastLayer']}", part)
        for part in status["placement"]
    ]
    parts.append((status["name"], "none", status["leader"]))
    for name, layers, part in parts:
        sizes = (part["modelBytes"], part["contextBytes"], part["computeBytes"])
        print(row.format(name, layers, *(f"{size / 2**20:.2f} MiB" for size in sizes)))


def show_next_commands(cluster: Cluster) -> None:
    """Three commands to go on with, that work when they are pasted."""
    # The default kubeconfig has the demo's context; only the tools may be missing from PATH.
    path = environment(cluster).get("PATH")
    if path:
        added = path.removesuffix(os.environ.get("PATH", "")).rstrip(os.pathsep)
        print(f"\nkubectl is here: export PATH={shlex.quote(added)}:$PATH")
    context = f"kubectl --context kind-{CLUSTER} -n {NAMESPACE}"
    print(
        f"\nTry next:\n"
        f"  {context} get llc,pods -o wide\n"
        f"  {context} scale llc/{NAME} --replicas=2\n"
        f"  {context} port-forward svc/{NAME} 8080\n"
        "    and in another shell: curl localhost:8080/v1/models"
    )


if __name__ == "__main__":
    # A run that is asked to end cleans up as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
