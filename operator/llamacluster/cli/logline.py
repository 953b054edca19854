"""Lines of the pods' logs as people read them: the agents' without their wrapping, the engine's
without its own clock, and runs of what it says of each load and request in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

FEW = 3
"""A run of so many lines is shown as it is."""

_AGENT = re.compile(
    r'time=\S+ agent=\w+ level=(?P<level>\w+) msg=(?P<message>"(?:[^"\\]|\\.)*"|\S+)(?P<fields>.*)'
)
_ENGINE = re.compile(r"\d+\.\d\d\.\d{3}\.\d{3} (?:(?P<level>[A-Z]) )?(?P<text>.*)")
"""See agent.engine_log."""
_DULL = re.compile(
    # Of the RPC server, at its start and for each of about 17 connections for each load.
    r"load_backend: loaded |Accepted client connection|Client connection closed|recv returned 0"
    # Of the engine's own warnings, what the gate and our flags see to.
    r"|.*(?:no API key is set and CORS|--cache-idle-slots requires)"
)
_WORTH_READING = re.compile(r"\beval time =")
_ALARM = re.compile(
    r"\.(?:cpp|c|h):\d+|GGML_ASSERT|\b(?:error|fail|abort|terminate|what\(\))", re.I
)
_STYLES = {"warning": "yellow", "error": "red", "W": "yellow", "E": "red", "F": "red"}


@dataclass(frozen=True)
class Words:
    """What a line says."""

    text: str
    style: str = ""
    is_noise: bool = False


def words(line: str, *, after_noise: bool = False) -> Words:
    """What a line of an agent, of the engine, or of another program says. A line that is of neither
    kind goes on with the one before it."""
    if found := _AGENT.fullmatch(line):
        message = found["message"]
        if message.startswith('"'):
            try:
                message = str(json.loads(message))
            except ValueError:
                return Words(line)
        return Words(message + found["fields"], _STYLES.get(found["level"], ""))
    if found := _ENGINE.fullmatch(line):
        text, style = found["text"], _STYLES.get(found["level"] or "", "")
        if _DULL.match(text) or not (style or _WORTH_READING.search(text)):
            return Words(text, is_noise=True)
        return Words(text, style)
    return Words(
        line, is_noise=bool(_DULL.match(line)) or (after_noise and not _ALARM.search(line))
    )


@dataclass(frozen=True)
class LogLine:
    """One line of a container's log."""

    nanoseconds: int
    """Since 1970."""
    source: str
    """Whose line it is, for people."""
    text: str
    pod: str
    container: str


Entry = tuple[LogLine, Words]


@dataclass
class Folder:
    """Holds back what may be noise until it is known how much of it there is."""

    _held: list[Entry] = field(default_factory=list)
    _count: int = 0

    def add(self, line: LogLine, said: Words) -> Iterator[Entry | str]:
        """What is to be printed now: lines, or what tells of folded ones."""
        if said.is_noise:
            self._count += 1
            if len(self._held) < FEW:
                self._held.append((line, said))
            return
        yield from self.flush()
        yield line, said

    def flush(self) -> Iterator[Entry | str]:
        """What is held back."""
        if self._count > FEW:
            yield f"… {self._count:,} lines of the engine"
        else:
            yield from self._held
        self._held, self._count = [], 0
