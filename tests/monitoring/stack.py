"""Prometheus and prometheus-adapter in a cluster: what scrapes, alerts and scales by our metrics.

Prometheus is configured by the chart's own PodMonitors and alerts, the adapter by the values that
examples/autoscale has for its chart: what is wrong in those shows here.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.chaos.witness import ON_CONTROL_PLANE
from tests.kind import docker
from tests.kind.cluster import Cluster
from tests.kind.contenthash import content_key
from tests.kind.gotools import (
    KUBERNETES_VERSION,
    PROMETHEUS_ADAPTER,
    PROMETHEUS_SERVER,
    Module,
    programs,
)
from tests.kind.imagearchive import Image, write
from tests.kind.product import CHART, EXAMPLES, RELEASE, SYSTEM_NAMESPACE
from tests.kind.steps import step
from tests.monitoring.podmonitor import scrape_configs

Json = dict[str, Any]

NAMESPACE = "monitoring"
MONITORED = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}}
"""For `networkPolicy.monitoring` of a LlamaCluster, as in docs/observe.md."""
METRICS = (
    "--set=metrics.enabled=true",
    f"--set-json=networkPolicy.ingress={json.dumps([{'from': [MONITORED]}])}",
)
"""The chart's options for the operator's metrics, and Prometheus let in."""
ADAPTER_VALUES = EXAMPLES / "autoscale" / "prometheus-adapter.yaml"
STACK = Path(__file__).parent / "stack.yaml"


def install(cluster: Cluster) -> None:
    """Both run afterwards, on the node that no fault takes away."""
    prometheus = _image(cluster, PROMETHEUS_SERVER, "prometheus")
    adapter = _image(cluster, PROMETHEUS_ADAPTER, "adapter")
    values = yaml.safe_load(ADAPTER_VALUES.read_text())
    url = f"{values['prometheus']['url']}:9090"
    manifests = STACK.read_text()
    for word, stands_for in (("PROMETHEUS", prometheus), ("ADAPTER", adapter), ("URL", url)):
        manifests = manifests.replace(word, stands_for)
    rules = {"rules": values["rules"]["custom"]}
    alerts = (CHART / "alerts" / "llamacluster.yaml").read_text()
    configurations = [
        _config_map(
            "prometheus", {"prometheus.yaml": configuration(cluster), "alerts.yaml": alerts}
        ),
        _config_map("prometheus-adapter", {"config.yaml": yaml.safe_dump(rules)}),
    ]
    # Another configuration is another pod.
    annotations = {"llamacluster.dev/configuration": content_key(json.dumps(configurations))}
    objects: list[Json] = [*yaml.safe_load_all(manifests)]
    for found in objects:
        if found["kind"] == "Deployment":
            template = found["spec"]["template"]
            template["spec"] |= ON_CONTROL_PLANE
            template["metadata"]["annotations"] = annotations
    with step("Prometheus and prometheus-adapter: install"):
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(_list(objects + configurations)))
        for name in ("prometheus", "prometheus-adapter"):
            cluster.kubectl(
                *("rollout", "status", f"deployment/{name}", f"--namespace={NAMESPACE}"),
                "--timeout=120s",
            )


def remove(cluster: Cluster) -> None:
    """Nothing of it is left."""
    cluster.kubectl("delete", "--ignore-not-found", "-f", str(STACK))


def configuration(cluster: Cluster) -> str:
    """Prometheus' own, of the PodMonitors that the chart makes."""
    rendered = cluster.helm(
        *("template", RELEASE, str(CHART), f"--namespace={SYSTEM_NAMESPACE}", *METRICS),
        *(
            "--set=monitoring.podMonitors.enabled=true",
            "--show-only=templates/podmonitor.yaml",
            f"--kube-version={KUBERNETES_VERSION}",
        ),
    )
    jobs = [job for monitor in yaml.safe_load_all(rendered) for job in scrape_configs(monitor)]
    return yaml.safe_dump(
        {
            "global": {"evaluation_interval": "5s"},
            "rule_files": ["/etc/prometheus/alerts.yaml"],
            "scrape_configs": jobs,
        }
    )


def _list(objects: list[Json]) -> Json:
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def _config_map(name: str, data: dict[str, str]) -> Json:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _image(cluster: Cluster, module: Module, program: str) -> str:
    """An image of this program alone, on every node."""
    name = f"localhost/llamacluster-test/{program}:{module.key}"
    engine = docker.need_running()
    if not engine.has_image(name):
        path = programs(module, [program])[program]
        image = Image(
            name, {f"/{program}": path}, entrypoint=[f"/{program}"], user="65534", folders=["tmp"]
        )
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "image.tar"
            write([image], archive)
            engine.docker("load", "--input", str(archive))
    cluster.load(name)
    return name
