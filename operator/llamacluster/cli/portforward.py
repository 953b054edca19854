"""A way from this machine into a pod: `kubectl port-forward`, for as long as a block runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread, Timer
from typing import IO

from llamacluster.cli.connection import Place
from llamacluster.cli.terminal import BadInput, Failed

CONNECT_SECONDS = 10.0
_LISTENS = re.compile(r"127\.0\.0\.1:(\d+) ->")


@contextmanager
def port_forward(place: Place, namespace: str, pod: str, port: int) -> Iterator[int]:
    """The port of this machine that leads to `port` of a pod. Raises BadInput without kubectl, and
    Failed with its words."""
    # kubectl and not a client of our own: it knows every proxy and login plug-in of the user's
    # kubeconfig, and both protocols of API servers.
    program = shutil.which("kubectl")
    if program is None:
        raise BadInput("kubectl is not on PATH: it makes the connection to the pod")
    chosen = {
        "namespace": namespace,
        "kubeconfig": place.kubeconfig,
        "context": place.context,
    }
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [
                program,
                *(f"--{option}={value}" for option, value in chosen.items() if value),
                *("port-forward", "--address=127.0.0.1", f"pod/{pod}", f":{port}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # Ctrl-C is for us
        ) as process,
    ):
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            late = Timer(CONNECT_SECONDS, process.kill)
            late.daemon = True
            late.start()
            found = _LISTENS.search(process.stdout.readline())
            late.cancel()
            if found is None:
                process.wait()
                errors.seek(0)
                raise Failed(f"kubectl port-forward: {errors.read().strip() or 'no answer'}")
            Thread(target=_drain, args=(process.stdout,), daemon=True).start()
            yield int(found[1])
        finally:
            process.terminate()


def _drain(output: IO[str]) -> None:
    # A line for each connection: a full pipe would stop it.
    with suppress(ValueError):  # closed meanwhile
        for _ in output:
            pass
