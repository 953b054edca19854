"""`kubectl llamacluster logs`: the logs of all pods of a LlamaCluster, in the order of time."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from llamacluster.agent.contract.places import (
    GATE_CONTAINER,
    LEADER_CONTAINER,
    TUNNEL_CONTAINER,
    WORKER_CONTAINER,
)
from llamacluster.cli import connection
from llamacluster.cli.connection import Place
from llamacluster.cli.duration import Duration
from llamacluster.cli.logline import Entry, Folder, LogLine, words
from llamacluster.cli.output import Output
from llamacluster.cli.terminal import BadInput, Failed, out, printable, say
from llamacluster.resources.metadata import (
    CLUSTER_LABEL,
    LWS_GROUP_INDEX_LABEL,
    LWS_WORKER_INDEX_LABEL,
)

if TYPE_CHECKING:
    from llamacluster.controller.kubeapi import KubeApi

LOOK_SECONDS = 2.0
"""Between two looks for new containers."""
QUIET_SECONDS = 0.3
"""What comes within it is put into order."""
CONTAINERS = (LEADER_CONTAINER, GATE_CONTAINER, WORKER_CONTAINER, TUNNEL_CONTAINER)
_COLOURS = ("cyan", "magenta", "green", "blue", "yellow", "bright_cyan", "bright_magenta")


@dataclass(frozen=True)
class Wanted:
    """Which containers, and which of their lines."""

    group: int | None = None
    worker: int | None = None
    containers: tuple[str, ...] = ()
    since_seconds: int | None = None
    tail: int | None = None
    previous: bool = False

    def query(self, container: str) -> dict[str, str]:
        """Parameters of the API."""
        query = {"container": container, "timestamps": "true"}
        if self.since_seconds:
            query["sinceSeconds"] = str(self.since_seconds)
        if self.tail is not None:
            query["tailLines"] = str(self.tail)
        if self.previous:
            query["previous"] = "true"
        return query


@dataclass(frozen=True)
class Source:
    """One run of a container."""

    identity: str
    pod: str
    container: str
    place: tuple[int, int, int]
    """Group, worker (0: the leader) and container, to sort by."""
    is_running: bool

    @property
    def label(self) -> str:
        """Such as `leader 0` and `worker 0-1`: the last part is that of the pod's name."""
        group, worker, _ = self.place
        return f"{self.container} {group}-{worker}" if worker else f"{self.container} {group}"


@click.command()
@connection.name_argument
@connection.options
@click.option("-g", "--group", type=click.IntRange(min=0), help="Of this group alone.")
@click.option("-w", "--worker", type=click.IntRange(min=1), help="Of the workers of this index.")
@click.option(
    "-c",
    "--container",
    "containers",
    type=click.Choice(CONTAINERS),
    multiple=True,
    help="Of these containers alone; may be repeated.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--since", type=Duration(), help="Not older than this, such as 15m.")
@click.option("--tail", type=click.IntRange(min=0), help="The last lines of each container.")
@click.option("-p", "--previous", is_flag=True, help="Of each container's run before this one.")
@click.option("-a", "--all", "everything", is_flag=True, help="Fold nothing.")
@click.option(
    "-o",
    "--output",
    type=click.Choice([Output.JSON], case_sensitive=False),
    help="json: an object for each line, in a line of its own, with time, pod, container and text;"
    " nothing is folded.",
)
def logs(
    name: str,
    place: Place,
    group: int | None,
    worker: int | None,
    containers: tuple[str, ...],
    follow: bool,
    since: int | None,
    tail: int | None,
    previous: bool,
    everything: bool,
    output: Output | None,
) -> None:
    """Print the logs of all pods of the LlamaCluster NAME.

    In the order of time. Each line begins with its container and the last part of its pod's name:
    `worker 0-1` is in NAME-group-0-1. What the engine says at length of each load and request is
    folded.

    \b
    Exit codes:
      0  printed
      1  there is nothing to print yet, or the API server refuses
      2  there is no such LlamaCluster, or an option is wrong
    """
    if follow and previous:
        raise BadInput("--previous is of runs that have ended: it goes without --follow")
    wanted = Wanted(group, worker, containers, since, tail, previous)

    page = JsonLines() if output else Page(everything)

    async def act(api: KubeApi, namespace: str) -> None:
        await print_logs(api, namespace, name, wanted, page, follow=follow)

    connection.run(place, act)


