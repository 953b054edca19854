"""`kubectl llamacluster` on a group that serves."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

import pytest
import yaml
from click.testing import CliRunner, Result

from llamacluster.cli.completion import offers
from llamacluster.cli.plugin import plugin
from llamacluster.controller.kubeapi import ApiError, connect, load_configuration
from tests.e2e.live import Live, eventually
from tests.model.build import SENTENCE

pytestmark = pytest.mark.e2e


def test_a_piped_prompt_is_answered(group: Live) -> None:
    done = group.plugin("chat", stdin="Hello")
    assert (done.exit_code, done.stdout.strip(), done.stderr) == (0, SENTENCE, "")


def test_the_group_is_measured_and_its_status_tells_a_pace(group: Live) -> None:
    done = group.plugin("bench", "--prompt-tokens=64", "--tokens=16", "-o", "json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["workers"] == 2
    assert [pace["streams"] for pace in told["paces"]] == [1, 2]
    for pace in told["paces"]:
        assert pace["promptTokensPerSecond"] > 0
        assert pace["decodeTokensPerSecond"] > 0
        assert pace["decodeTokensPerSecondEach"] > 0

    def with_a_pace() -> Result | None:
        """Once the leader's agent has heard of it."""
        shown = group.plugin("status")
        return shown if "TOKENS/S" in shown.stdout else None

    shown = eventually(with_a_pace, "the status tells a pace", 30)
    assert shown.exit_code == 0
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())


def test_logs_of_all_pods_are_in_the_order_of_time(group: Live) -> None:
    done = group.plugin("logs")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [line for line in done.stdout.splitlines() if line[2:3] == ":"]
    times = [line[:8] for line in lines]
    midnights = sum(later < earlier for earlier, later in pairwise(times))
    assert midnights == (times[-1] < times[0])
    sources = {" ".join(line.split()[1:3]) for line in lines}
    assert {"leader 0", "worker 0-1", "worker 0-2"} <= sources
    assert " lines of the engine" in done.stdout
    everything = group.plugin("logs", "--all").stdout
    assert " lines of the engine" not in everything
    assert len(everything.splitlines()) > len(done.stdout.splitlines())
    last = group.plugin("logs", "--all", "--tail=1", "-c", "worker").stdout.splitlines()
    assert len(last) == 3  # with the date


def test_logs_of_runs_before_this_one_are_not_there_yet(group: Live) -> None:
    done = group.plugin("logs", "--previous")
    assert done.exit_code == 1
    assert "has ended yet" in done.stderr


async def test_the_api_server_refuses_a_log_that_is_not_there(group: Live) -> None:
    configuration = await load_configuration(str(group.cluster.kubeconfig), None)
    async with connect(configuration) as api:
        asked = {"container": "leader", "previous": "true"}
        with pytest.raises(ApiError) as refused:
            async for _ in api.log_lines(group.namespace, "tiny-group-0", asked):
                pass
        assert refused.value.status == 400
        with pytest.raises(ApiError) as missing:
            async for _ in api.log_lines(group.namespace, "nobody", {"container": "leader"}):
                pass
        assert missing.value.status == 404


def test_logs_are_followed_until_ctrl_c(group: Live) -> None:
    where = (f"--kubeconfig={group.cluster.kubeconfig}", f"--namespace={group.namespace}")
    command = ["logs", group.name, *where, "--follow", "--since=1s", "--all"]
    with subprocess.Popen(
        [sys.executable, "-m", "llamacluster.cli.plugin", *command],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        seen = Event()

        def ask() -> None:
            for _ in range(100):
                if seen.is_set():
                    return
                group.plugin("chat", stdin="Hello")

        asking = Thread(target=ask)
        asking.start()
        assert any("eval time" in line for line in process.stdout)
        seen.set()
        asking.join()
        process.send_signal(2)
        process.stdout.read()
    assert process.returncode == 130


def test_the_doctor_finds_the_cluster_well(group: Live) -> None:
    group.wait_for("Ready", "True", "Ready")
    where = (f"--kubeconfig={group.cluster.kubeconfig}", f"--namespace={group.namespace}")
    done = CliRunner().invoke(plugin, [*where, "doctor", "-o", "json"])
    assert done.exit_code == 0, done.output
    told = {(finding["level"], finding["about"]) for finding in json.loads(done.stdout)}
    well = {"Kubernetes", "LeaderWorkerSet", "operator", "nodes"}
    assert {("ok", about) for about in well} <= told
    assert "error" not in {level for level, _ in told}


def test_a_login_that_is_not_known_is_told(group: Live, tmp_path: Path) -> None:
    config = yaml.safe_load(group.cluster.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": "expired"}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    for verb in (["doctor"], ["status", group.name]):
        done = CliRunner().invoke(plugin, [*verb, f"--kubeconfig={kubeconfig}"])
        assert done.exit_code == 1
        assert "says 401 Unauthorized: log in again" in done.stderr


def test_names_are_completed(group: Live) -> None:
    where = (f"--kubeconfig={group.cluster.kubeconfig}", f"--namespace={group.namespace}")
    assert offers(plugin, ["status", *where, "ti"]) == ["tiny", ":4"]
