"""What this container may use, CPUs and memory, from its cgroup (version 1 or 2); and what it does.

The engine asks the machine instead of the cgroup: by default its RPC server takes half of the
host's CPUs as threads, and more threads than the quota are slower than fewer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from llamacluster.agent.contract.messages import HeldMemory

_UNLIMITED_BYTES = 1 << 60
"""cgroup v1 writes "no limit" as a number just below 2**63."""


class Limits:
    """Reads the limits. `cgroups`, `own` and `processes` are where the kernel shows them."""

    def __init__(
        self,
        cgroups: Path = Path("/sys/fs/cgroup"),
        own: Path = Path("/proc/self/cgroup"),
        cpus: int | None = None,
        processes: Path = Path("/proc"),
    ) -> None:
        self._cgroups = cgroups
        self._own = own
        self._processes = processes
        self._cpus = cpus or len(os.sched_getaffinity(0))

    def threads(self) -> int:
        """Threads that fit the CPU limit: rounded down, at least 1; without a limit one per CPU
        that this process may run on."""
        quotas = [*self._quotas_v2(), *self._quotas_v1()]
        return max(1, min([self._cpus, *(int(quota) for quota in quotas)]))

    def memory_bytes(self) -> int | None:
        """The memory limit; None without one."""
        texts = [
            *self._read("", "memory.max"),
            *self._read("memory", "memory.limit_in_bytes"),
        ]
        limits = [int(text) for text in texts if text.isdigit()]
        return min((limit for limit in limits if limit < _UNLIMITED_BYTES), default=None)

    def held_memory(self, pid: int) -> HeldMemory | None:
        """What process `pid`, the engine, holds; None if it is gone."""
        try:
            text = (self._processes / str(pid) / "status").read_text()
        except OSError:
            return None
        lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if "RssAnon" not in lines:
            return None  # it has ended and waits to be collected
        peaks = [
            *self._read("", "memory.peak"),
            *self._read("memory", "memory.max_usage_in_bytes"),
        ]
        return {
            "residentBytes": int(lines["RssAnon"].split()[0]) << 10,  # "kB" of the kernel are KiB
            # The smallest: the other cgroups that can be seen are around this one.
            "peakBytes": min((int(peak) for peak in peaks if peak.isdigit()), default=None),
        }

    def _quotas_v2(self) -> Iterator[float]:
        for text in self._read("", "cpu.max"):
            quota, _, period = text.partition(" ")
            if quota.isdigit() and period.isdigit():
                yield int(quota) / int(period)

    def _quotas_v1(self) -> Iterator[float]:
        quotas = self._read("cpu", "cpu.cfs_quota_us")
        periods = self._read("cpu", "cpu.cfs_period_us")
        for quota, period in zip(quotas, periods, strict=False):
            if quota.isdigit() and period.isdigit():
                yield int(quota) / int(period)

    def _read(self, controller: str, file: str) -> Iterator[str]:
        """The file's content in this process' cgroup and in those around it, as far as visible.

        In a container the cgroup's own folder is usually mounted as the root, but its path may
        still be the host's: both places are looked at.
        """
        root = self._cgroups / controller
        for folder in {root, *self._folders(controller, root)}:
            try:
                yield (folder / file).read_text().strip()
            except OSError:
                continue

    def _folders(self, controller: str, root: Path) -> Iterator[Path]:
        try:
            lines = self._own.read_text().splitlines()
        except OSError:
            return
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                folder = Path(path.lstrip("/"))
                yield from (root / part for part in (folder, *folder.parents))
