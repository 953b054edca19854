"""How large a request's body may be, and what the bodies take of the leader's memory."""

from __future__ import annotations

from typing import Final

from llamacluster.planning.account import Settings

MIN_BODY_BYTES: Final = 1 << 20
"""Room for many short inputs in one request. No more, because the engine splits a text into tokens
before it looks at its length, in a time that may grow with its square (100 kB: 2 s, seen with the
test model), and a client that goes away does not end that."""
MAX_BODY_BYTES: Final = 64 << 20
BODY_BYTES_PER_TOKEN: Final = 64
"""A token is some 4 bytes of text, and a character up to 6 bytes of JSON."""
QUICK_REQUESTS: Final = 2
"""Requests at a time of those that need no slot; as many as that may wait."""
ENGINE_BYTES_PER_BODY_BYTE: Final = 65
"""What llama-server holds of a body while it parses it and splits it into tokens, as measured with
llama.cpp 0.7: the text, its JSON, and 4 bytes and more for each token of it in several copies."""


def max_body_bytes(context_size: int) -> int:
    """The largest body of a request: what no prompt that fits the context is larger than."""
    return min(max(MIN_BODY_BYTES, BODY_BYTES_PER_TOKEN * context_size), MAX_BODY_BYTES)


def bodies_need(settings: Settings) -> int:
    """Bytes of the leader's memory for the largest bodies in all requests that the gate gives to
    the engine at a time."""
    requests = settings.parallel + QUICK_REQUESTS
    return requests * ENGINE_BYTES_PER_BODY_BYTE * max_body_bytes(settings.context_size)
