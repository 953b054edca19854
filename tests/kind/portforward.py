"""`kubectl port-forward` for as long as a block runs."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator

from tests.kind.cluster import Cluster
from tests.kind.command import SetupError


@contextlib.contextmanager
def port_forward(cluster: Cluster, namespace: str, target: str, port: int) -> Iterator[str]:
    """Base URL on this machine that leads to `port` of `target`, such as `service/tiny`."""
    process = subprocess.Popen(
        cluster.kubectl_command(
            *("port-forward", f"--namespace={namespace}", "--address=127.0.0.1"),
            *(target, f":{port}"),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        if found is None:
            raise SetupError(f"kubectl port-forward {target}: {line.strip()}")
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        process.terminate()
        process.wait()
