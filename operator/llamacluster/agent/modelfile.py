"""The leader's model: its file(s) are got and checked, and its header is read."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from llamacluster.agent.clock import Clock
from llamacluster.agent.contract.messages import Phase
from llamacluster.agent.contract.options import LeaderOptions
from llamacluster.agent.fetch import ModelFiles, ModelStore
from llamacluster.agent.headers import check_whole
from llamacluster.agent.log import Log
from llamacluster.agent.progress import Pace
from llamacluster.agent.source import shown
from llamacluster.agent.status import GroupStatus
from llamacluster.planning.gguf import GgufError, Header, read_header
from llamacluster.planning.model import model_of
from llamacluster.planning.reasons import GroupError, Reason


@dataclass(frozen=True)
class FoundModel:
    """A model that is there, whole, and the one that was planned for."""

    files: ModelFiles
    header: Header
    """Of its first file."""
    sent_bytes: int | None
    """What the workers get of it; None where a tensor's type is newer than this agent."""


def find_model(
    options: LeaderOptions, store: ModelStore, status: GroupStatus, clock: Clock, log: Log
) -> FoundModel:
    """The model of the leader's options. Raises GroupError, and Stopped when told to stop."""
    files = _obtain(options, store, status, clock, log)
    try:
        headers = []
        for path in files.files:
            with path.open("rb") as file:
                headers.append(read_header(file))
        header = headers[0]
        block_count, context = header.block_count, header.context_length
    except GgufError as error:
        raise GroupError(Reason.ModelInvalid, f"{files.path.name}: {error}") from error
    except OSError as error:
        raise _unreadable(error) from error
    status.model = {
        "uri": shown(options.model_uri),
        "file": str(files.path),
        "bytes": files.bytes,
        "architecture": header.architecture,
        "layers": block_count,
        "contextTrain": context,
        "name": header.name,
    }
    if header.split_count != len(headers):
        raise GroupError(
            Reason.ModelInvalid,
            f"{files.path.name} is one of {header.split_count} files of its model, but"
            f" {len(headers)} were found: name the first NAME-00001-of-0000N.gguf",
        )
    model = None
    with suppress(GgufError):  # a tensor's type is newer than this agent: the engine will judge
        check_whole(files.path.name, header, files.path.stat().st_size)
        model = model_of(headers)
    planned, bytes_planned = sum(options.layers), options.model_bytes
    if planned != block_count + 1:
        raise _changed(
            f"{files.path.name} has {block_count} layers and an output layer, but the plan is"
            f" for {planned}"
        )
    if model and bytes_planned and model.bytes != bytes_planned:
        raise _changed(
            f"{files.path.name} has {model.bytes} bytes of weights, but the plan is for"
            f" {bytes_planned}"
        )
    sent_bytes = sum(model.layer_bytes) if model else None
    return FoundModel(files, header, sent_bytes)


def _changed(how: str) -> GroupError:
    return GroupError(
        Reason.ModelChanged,
        f"{how}: the file at model.uri is not the one that was planned for; set model.sha256 so"
        " that it is planned anew",
    )


def _obtain(
    options: LeaderOptions, store: ModelStore, status: GroupStatus, clock: Clock, log: Log
) -> ModelFiles:
    message = "looking for the model"
    if status.enter(Phase.Waiting, Reason.Starting, message):
        log.info(message, phase=Phase.Waiting, reason=Reason.Starting)
    try:
        return store.obtain(options.model_uri, options.model_sha256, _Telling(status, log, clock))
    except OSError as error:
        raise _unreadable(error) from error
    finally:
        status.progress = None


class _Telling:
    """Says how far the model is: in the status always, in the log now and then."""

    def __init__(self, status: GroupStatus, log: Log, clock: Clock) -> None:
        self._status = status
        self._log = log
        self._clock = clock
        self._downloading, self._verifying = Pace(clock), Pace(clock)
        self._said_at = float("-inf")
        self._said_bytes = 0

    def downloading(self, done_bytes: int, total_bytes: int | None) -> None:
        self._status.progress = self._downloading.at(done_bytes, total_bytes)
        self._status.enter(Phase.Waiting, Reason.Downloading, "downloading the model")
        self._say("downloading", done_bytes, total_bytes)

    def verifying(self, done_bytes: int, total_bytes: int) -> None:
        self._status.progress = self._verifying.at(done_bytes, total_bytes)
        self._status.enter(Phase.Waiting, Reason.Verifying, "computing the model's sha256")
        self._say("verifying", done_bytes, total_bytes)

    def _say(self, what: str, done: int, total: int | None) -> None:
        now = self._clock.monotonic()
        step = total / 20 if total else float("inf")
        if now - self._said_at > 10 or (
            done - self._said_bytes >= step and now > self._said_at + 1
        ):
            self._log.info(what, bytes=done, total=total)
            self._said_at, self._said_bytes = now, done


def _unreadable(error: OSError) -> GroupError:
    return GroupError(
        Reason.ModelInvalid,
        f"the model cannot be read ({error}): look at the volume and its node",
    )
