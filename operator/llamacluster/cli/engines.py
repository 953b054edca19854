"""The engine on this machine's PATH."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from llamacluster.agent import engine
from llamacluster.agent.accounting import EngineAccountant
from llamacluster.agent.contract.messages import Plan
from llamacluster.agent.contract.options import PlanOptions
from llamacluster.agent.plan import plan_with
from llamacluster.agent.process import Child, Launcher
from llamacluster.planning.model import Model
from llamacluster.planning.reasons import GroupError, Reason

_OF_THE_ENGINE: Final = (Reason.EngineFailed, Reason.EngineBadFlag, Reason.ModelInvalid)


class NoEngine(Exception):
    """The engine cannot be asked this way. The message says why."""


class Refused(NoEngine):
    """It was asked, and has no plan for this model and these settings. Another build may have."""


def plan_on_path(model: Model, copy: Path, options: PlanOptions) -> Plan:
    """The plan by the word of the engine on PATH; `copy` is a file with the model's header.

    Raises NoEngine if there is none, Refused if it makes no plan, and GroupError if there can be
    none.
    """
    try:
        server, rpc = engine.server_program(), engine.rpc_program()
    except GroupError as error:
        needed = f"{engine.SERVER} and {engine.RPC_SERVERS[0]}"
        raise NoEngine(f"{needed} are not both on PATH") from error
    launcher = _Launcher()
    version: str | None = None
    try:
        version = engine.version(server)
        with EngineAccountant(server, rpc, copy, model, launcher) as accountant:
            return plan_with(model, accountant, options, version)
    except GroupError as error:
        if error.reason in _OF_THE_ENGINE:
            build = f"{server}{f', {version}' if version else ''}"
            raise Refused(f"the engine on PATH ({build}) refuses: {error.message}") from error
        raise
    except OSError as error:
        raise NoEngine(f"the engine on PATH does not start: {error}") from error
    finally:
        launcher.kill_all()


class _Launcher(Launcher):
    """Knows what it has started, for when the user interrupts."""

    def __init__(self) -> None:
        super().__init__()
        self._children: list[Child] = []

    def start(
        self,
        argv: Sequence[str],
        on_line: Callable[[str], None],
        on_exit: Callable[[], None],
    ) -> Child:
        self._children.append(super().start(argv, on_line, on_exit))
        return self._children[-1]

    def kill_all(self) -> None:
        for child in self._children:
            child.send(signal.SIGKILL)