async def print_logs(
    api: KubeApi, namespace: str, name: str, wanted: Wanted, page: Page, *, follow: bool
) -> None:
    """Do it. Raises Failed, BadInput and ApiError."""
    await connection.read(api, namespace, name)
    chosen = sources(await _pods(api, namespace, name), wanted)
    if not chosen and not follow:
        raise Failed(
            f"no such container of {name} has {'ended' if wanted.previous else 'started'} yet: see"
            f" kubectl llamacluster status {name}"
        )
    ends: dict[str, int] = {}
    logs_of_all = [
        of_source(api, namespace, source, wanted.query(source.container), ends) for source in chosen
    ]
    async for line in merged(logs_of_all):
        page.add(line)
    page.flush()
    if follow:
        await _follow(api, namespace, name, wanted, page, ends)


async def _pods(api: KubeApi, namespace: str, name: str) -> list[dict[str, Any]]:
    from llamacluster.controller.kubeapi import PODS

    return await api.list(PODS, namespace, f"{CLUSTER_LABEL}={name}")


def sources(pods: Sequence[dict[str, Any]], wanted: Wanted) -> list[Source]:
    """The containers of groups that have started, or with `previous`, that have ended before."""
    found: list[Source] = []
    for pod in pods:
        labels = pod["metadata"].get("labels", {})
        if LWS_WORKER_INDEX_LABEL not in labels:
            continue  # the planner's
        group, worker = int(labels[LWS_GROUP_INDEX_LABEL]), int(labels[LWS_WORKER_INDEX_LABEL])
        if wanted.group not in (None, group) or wanted.worker not in (None, worker):
            continue
        for status in pod.get("status", {}).get("containerStatuses", []):
            container = status["name"]
            if wanted.containers and container not in wanted.containers:
                continue
            if wanted.previous:
                identity = status.get("lastState", {}).get("terminated", {}).get("containerID")
            else:
                identity = status.get("containerID")
            if identity:
                rank = CONTAINERS.index(container) if container in CONTAINERS else len(CONTAINERS)
                where = (group, worker, rank)
                is_running = "running" in status.get("state", {})
                name = pod["metadata"]["name"]
                found.append(Source(identity, name, container, where, is_running))
    return sorted(found, key=lambda source: source.place)


async def of_source(
    api: KubeApi, namespace: str, source: Source, query: dict[str, str], ends: dict[str, int]
) -> AsyncIterator[LogLine]:
    """The lines of a container that are younger than its entry in `ends`, which it moves on."""
    from llamacluster.controller.kubeapi import ApiError

    try:
        async with aclosing(api.log_lines(namespace, source.pod, query)) as lines:
            async for line in lines:
                stamp, _, text = line.partition(" ")
                # The kubelet's own complaints have no time.
                moment = nanoseconds(stamp)
                if moment is None:
                    moment, text = ends.get(source.identity, 0), line
                elif moment <= ends.get(source.identity, -1):
                    continue
                ends[source.identity] = moment
                yield LogLine(moment, source.label, text, source.pod, source.container)
    except ApiError as error:
        if error.status not in (400, 404):
            raise
        # The container, or its pod, has gone meanwhile, and its log with it.
        say("note", f"{source.label}: {error.message}", "dim")


def nanoseconds(stamp: str) -> int | None:
    """Nanoseconds since 1970 of an RFC 3339 time; None for what is none."""
    found = re.fullmatch(r"(\d{4}-\S+?:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)", stamp)
    if not found:
        return None
    try:
        seconds = int(datetime.fromisoformat(found[1] + found[3]).timestamp())
    except ValueError:
        return None
    return seconds * 10**9 + int((found[2] or "").ljust(9, "0"))


async def merged(sources_lines: Sequence[AsyncIterator[LogLine]]) -> AsyncIterator[LogLine]:
    """All lines in the order of time, of sources which each are in that order. One line of each is
    in memory."""
    heads_of = await asyncio.gather(*(_next(lines) for lines in sources_lines))
    waiting = dict(zip(sources_lines, heads_of, strict=True))
    while heads := [(line.nanoseconds, lines) for lines, line in waiting.items() if line]:
        _, first = min(heads, key=lambda head: head[0])
        line = waiting[first]
        if line:
            yield line
        waiting[first] = await _next(first)


