"""The command line of a llama-server in somebody's manifest."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

PROGRAMS = ("llama-server", "llamacpp-leader", "server")
"""The last but one is the leader's wrapper in LeaderWorkerSet's example, whose arguments for
llama-server stand after `--`."""
_SHELLS = ("sh", "bash", "ash")
_VARIABLE = re.compile(r"\$\((\w+)\)|\$\{(\w+)\}|\$(\w+)")

NAMES: dict[str, tuple[str, ...]] = {
    "model": ("-m", "--model", "LLAMA_ARG_MODEL", "LLM_MODEL"),
    "model-url": ("-mu", "--model-url", "LLAMA_ARG_MODEL_URL"),
    "hf-repo": ("-hf", "-hfr", "--hf-repo", "LLAMA_ARG_HF_REPO"),
    "hf-file": ("-hff", "--hf-file", "LLAMA_ARG_HF_FILE"),
    "hf-token": ("-hft", "--hf-token", "HF_TOKEN"),
    "ctx-size": ("-c", "--ctx-size", "LLAMA_ARG_CTX_SIZE"),
    "parallel": ("-np", "--parallel", "LLAMA_ARG_N_PARALLEL"),
    "batch-size": ("-b", "--batch-size", "LLAMA_ARG_BATCH"),
    "ubatch-size": ("-ub", "--ubatch-size", "LLAMA_ARG_UBATCH"),
    "cache-type-k": ("-ctk", "--cache-type-k", "LLAMA_ARG_CACHE_TYPE_K"),
    "cache-type-v": ("-ctv", "--cache-type-v", "LLAMA_ARG_CACHE_TYPE_V"),
    "threads": ("-t", "--threads", "LLAMA_ARG_THREADS"),
    "embeddings": ("--embedding", "--embeddings", "LLAMA_ARG_EMBEDDINGS"),
    "chat-template": ("--chat-template", "LLAMA_ARG_CHAT_TEMPLATE"),
    "host": ("--host", "LLAMA_ARG_HOST"),
    "port": ("--port", "LLAMA_ARG_PORT"),
    "rpc": ("--rpc", "--rpc-servers", "LLAMA_ARG_RPC"),
    "api-key": ("--api-key", "LLAMA_API_KEY"),
    "api-key-file": ("--api-key-file", "LLAMA_ARG_API_KEY_FILE"),
    "ssl-cert-file": ("--ssl-cert-file", "LLAMA_ARG_SSL_CERT_FILE"),
    "ssl-key-file": ("--ssl-key-file", "LLAMA_ARG_SSL_KEY_FILE"),
}
"""What has a place of its own in a LlamaCluster, with the flags and environment variables that it
goes by."""
_MEANING = {name: meaning for meaning, names in NAMES.items() for name in names}


def arguments(command: Sequence[str], args: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """The arguments for llama-server in a container's command and args, with the variables of `env`
    filled in."""
    words = [*command, *args]
    if command and command[0].rpartition("/")[2] in _SHELLS:
        words = _of_script(words[-1])
    words = [_filled(word, env) for word in words]
    for index, word in enumerate(words):
        if word.rpartition("/")[2] in PROGRAMS:
            words = words[index + 1 :]
            return words[words.index("--") + 1 :] if "--" in words else words
    return words[1:] if words[:1] in (["--server"], ["-s"]) else words  # images with all programs


def _of_script(script: str) -> list[str]:
    """The words of the command of a shell script that starts the server."""
    try:
        lexer = shlex.shlex(script.replace("\\\n", " "), posix=True, punctuation_chars=";&|\n")
        lexer.whitespace = " \t\r"
        lexer.whitespace_split = True
        lexer.commenters = "#"
        words = list(lexer)
    except ValueError:
        return []
    command: list[str] = []
    for word in [*words, ";"]:
        if set(word) <= set(";&|\n"):
            if any(each.rpartition("/")[2] in PROGRAMS for each in command):
                return command
            command = []
        else:
            command.append(word)
    return []


def _filled(word: str, env: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2] or found[3]
        return env.get(name, found[0])

    return _VARIABLE.sub(value, word)


def flags(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each flag with its value, None for one that has none. llama-server takes nothing else."""
    rest = list(words)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("-"):
            continue
        flag, equals, value = flag.partition("=")
        if equals:
            yield flag, value
        elif rest and not _is_flag(rest[0]):
            yield flag, rest.pop(0)
        else:
            yield flag, None


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not re.fullmatch(r"-\d+(\.\d+)?(,.*)?", word)


def meaning(name: str) -> str | None:
    """The key of NAMES that a flag or an environment variable has; None for others. The engine
    takes `--ctx_size` for `--ctx-size`."""
    return _MEANING.get(name.replace("_", "-") if name.startswith("-") else name)
