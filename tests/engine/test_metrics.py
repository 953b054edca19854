"""What a group tells Prometheus while it works, waits and hangs."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from llamacluster.agent.contract.places import METRICS
from tests.engine.group import Group, eventually
from tests.engine.test_group import GREEDY, LONG_OPTIONS, OPTIONS, NewGroup, whole
from tests.unit.agent.test_metrics import Samples, samples

pytestmark = pytest.mark.engine

LONG = {**GREEDY, "n_predict": 1200, "ignore_eos": True, "n_probs": 0}
"""The engine tells of its cache every 2 s."""


def told(group: Group) -> Samples:
    code, text = group.leader.get(METRICS)
    assert code == 200
    return samples(text)


def test_a_queue_is_seen_in_the_gate_and_not_in_the_engine(new_group: NewGroup) -> None:
    """Five requests on two slots: what autoscalers go by."""
    group = whole(new_group(), LONG_OPTIONS)
    group.until("Ready")
    seen: list[Samples] = []

    def waits() -> bool:
        seen.append(told(group))
        running = seen[-1].get(("llamacluster_gate_requests", (("state", "running"),)))
        waiting = seen[-1].get(("llamacluster_gate_requests", (("state", "waiting"),)))
        busy = seen[-1].get(("llamacluster_kv_cache_tokens", (("slots", "busy"),)), 0)
        return (running, waiting) == (OPTIONS.parallel, 3) and busy > 0

    with ThreadPoolExecutor(5) as pool:
        answers = [
            pool.submit(partial(group.leader.post, "/completion", LONG, 8080)) for _ in "12345"
        ]
        eventually(waits)
        assert [answer.result()[0] for answer in answers] == [200] * 5
    assert max(found.get(("llamacpp:requests_deferred", ()), 0) for found in seen) == 0
    assert max(found.get(("llamacpp:requests_processing", ()), 0) for found in seen) <= 2
    after = told(group)
    assert after["llamacluster_gate_requests", (("state", "waiting"),)] == 0
    assert after["llamacluster_gate_responses_total", (("code", "2xx"),)] >= 5


def test_a_hung_engine_holds_no_scrape_up(new_group: NewGroup) -> None:
    group = whole(new_group(), LONG_OPTIONS)
    group.until("Ready")
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(
            partial(group.leader.post, "/completion", {**LONG, "n_predict": 100_000}, 8080)
        )
        busy = (("slots", "busy"),)
        eventually(lambda: told(group).get(("llamacluster_kv_cache_tokens", busy)))
        group.engine.docker("pause", group.worker(2).id)
        began = time.monotonic()
        found = told(group)
        assert time.monotonic() - began < 3
        assert found["llamacluster_group_workers_wanted", ()] == 2
        group.until("WorkerLost")
        assert told(group)["llamacluster_group_ready", ()] == 0
        group.engine.docker("unpause", group.worker(2).id)
        asked.result(timeout=60)
    group.until("Ready", formations=2)
    lost = told(group)["llamacluster_group_recoveries_total", (("reason", "WorkerLost"),)]
    assert lost == 1


def test_the_gates_numbers_are_to_be_read_and_nothing_is_to_be_changed(new_group: NewGroup) -> None:
    group = whole(new_group())
    group.until("Ready")
    look = (
        "import http.client, json, socket\n"
        "asked = socket.create_connection(('127.0.0.1', 18054))\n"
        "asked.sendall(b'add acl #0 x\\n')\n"
        "form = http.client.HTTPConnection('127.0.0.1', 18054)\n"
        "form.request('POST', '/', 's=engine&action=disable&b=engine')\n"
        "told = form.getresponse().headers['Location']\n"
        "print(json.dumps([asked.recv(12).decode(), told]))"
    )
    answers = json.loads(group.leader.run_python(look))
    assert answers == ["HTTP/1.1 400", "/;st=DENY"]