async def _next(lines: AsyncIterator[LogLine]) -> LogLine | None:
    return await anext(lines, None)


async def _follow(
    api: KubeApi, namespace: str, name: str, wanted: Wanted, page: Page, ends: dict[str, int]
) -> None:
    """Prints what comes, of containers that start later too, until it is cancelled."""
    import aiohttp

    from llamacluster.controller.kubeapi import ApiError

    queue: asyncio.Queue[LogLine] = asyncio.Queue(10_000)
    followed: set[str] = set()
    trouble = ""

    def tell(error: Exception) -> None:
        nonlocal trouble
        if str(error) != trouble:
            trouble = str(error)
            say("note", f"the API server: {trouble or 'no answer in time'}; trying again", "dim")

    async def fill(source: Source) -> None:
        query = wanted.query(source.container) | {"follow": "true"}
        if source.identity in ends:
            query.pop("tailLines", None)
            query.pop("sinceSeconds", None)
            # The API knows whole seconds: of_source skips what has been printed.
            since = datetime.fromtimestamp(ends[source.identity] // 10**9, UTC)
            query["sinceTime"] = f"{since:%Y-%m-%dT%H:%M:%SZ}"
        try:
            async for line in of_source(api, namespace, source, query, ends):
                await queue.put(line)
        except (ApiError, aiohttp.ClientError) as error:
            tell(error)
        if source.is_running:
            followed.discard(source.identity)  # or it has ended since: the next look tells

    async def look(group: asyncio.TaskGroup) -> None:
        while True:
            try:
                pods = await _pods(api, namespace, name)
            except (TimeoutError, ApiError, aiohttp.ClientError) as error:
                tell(error)
                pods = []
            for source in sources(pods, wanted):
                if source.identity not in followed:
                    followed.add(source.identity)
                    group.create_task(fill(source))
            await asyncio.sleep(LOOK_SECONDS)

    async with asyncio.TaskGroup() as group:
        group.create_task(look(group))
        while True:
            batch = [await queue.get()]
            await asyncio.sleep(QUIET_SECONDS)
            while not queue.empty():
                batch.append(queue.get_nowait())
            for line in sorted(batch, key=lambda line: line.nanoseconds):
                page.add(line)
            if queue.empty():
                page.flush()


@dataclass
class Page:
    """Prints lines."""

    everything: bool = False
    _console: Console = field(default_factory=out)
    _folder: Folder = field(default_factory=Folder)
    _noisy: set[str] = field(default_factory=set)
    """Whose last line was noise."""
    _date: str = ""
    _width: int = len("worker 0-1")
    _styles: dict[str, str] = field(default_factory=dict)

    def add(self, line: LogLine) -> None:
        """Print it, or hold it back as noise."""
        said = words(line.text, after_noise=line.source in self._noisy)
        (self._noisy.add if said.is_noise else self._noisy.discard)(line.source)
        if self.everything:
            self._print((line, said))
            return
        for part in self._folder.add(line, said):
            self._print(part)

    def flush(self) -> None:
        """Print what is held back."""
        for part in self._folder.flush():
            self._print(part)

    def _print(self, part: Entry | str) -> None:
        for text in self._texts(part):
            self._console.print(text, soft_wrap=True)

    def _texts(self, part: Entry | str) -> Iterator[Text]:
        if isinstance(part, str):
            yield Text(f"{'':9}{'':{self._width}} {part}", "dim")
            return
        line, said = part
        when = datetime.fromtimestamp(line.nanoseconds // 10**9).astimezone()
        date = when.strftime("%Y-%m-%d")
        if date != self._date:
            self._date = date
            yield Text(date, "dim")
        self._width = max(self._width, len(line.source))
        style = self._styles.setdefault(line.source, _COLOURS[len(self._styles) % len(_COLOURS)])
        yield Text.assemble(
            (f"{when:%H:%M:%S} ", "dim"),
            (f"{line.source:{self._width}} ", style),
            (printable(said.text.expandtabs(4)), said.style or ("dim" if said.is_noise else "")),
        )


class JsonLines(Page):
    """Prints lines for programs: as they are in the log."""

    def add(self, line: LogLine) -> None:
        """Print it."""
        seconds, rest = divmod(line.nanoseconds, 10**9)
        told = {
            "time": f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z",
            "pod": line.pod,
            "container": line.container,
            "text": line.text,
        }
        click.echo(json.dumps(told))
