"""The planner of the engine image, run in a container on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

from llamacluster.agent.contract.messages import Plan
from llamacluster.agent.contract.options import PlanOptions, plan_args
from llamacluster.cli.engines import NoEngine
from llamacluster.controller.planner import parsed_failure, parsed_plan
from llamacluster.planning.reasons import GroupError, Reason

RUNTIMES = ("docker", "podman", "nerdctl")
LOOK_SECONDS = 30.0
PULL_SECONDS = 600.0
RUN_SECONDS = 300.0
HEADERS_DIR = "/headers"


def plan_in_container(
    image: str, model: Path, options: PlanOptions, tell: Callable[[str], None]
) -> Plan:
    """The plan that the image's planner makes of the header in `model`, whose folder is mounted
    read-only. Nothing of it remains, whatever happens. `tell` gets what takes long.

    Raises NoEngine if the planner cannot be run, and GroupError if it says that there is no plan.
    """
    if image.startswith("-"):
        raise NoEngine(f"{image} is no image")  # but an option, to the container runtime
    runtime = _runtime_with(image, tell)
    model.parent.chmod(0o755)  # for the container's user, whatever umask says
    for file in model.parent.iterdir():
        file.chmod(0o644)
    tell(f"asking the engine in {image}")
    code, output, errors = _run(runtime, image, model, options)
    lines = output.splitlines()
    answer = lines[-1] if lines else ""
    if parsed_plan(answer, "", options.workers):
        return cast(Plan, json.loads(answer))
    if failure := parsed_failure(answer):
        reason, message = failure
        raise GroupError(
            Reason(reason) if reason in Reason.__members__ else Reason.EngineFailed, message
        )
    raise NoEngine(f"{image} has no planner that this version knows: {_last_line(errors, code)}")


def _runtime_with(image: str, tell: Callable[[str], None]) -> str:
    """The first container runtime that has the image, or gets it."""
    there = [path for name in RUNTIMES if (path := shutil.which(name))]
    if not there:
        raise NoEngine(f"no container runtime ({', '.join(RUNTIMES)}) is on PATH")
    why = ""
    for runtime in there:
        found, _ = _does([runtime, "image", "inspect", image], LOOK_SECONDS)
        if found:
            return runtime
    for runtime in there:
        tell(f"pulling {image}")
        pulled, why = _does([runtime, "pull", image], PULL_SECONDS)
        if pulled:
            return runtime
    raise NoEngine(f"{Path(there[-1]).name} cannot get the image {image}: {why}")


def _does(argv: Sequence[str], seconds: float) -> tuple[bool, str]:
    """Whether a command succeeds, and its last words."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {seconds:g} s"
    except OSError as error:
        return False, str(error)
    return done.returncode == 0, _last_line(done.stderr, done.returncode)


def _run(runtime: str, image: str, model: Path, options: PlanOptions) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the image's planner."""
    name = f"llamacluster-plan-{uuid.uuid4().hex[:12]}"
    there = replace(options, model_uri=f"file://{HEADERS_DIR}/{model.name}")
    # Where SELinux guards the user's files, podman's containers may not read them.
    labels = ["--security-opt=label=disable"] if Path(runtime).name == "podman" else []
    try:
        client = subprocess.Popen(
            [
                *(runtime, "run", "--rm", f"--name={name}", "--pull=never"),
                *("--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL"),
                *("--security-opt=no-new-privileges", *labels),
                f"--mount=type=bind,source={model.parent},target={HEADERS_DIR},readonly",
                *(image, *plan_args(there)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us, who remove the container
        )
    except OSError as error:
        raise NoEngine(f"{runtime} does not start: {error}") from error
    try:
        output, errors = client.communicate(timeout=RUN_SECONDS)
        return client.returncode, output, errors
    except subprocess.TimeoutExpired as error:
        raise NoEngine(f"{image} made no plan within {RUN_SECONDS:g} s") from error
    finally:
        if client.returncode is None:
            client.terminate()
            with suppress(subprocess.TimeoutExpired):
                client.wait(2)
            client.kill()
            client.communicate()
            _does([runtime, "rm", "--force", name], LOOK_SECONDS)


def _last_line(text: str, code: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"it ended with {code} and said nothing"
