"""Threads and memory come from the cgroup, in the layouts that containers meet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamacluster.agent.limits import Limits


def limits(root: Path, files: dict[str, str], own: str = "0::/", cpus: int = 16) -> Limits:
    for name, content in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    (root / "own").write_text(own + "\n")
    return Limits(root / "cgroup", root / "own", cpus, root / "processes")


@pytest.mark.parametrize(
    ("cpu_max", "threads"),
    [
        ("max 100000", 16),
        ("400000 100000", 4),
        ("350000 100000", 3),
        ("50000 100000", 1),
        ("6400000 100000", 16),
    ],
)
def test_threads_are_the_quota_rounded_down_between_one_and_the_cpus(
    tmp_path: Path, cpu_max: str, threads: int
) -> None:
    assert limits(tmp_path, {"cpu.max": cpu_max}).threads() == threads


def test_version_1(tmp_path: Path) -> None:
    found = limits(
        tmp_path,
        {
            "cpu/cpu.cfs_quota_us": "250000",
            "cpu/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": "1073741824",
        },
        own="4:memory:/kubepods/pod1\n3:cpu,cpuacct:/kubepods/pod1\n0::/",
    )
    assert (found.threads(), found.memory_bytes()) == (2, 1 << 30)


def test_version_1_without_limits(tmp_path: Path) -> None:
    found = limits(
        tmp_path,
        {
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert (found.threads(), found.memory_bytes()) == (16, None)


def test_the_narrowest_limit_around_the_process_counts(tmp_path: Path) -> None:
    found = limits(
        tmp_path,
        {
            "pods/pod1/cpu.max": "max 100000",
            "pods/pod1/memory.max": "max",
            "pods/cpu.max": "200000 100000",
            "pods/memory.max": "1000",
        },
        own="0::/pods/pod1",
    )
    assert (found.threads(), found.memory_bytes()) == (2, 1000)


def test_without_any_cgroup_the_cpus_count(tmp_path: Path) -> None:
    found = Limits(tmp_path / "none", tmp_path / "neither", 3)
    assert (found.threads(), found.memory_bytes()) == (3, None)


def test_this_machine_can_be_read() -> None:
    assert Limits().threads() >= 1


def test_held_memory_is_that_of_the_process_and_the_peak_of_the_cgroup(tmp_path: Path) -> None:
    found = limits(tmp_path, {"memory.peak": "5000000"})
    process = tmp_path / "processes" / "7"
    process.mkdir(parents=True)
    (process / "status").write_text("Name:\tggml\nVmRSS:\t 99 kB\nRssAnon:\t   12 kB\n")
    assert found.held_memory(7) == {"residentBytes": 12288, "peakBytes": 5000000}
    assert found.held_memory(8) is None


def test_held_memory_of_this_very_process_is_some() -> None:
    held = Limits().held_memory(os.getpid())
    assert held is not None
    assert held["residentBytes"] > 1 << 20
