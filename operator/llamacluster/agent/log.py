"""The agents' own lines in the pod's log, between the engine's.

One line per event, logfmt: `time=... agent=leader level=info msg="..." key=value`. Lines of the
engine pass through as they are.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from threading import Lock
from typing import TextIO

_PLAIN = re.compile(r"[\w.:/@%+,-]+")


class Log:
    """Writes whole lines to a stream that several threads share."""

    def __init__(self, role: str, stream: TextIO | None = None) -> None:
        self._role = role
        self._stream = stream or sys.stdout
        self._lock = Lock()

    def info(self, message: str, **fields: object) -> None:
        self._event("info", message, fields)

    def warning(self, message: str, **fields: object) -> None:
        self._event("warning", message, fields)

    def error(self, message: str, **fields: object) -> None:
        self._event("error", message, fields)

    def passed_through(self, line: str) -> None:
        """A line of the engine."""
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    def _event(self, level: str, message: str, fields: dict[str, object]) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        parts = [f"time={time} agent={self._role} level={level} msg={_quoted(message)}"]
        parts += [f"{key}={_quoted(str(value))}" for key, value in fields.items()]
        self.passed_through(" ".join(parts))


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
