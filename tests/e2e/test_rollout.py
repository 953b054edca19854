"""Changes of the spec while clients ask."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from tests.e2e.live import TINY, Live, eventually, tiny
from tests.kind.command import listening_to

pytestmark = pytest.mark.e2e

NO_GAP_SECONDS = 5.0
"""Without an answer to any of the clients. It takes twenty to form a group anew.

What is slow is bounded by this alone: a client of the test waits longer, and loses nothing."""
CLIENTS = """
import json, sys, threading, time, urllib.request
body = json.dumps({"prompt": "a", "max_tokens": 2}).encode()
headers = {"Content-Type": "application/json"}
def client():
    while True:
        try:
            request = urllib.request.Request(sys.argv[1], body, headers)
            urllib.request.urlopen(request, timeout=30).read()
            told = f"answered {time.monotonic()}"
        except Exception as error:
            told = f"lost {error!r}"
        sys.stdout.write(told + chr(10))
        sys.stdout.flush()
        time.sleep(0.1)
for _ in range(3): threading.Thread(target=client).start()
"""


@dataclass
class Clients:
    """What three clients in the cluster were told."""

    answers: list[float] = field(default_factory=list)
    """When they were answered, in seconds."""
    lost: list[str] = field(default_factory=list)

    @property
    def longest_gap(self) -> float:
        """Seconds between two answers."""
        return max(after - before for before, after in pairwise(sorted(self.answers)))


@contextmanager
def asking(live: Live) -> Iterator[Clients]:
    """Clients that ask through the Service, again and again."""
    clients = Clients()
    url = f"http://{live.name}:8080/v1/completions"
    command = live.cluster.kubectl_command(
        *("exec", f"--namespace={live.namespace}", "deployment/tiny-model", "--"),
        *("python3", "-c", CLIENTS, url),
    )

    def hear(line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "answered":
            clients.answers.append(float(rest))
        else:
            clients.lost.append(rest)

    with listening_to(command, hear):
        eventually(lambda: len(clients.answers) > 5, "clients are answered")
        yield clients
        count = len(clients.answers)
        eventually(lambda: len(clients.answers) > count, "clients are answered at the end")


def leaders(live: Live) -> dict[str, str]:
    """Uid of each leader by its name."""
    return {
        name: pod["metadata"]["uid"]
        for name, pod in live.pods().items()
        if pod["metadata"]["labels"].get("leaderworkerset.sigs.k8s.io/worker-index") == "0"
    }


@pytest.fixture(scope="module")
def single(published: Live) -> Live:
    """One group, and a further one while it is replaced."""
    live = replace(published, name="single")
    live.apply(tiny(rollout={"maxSurge": 1}))
    live.wait_until_ready()
    return live


@pytest.fixture(scope="module")
def pair(published: Live) -> Live:
    """Two groups."""
    live = replace(published, name="pair")
    live.apply(tiny(replicas=2))
    live.wait_until_ready()
    return live


def test_a_single_group_serves_until_the_next_one_does(single: Live) -> None:
    before = leaders(single)
    with asking(single) as clients:
        single.patch({"inference": {"contextSize": 1024}})
        single.wait_for("Ready", "True", "Ready")
        eventually(lambda: leaders(single).keys() == before.keys(), "the further group is gone")
    assert leaders(single) != before
    assert clients.longest_gap < NO_GAP_SECONDS
    assert not clients.lost


def told(live: Live) -> str:
    """What the status says of groups and conditions, but for what the operator tries meanwhile, and
    for how often a leader has tried."""
    status = live.get()["status"]
    said = status["groups"], [c for c in status["conditions"] if c["type"] != "Isolated"]
    return re.sub(r"\b\d+ tries", "some tries", json.dumps(said))


def test_a_spec_that_cannot_work_leaves_the_old_group_serving_until_it_is_taken_back(
    single: Live,
) -> None:
    single.patch({"rollout": {"progressDeadlineSeconds": 15}})
    before = leaders(single)
    with asking(single) as clients:
        single.patch({"model": {"sha256": "0" * 64}})
        found = single.wait_for("Progressing", "False", "RolloutStuck")
        assert "group 1 does not get on: ChecksumMismatch" in found["message"]
        assert single.condition("Degraded")["reason"] == "RolloutStuck"
        assert before.items() <= leaders(single).items()
        said = told(single)
        eventually(lambda: len(clients.answers) > 50, "it serves on")
        assert told(single) == said, "its tries flip the status"

        single.patch({"model": {**TINY["spec"]["model"], "sha256": None}})
        single.wait_for("Ready", "True", "Ready")
        eventually(lambda: leaders(single) == before, "only the group that failed is gone")
    assert clients.longest_gap < NO_GAP_SECONDS
    assert not clients.lost


def test_an_image_that_cannot_be_pulled_changes_no_pod(pair: Live) -> None:
    before = leaders(pair)
    pair.patch({"image": "localhost/no/such-image:1"})
    pair.wait_for("Progressing", "False", "ImagePullFailed")
    assert leaders(pair) == before
    pair.patch({"image": None})
    pair.wait_for("Ready", "True", "Ready")
    assert leaders(pair) == before


def test_the_other_groups_serve_while_the_first_that_is_replaced_fails(pair: Live) -> None:
    pair.patch({"rollout": {"progressDeadlineSeconds": 15}})
    before = leaders(pair)
    leader = TINY["spec"]["leader"]
    pair.patch({"leader": {**leader, "nodeSelector": {"no": "node"}}})
    found = pair.wait_for("Progressing", "False", "RolloutStuck")
    assert "group 1 does not get on: Unschedulable" in found["message"]
    assert leaders(pair)["pair-group-0"] == before["pair-group-0"]
    assert pair.get()["status"]["readyReplicas"] == 1
    pair.patch({"leader": {"nodeSelector": None}})
    pair.wait_for("Ready", "True", "Ready")
    assert leaders(pair)["pair-group-0"] == before["pair-group-0"]
