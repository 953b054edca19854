"""The load: clients of one LlamaCluster that know the right answers. Runs in a pod of the engine
image, with the standard library only.

    python3 client.py MODEL_URL API_URL

First it asks a llama-server of its own, one process without RPC, what the right answers are. Then
it asks through the Service again and again, and prints one line of JSON for each request.
"""

from __future__ import annotations

import http.client
import itertools
import json
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

PROMPTS = ("Hello", "What is the answer?", "a b c 1 2 3", "Ünïcödé 日本語 🦙")
TOKENS = 64
"""More than the model's sentence has. Not beyond its end: there the best two tokens are so close
that even one process says the one or the other, depending on what else it works on."""
CONNECT_SECONDS = 3.0
READ_SECONDS = 90.0
"""Longer than the gate lets a request wait for a slot."""
PAUSE_SECONDS = 0.3
OWN_PORT = 18081


def body(prompt: str, tokens: int, *, stream: bool) -> dict[str, object]:
    return {
        "prompt": prompt,
        "n_predict": tokens,
        "temperature": 0,
        "return_tokens": True,
        "cache_prompt": False,
        "stream": stream,
    }


class Request:
    """One request, and what became of it."""

    def __init__(self, kind: str, prompt: str, tokens: int, *, stream: bool) -> None:
        self.kind, self.prompt, self.stream = kind, prompt, stream
        self.body = json.dumps(body(prompt, tokens, stream=stream)).encode()
        self.began = time.time()
        self.first: float | None = None
        self.tokens: list[int] = []
        self.taken = False

    def ask(self, host: str, port: int) -> tuple[str, str]:
        """Outcome and detail: `done`, `refused` (never begun), `lost` (begun, and not finished)."""
        connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
            connection.sock.settimeout(READ_SECONDS)
            self.taken = True
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/completion", self.body, headers)
            answer = connection.getresponse()
            if answer.status != 200:
                told = answer.read(300).decode("utf-8", "replace")
                return "refused" if answer.status in (429, 503) else "lost", told
            if self._read(answer):
                return "done", ""
            return "lost", f"cut off after {len(self.tokens)} tokens"
        except (OSError, http.client.HTTPException, ValueError) as error:
            return "lost" if self.taken else "refused", repr(error)
        finally:
            connection.close()

    def _read(self, answer: http.client.HTTPResponse) -> bool:
        """Reads the answer; whether it came to its end."""
        if not self.stream:
            whole = json.load(answer)
            self._got(whole["tokens"])
            return True
        for line in answer:
            if line.startswith(b"data: "):
                piece = json.loads(line[6:])
                if "error" in piece:
                    return False
                self._got(piece.get("tokens", []))
                if piece.get("stop"):
                    return True
        return False

    def _got(self, tokens: list[int]) -> None:
        if tokens and self.first is None:
            self.first = time.time()
        self.tokens += tokens

    def told(self, outcome: str, detail: str) -> dict[str, object]:
        return {
            "kind": self.kind,
            "began": self.began,
            "first": self.first,
            "ended": time.time(),
            "outcome": outcome,
            "detail": detail,
        }


def right_answers(model_url: str) -> dict[str, list[int]]:
    """What one process says, for each prompt."""
    urllib.request.urlretrieve(model_url, "/tmp/model.gguf")
    server = subprocess.Popen(
        [
            *("llama-server", "-m", "/tmp/model.gguf", "--host", "127.0.0.1"),
            *("--port", str(OWN_PORT), "-c", "2048", "-np", "1", "-t", "1"),
            *("--fit", "off", "--cache-ram", "0"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        answers = {}
        for prompt in PROMPTS:
            while True:
                request = Request("oracle", prompt, TOKENS, stream=False)
                outcome, _ = request.ask("127.0.0.1", OWN_PORT)
                if outcome == "done":
                    break
                if server.poll() is not None:
                    sys.exit("llama-server ended")
                time.sleep(0.2)  # it loads
            answers[prompt] = request.tokens
        return answers
    finally:
        server.kill()
        server.wait()


def say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def load(kind: str, host: str, port: int, right: dict[str, list[int]]) -> None:
    """One client."""
    tokens = 1 if kind == "probe" else TOKENS
    for prompt in itertools.cycle(right):
        request = Request(kind, prompt, tokens, stream=kind == "stream")
        outcome, detail = request.ask(host, port)
        if outcome == "done" and request.tokens != right[prompt][:tokens]:
            outcome = "wrong"
            detail = f"{prompt!r}: {request.tokens} instead of {right[prompt][:tokens]}"
        say(request.told(outcome, detail))
        time.sleep(PAUSE_SECONDS)


def main(model_url: str, api_url: str) -> None:
    api = urllib.parse.urlsplit(api_url)
    right = right_answers(model_url)
    say({"kind": "oracle", "answers": right})
    for kind in ("stream", "stream", "whole", "probe"):
        host, port = str(api.hostname), api.port or 80
        threading.Thread(target=load, args=(kind, host, port, right)).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
