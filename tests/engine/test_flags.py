"""No flag of the image's own llama-server escapes the rules for `inference.extraArgs`."""

from __future__ import annotations

import re

import pytest

from llamacluster.api.engineflags import REFUSED_FLAGS
from tests.kind import docker

pytestmark = [pytest.mark.engine, pytest.mark.beside]

_ALIASES = re.compile(r"(?:--?[A-Za-z0-9][\w.-]*,\s+)*--?[A-Za-z0-9][\w.-]*(?=\s|$)")

# One spelling of each flag that extraArgs may hold. It was looked at: it changes answers or speed,
# or memory that the plan counts, because the planner's engine is given it too.
_LOOKED_AT = """
--cpu-mask --cpu-range --cpu-strict --prio --poll --cpu-mask-batch --cpu-range-batch
--cpu-strict-batch --prio-batch --poll-batch --numa --predict --keep --swa-full --flash-attn
--perf --escape --rope-scaling --rope-scale --rope-freq-base --rope-freq-scale --yarn-orig-ctx
--yarn-ext-factor --yarn-attn-factor --yarn-beta-slow --yarn-beta-fast --repack --no-host
--defrag-thold --load-mode --lazy-mode --check-tensors --override-kv --op-offload
--lora-init-without-apply --control-vector --control-vector-scaled
--control-vector-layer-range --offline --spec-draft-type-k --spec-draft-type-v --samplers --seed
--sampler-seq --ignore-eos --temp --top-k --top-p --min-p --top-nsigma --xtc-probability
--xtc-threshold --typical --repeat-last-n --repeat-penalty --presence-penalty
--frequency-penalty --dry-multiplier --dry-base --dry-allowed-length --dry-penalty-last-n
--dry-sequence-breaker --adaptive-target --adaptive-decay --dynatemp-range --dynatemp-exp
--mirostat --mirostat-lr --mirostat-ent --logit-bias --grammar --json-schema
--backend-sampling --spec-draft-threads --spec-draft-threads-batch
--spec-draft-cpu-mask --spec-draft-cpu-range --spec-draft-cpu-strict --spec-draft-prio
--spec-draft-poll --spec-draft-cpu-mask-batch --spec-draft-cpu-strict-batch
--spec-draft-prio-batch --spec-draft-poll-batch --spec-draft-n-max --spec-draft-n-min
--spec-draft-n-ubatch --spec-synth-len --spec-synth-rates --spec-draft-p-split
--spec-draft-p-min --spec-draft-backend-sampling --spec-draft-sampling --spec-type
--spec-ngram-mod-n-min --spec-ngram-mod-n-max --spec-ngram-mod-n-match
--spec-ngram-simple-size-n --spec-ngram-simple-size-m --spec-ngram-simple-min-hits
--spec-ngram-map-k-size-n --spec-ngram-map-k-size-m --spec-ngram-map-k-min-hits
--spec-ngram-map-k4v-size-n --spec-ngram-map-k4v-size-m --spec-ngram-map-k4v-min-hits --draft
--draft-min --spec-ngram-size-n --spec-ngram-size-m --spec-ngram-min-hits --spec-default
--ctx-checkpoints --checkpoint-min-step
--kv-unified --cache-idle-slots --context-shift --reverse-prompt --special --warmup
--spm-infill --pooling --cont-batching --mmproj-auto --mmproj-offload
--image-min-tokens --image-max-tokens --mtmd-batch-max-tokens --video-fps
--video-timestamp-interval --tags --embd-normalize --cors-origins --cors-methods --cors-headers
--cors-credentials --ui-config --ui --rerank --chat-template-kwargs --timeout
--sse-ping-interval --cache-prompt --cache-reuse --slots --jinja --reasoning-format --reasoning
--reasoning-effort --reasoning-budget --reasoning-budget-message --reasoning-preserve
--skip-chat-parsing --prefill-assistant --slot-prompt-similarity
"""
HARMLESS = frozenset(_LOOKED_AT.split())


@pytest.fixture(scope="module")
def flags(engine_image: str) -> list[set[str]]:
    """The spellings of each flag, as the engine says itself."""
    told = docker.find_or_start().docker(
        "run", "--rm", "--entrypoint=llama-server", engine_image, "--help"
    )
    found = (_ALIASES.match(line) for line in told.splitlines() if not line.startswith("-----"))
    return [set(re.split(r",\s+", aliases[0])) for aliases in found if aliases]


def test_each_flag_is_refused_or_known_to_do_no_harm(flags: list[set[str]]) -> None:
    """A newer engine brings new flags: somebody has to look at them."""
    assert len(flags) > 200
    unknown = [names for names in flags if not names & (HARMLESS | REFUSED_FLAGS.keys())]
    assert unknown == []


def test_each_spelling_of_a_refused_flag_is_refused(flags: list[set[str]]) -> None:
    escaping = [names - REFUSED_FLAGS.keys() for names in flags if names & REFUSED_FLAGS.keys()]
    assert [names for names in escaping if names] == []


def test_no_flag_of_this_list_is_refused() -> None:
    assert HARMLESS & REFUSED_FLAGS.keys() == set()
