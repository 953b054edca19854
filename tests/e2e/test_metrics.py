"""What Prometheus gets from a running group and from the operator in the cluster."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llamacluster.agent.contract.places import AGENT_PORT, METRICS
from tests.e2e.live import Live, eventually
from tests.kind.command import run
from tests.kind.gotools import PROMETHEUS, programs
from tests.kind.images import BuiltImages
from tests.kind.portforward import port_forward
from tests.kind.product import SYSTEM_NAMESPACE, install_operator, leading_pod
from tests.unit.monitoring.exposed import ENGINES_OWN

pytestmark = pytest.mark.e2e

ASK = (
    "from urllib.request import urlopen;"
    f"print(urlopen('http://127.0.0.1:{AGENT_PORT}{METRICS}', timeout=10).read().decode(), end='')"
)
ENGINES_LINE = re.compile(r"(# (HELP|TYPE) )?llamacpp:")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def of_the_leader(group: Live) -> str:
    return group.python(f"{group.name}-group-0", ASK, "-c", "leader")


def linted(text: str) -> str:
    """What promtool complains of in our own series."""
    own = "".join(line for line in text.splitlines(True) if not ENGINES_LINE.match(line))
    return run(
        [str(programs(PROMETHEUS, ["promtool"])["promtool"]), "check", "metrics"], stdin=own
    ).strip()


def test_a_leader_tells_of_its_group_its_gate_and_its_engine(group: Live) -> None:
    before = value(samples(of_the_leader(group)), "llamacluster_gate_responses_total", code="2xx")
    with group.api() as url:
        body = {"prompt": "Hello", "n_predict": 16, "temperature": 0}
        request = urllib.request.Request(
            f"{url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=120).read()

    def heard() -> Samples | None:
        """Once the leader has looked at the engine after the request."""
        found = samples(of_the_leader(group))
        made = found.get(("llamacpp:tokens_predicted_total", frozenset()), 0)
        kept = found.get(("llamacluster_kv_cache_tokens", frozenset({("slots", "idle")})), 0)
        return found if made > 1 and kept > 1 else None

    found = eventually(heard, "the engine has told of the request", 60)
    assert value(found, "llamacluster_group_ready") == 1
    assert value(found, "llamacluster_group_workers_wanted") == 2
    assert value(found, "llamacluster_group_workers_attached") == 2
    assert value(found, "llamacluster_group_load_seconds") > 0
    assert value(found, "llamacluster_gate_responses_total", code="2xx") > before
    assert value(found, "llamacluster_gate_requests", state="waiting") == 0
    slots, room = (
        group.get()["spec"]["inference"]["parallel"],
        "llamacluster_kv_cache_capacity_tokens",
    )
    assert value(found, "llamacluster_group_slots") == slots
    assert value(found, room) >= slots * group.get()["spec"]["inference"]["contextSize"]
    for worker in (1, 2):
        member = f"{group.name}-group-0-{worker}"
        assert value(found, "llamacluster_member_resident_bytes", member=member) > 1 << 20
        assert value(found, "llamacluster_member_memory_limit_bytes", member=member) > 1 << 20
        assert value(found, "llamacluster_member_placed_bytes", member=member, part="model") > 0
    assert {name for name, _ in found} >= ENGINES_OWN
    assert linted(of_the_leader(group)) == ""


def test_the_engine_has_no_queue_of_its_own(group: Live) -> None:
    found = samples(of_the_leader(group))
    assert value(found, "llamacpp:requests_deferred") == 0


def test_the_api_does_not_show_metrics(group: Live) -> None:
    with group.api() as url, pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{url}/metrics", timeout=10)


def test_the_operator_tells_of_its_work_and_of_the_cluster(
    group: Live, images: BuiltImages
) -> None:
    """Last: the operator starts again, with its metrics and afterwards without."""
    install_operator(group.cluster, images, "--set=metrics.enabled=true")
    try:
        own = {"namespace": group.namespace, "llamacluster": group.name}
        ready = {**own, "type": "Ready", "status": "True", "reason": "Ready"}
        # One that stands by knows of no LlamaCluster.
        leader = f"pod/{leading_pod(group.cluster)}"
        with port_forward(group.cluster, SYSTEM_NAMESPACE, leader, 8080) as url:

            def known() -> str | None:
                with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
                    text: str = answer.read().decode()
                there = ("llamacluster_status_condition", frozenset(ready.items()))
                return text if there in samples(text) else None

            text = eventually(known, "the operator has seen the LlamaCluster", 60)
        found = samples(text)
        assert value(found, "llamacluster_groups", **own, phase="Serving") == 1
        planned = value(
            found, "llamacluster_planned_bytes", **own, member="worker-1", part="context"
        )
        assert planned > 0
        done = "llamacluster_operator_reconcile_duration_seconds_count"
        assert value(found, done, outcome="success") > 0
        assert value(found, "llamacluster_operator_leading") == 1
        asked = "llamacluster_operator_api_requests_total"
        assert value(found, asked, verb="get", resource="llamaclusters", code="200") > 0
        assert linted(text) == ""
    finally:
        install_operator(group.cluster, images)
