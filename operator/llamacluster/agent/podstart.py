"""When a pod began, as its agent knows it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from llamacluster.agent.clock import Clock


def pod_since(file: Path, clock: Clock) -> int:
    """Milliseconds since 1970 at which this was first asked for in this pod. It is kept in `file`,
    which must outlive the container and end with the pod."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        pass  # the first time, or power was lost before it was written
    since = int(clock.now().timestamp() * 1000)
    written = file.with_suffix(".new")
    with suppress(OSError):  # no room: a container that is started again takes itself for younger
        written.write_text(str(since))
        written.replace(file)
    return since
