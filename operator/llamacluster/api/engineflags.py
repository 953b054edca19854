"""Arguments of llama-server that `inference.extraArgs` must not hold, and why.

They are the last word to the engine: a second `--ctx-size` would win silently over the plan's. The
lists have every spelling of llama.cpp 0.7 and those of releases before it. An engine test holds
them to the `--help` of the image: each flag there must be either here or known to do no harm.
"""

from __future__ import annotations

from llamacluster.api.schema import Rule

_REFUSED: dict[str, tuple[str, ...]] = {
    "the operator sets it from the plan and from other fields of the spec": (
        *("--rpc", "--device", "-dev", "--model", "-m", "--alias", "-a"),
        *("--fit", "-fit", "--fit-target", "-fitt", "--fit-ctx", "-fitc"),
        *("--n-gpu-layers", "--gpu-layers", "-ngl", "--split-mode", "-sm"),
        *("--tensor-split", "-ts", "--main-gpu", "-mg", "--override-tensor", "-ot"),
        *("--cpu-moe", "-cmoe", "--n-cpu-moe", "-ncmoe", "--moe-cache-mib"),
        *("--n-cpu-ffn", "-ncffn", "--mmproj-device", "-mmdev"),
        *("--kv-offload", "-kvo", "--no-kv-offload", "-nkvo"),
        *("--ctx-size", "-c", "--parallel", "-np", "--kv-unified-per-slot"),
        *("--batch-size", "-b", "--ubatch-size", "-ub"),
        *("--cache-type-k", "-ctk", "--cache-type-v", "-ctv", "--cache-ram", "-cram"),
        *("--threads", "-t", "--threads-batch", "-tb", "--threads-http"),
        *("--embedding", "--embeddings", "--chat-template"),
    ),
    "the plan does not count the memory of what it loads": (
        *("--mmproj", "-mm", "--lora", "--lora-scaled"),
    ),
    "the plan does not count the memory of a draft model": (
        *("--spec-draft-model", "-md", "--model-draft"),
        *("--spec-draft-device", "-devd", "--device-draft"),
        *("--spec-draft-ngl", "-ngld", "--gpu-layers-draft", "--n-gpu-layers-draft"),
        *("--spec-draft-override-tensor", "-otd", "--override-tensor-draft"),
        *("--spec-draft-cpu-moe", "-cmoed", "--cpu-moe-draft", "--spec-draft-n-cpu-moe"),
        *("--spec-draft-ncmoe", "-ncmoed", "--n-cpu-moe-draft"),
    ),
    "the engine must not download anything by itself; models come from model.uri": (
        *("--model-url", "-mu", "--docker-repo", "-dr", "--mmproj-url", "-mmu"),
        *("--hf-repo", "-hf", "-hfr", "--hf-file", "-hff", "--hf-token", "-hft"),
        *("--hf-repo-v", "-hfv", "-hfrv", "--hf-file-v", "-hffv"),
        *("--spec-draft-hf", "-hfd", "-hfrd", "--hf-repo-draft"),
        *("--embd-gemma-default", "--fim-qwen-1.5b-default", "--fim-qwen-3b-default"),
        *("--fim-qwen-7b-default", "--fim-qwen-7b-spec", "--fim-qwen-14b-spec"),
        *("--fim-qwen-30b-default", "--gpt-oss-20b-default", "--gpt-oss-120b-default"),
        *("--vision-gemma-4b-default", "--vision-gemma-12b-default"),
        *("--models-dir", "--models-preset", "--models-max"),
        *("--models-autoload", "--no-models-autoload"),
    ),
    "it would let the API's clients run commands, reach other servers, or read and write files": (
        *("--tools", "--tools-runtime", "--mcp-servers-config", "--mcp-servers-json"),
        *("--agent", "-ag", "--no-agent", "-no-ag", "--ui-mcp-proxy", "--no-ui-mcp-proxy"),
        *("--webui-mcp-proxy", "--no-webui-mcp-proxy", "--video-ffmpeg-dir", "--props"),
        *("--path", "--media-path", "--slot-save-path", "--log-prompts-dir"),
        # Files of the leader's container, its secrets among them, which clients could ask back.
        *("--chat-template-file", "--grammar-file", "--json-schema-file", "-jf"),
        *("--ui-config-file", "--webui-config-file"),
        *("--lookup-cache-static", "-lcs", "--lookup-cache-dynamic", "-lcd"),
    ),
    "the gate and the agent talk to the engine in their own way": (
        *("--host", "--port", "--reuse-port", "--api-prefix", "--metrics"),
        *("--api-key", "--api-key-file", "--ssl-key-file", "--ssl-cert-file"),
    ),
    "a model that is unloaded while idle is not Ready": ("--sleep-idle-seconds",),
    "the agent reads the engine's log": (
        *("--log-disable", "--log-file", "--log-jsonl", "--no-log-jsonl", "--log-colors"),
        *("--log-prefix", "--no-log-prefix", "--log-timestamps", "--no-log-timestamps"),
        *("--log-verbosity", "-lv", "--verbosity", "-v", "--verbose", "--log-verbose"),
    ),
    "the engine would print something and end": (
        *("--help", "-h", "--usage", "--version", "--cache-list", "-cl"),
        *("--completion-bash", "--list-devices"),
    ),
}

REFUSED_FLAGS = {flag: why for why, flags in _REFUSED.items() for flag in flags}
"""Why, by flag."""


def refusal(argument: str) -> str | None:
    """Why extraArgs must not hold `argument`, in words that name it; None if it may.

    The engine takes `--ctx_size` for `--ctx-size`. It takes no `--ctx-size=4096`, but a later one
    may.
    """
    flag = argument.partition("=")[0]
    why = REFUSED_FLAGS.get(flag.replace("_", "-"))
    return why and f"{flag} is refused: {why}"


RULES = [
    Rule(
        "!(self.split('=')[0].replace('_', '-') in ["
        + ", ".join(f"'{flag}'" for flag in flags)
        + "])",
        f"refused: {why}",
        message_expression=f"self.split('=')[0] + \" is refused: {why}\"",
    )
    for why, flags in _REFUSED.items()
]
"""`refusal` as rules of the CRD, of each argument."""
