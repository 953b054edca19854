"""`make dashboards`: a group that is busy, scaled by its load and struck, as Prometheus sees it.

Scales by the example's HorizontalPodAutoscaler, evaluates every panel of both dashboards with what
Prometheus has gathered, and draws them into docs/pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from tests.conftest import fresh_namespace
from tests.dashboards.__main__ import draw, lacking
from tests.dashboards.panels import CannotDraw, Prometheus
from tests.e2e.live import Live, eventually, tiny
from tests.kind import faults
from tests.kind.cluster import Cluster
from tests.kind.command import CommandFailed, SetupError, listening_to
from tests.kind.host import REPOSITORY
from tests.kind.images import BuiltImages, build_images
from tests.kind.portforward import port_forward
from tests.kind.product import EXAMPLES, install_operator, publish_model
from tests.kind.steps import step
from tests.monitoring import stack

Json = dict[str, Any]

PICTURES = REPOSITORY / "docs" / "pictures"
MAY_BE_EMPTY = ("Certificates end in", "Requests that failed", "Not as expected")
"""Panels of what need not be: TLS, errors, and what is not well at last."""
NAME = "llama"
SLOTS = 2
SCALED_SECONDS = 300.0
CALM_SECONDS = 60.0
"""Between two things that happen, so that each is seen by itself."""
LOAD = """
import json, sys, threading, time, urllib.request
def client(number):
    while True:
        words = "What is the answer to question %d? " % number * (1 + number % 4)
        body = json.dumps({"prompt": words, "n_predict": 16 + 16 * (number % 6)}).encode()
        request = urllib.request.Request(sys.argv[1], body, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=60).read()
        except OSError:
            time.sleep(1)
for number in range(int(sys.argv[2])):
    threading.Thread(target=client, args=(number,)).start()
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("make dashboards", description=__doc__)
    parser.parse_args(arguments)
    cluster = Cluster(os.environ.get("LLAMACLUSTER_TEST_CLUSTER", "llamacluster-test"))
    try:
        with cluster.lent():
            images = build_images()
            cluster.load(images.engine)
            cluster.load(images.operator)
            with monitored(cluster, images), fresh_namespace(cluster) as namespace:
                with step("Model: serve the tiny model in the cluster"):
                    publish_model(cluster, images, namespace)
                began = time.monotonic()
                live(Live(cluster, namespace, NAME))
                look(cluster, namespace, minutes=(time.monotonic() - began) / 60)
    except KeyboardInterrupt:
        return 130
    except (AssertionError, CannotDraw, CommandFailed, SetupError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


@contextmanager
def monitored(cluster: Cluster, images: BuiltImages) -> Iterator[None]:
    """The operator shows its metrics, and Prometheus and the adapter are there. Afterwards neither
    is so."""
    try:
        with step("Operator: install its Helm chart, with metrics"):
            install_operator(cluster, images, "--take-ownership", *stack.METRICS)
        stack.install(cluster)
        yield
    finally:
        with step("Prometheus and prometheus-adapter: remove"):
            stack.remove(cluster)
            install_operator(cluster, images)


def live(group: Live) -> None:
    """Idle, busy, scaled up, struck twice, idle and scaled down."""
    with step("LlamaCluster: wait until Ready"):
        group.apply(tiny(networkPolicy={"monitoring": [stack.MONITORED]}))
        group.wait_until_ready()
        group.kubectl("apply", "-f", "-", stdin=json.dumps(autoscaler()))
    time.sleep(CALM_SECONDS)
    with requests(group, clients=4 * SLOTS):
        with step("Autoscaler: a group more for a long queue") as now:
            eventually(lambda: replicas(group) == 2, "two groups are wanted", SCALED_SECONDS)
            group.wait_for("Ready", "True", "Ready")
            now.note = hpa_said(group)
        time.sleep(CALM_SECONDS)
        for pod in (f"{NAME}-group-0-1", f"{NAME}-group-1"):
            with step(f"Fault: the process of {pod} is killed"):
                found = faults.find_container(group.cluster, group.namespace, pod)
                faults.kill_process(found.node, found.container_id)
                time.sleep(CALM_SECONDS)
                group.wait_for("Ready", "True", "Ready")
    with step("Autoscaler: a group less without load"):
        eventually(lambda: replicas(group) == 1, "one group is wanted", SCALED_SECONDS)
        eventually(lambda: len(group.pods()) == 3, "one group is there", SCALED_SECONDS)
    time.sleep(CALM_SECONDS)


def autoscaler() -> Json:
    """The example's, for this group and a watcher who does not wait for half an hour."""
    made: Json = yaml.safe_load((EXAMPLES / "autoscale" / "hpa.yaml").read_text())
    made["metadata"]["name"] = made["spec"]["scaleTargetRef"]["name"] = NAME
    made["spec"]["maxReplicas"] = 2
    [metric] = made["spec"]["metrics"]
    metric["pods"]["target"]["averageValue"] = f"{800 * SLOTS}m"
    made["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = CALM_SECONDS
    return made


def replicas(group: Live) -> int:
    wanted: int = group.get()["spec"].get("replicas", 1)
    return wanted


def hpa_said(group: Live) -> str:
    """Its last word on why it scaled."""
    field = f"--field-selector=involvedObject.name={NAME},reason=SuccessfulRescale"
    events = group.read("events", field)["items"]
    return str(events[-1]["message"]) if events else ""


@contextmanager
def requests(group: Live, clients: int) -> Iterator[None]:
    """Clients that ask again and again, from a pod."""
    url = f"http://{NAME}:8080/completion"
    command = group.cluster.kubectl_command(
        *("exec", f"--namespace={group.namespace}", "deployment/tiny-model", "--"),
        *("timeout", "3600", "python3", "-c", LOAD, url, str(clients)),
    )
    try:
        with listening_to(command, print):
            yield
    finally:
        # The pod's own process does not end with it.
        group.kubectl("rollout", "restart", "deployment/tiny-model")


def look(cluster: Cluster, namespace: str, minutes: float) -> None:
    """Draws both dashboards. AssertionError for a panel without data and for an alert that fires
    though all is well at last."""
    with (
        step("Dashboards: draw them") as now,
        port_forward(cluster, stack.NAMESPACE, "service/prometheus-operated", 9090) as url,
    ):
        prometheus = Prometheus(url)
        empty = draw(prometheus, {"namespace": namespace}, minutes, PICTURES)
        problems = lacking(empty, MAY_BE_EMPTY)
        assert not problems, "panels without data:\n" + "\n".join(problems)
        firing = prometheus.instant('ALERTS{alertstate="firing"}', time.time())
        assert not firing, f"alerts fire: {firing}"
        now.note = f"{PICTURES.relative_to(REPOSITORY)}, of the last {minutes:.0f} minutes"


if __name__ == "__main__":
    # A run that is asked to end removes what it has installed as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
