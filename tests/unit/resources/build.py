"""Hypothesis strategies of LlamaClusters, over all fields that the builders read."""

from __future__ import annotations

from hypothesis import strategies as st

from llamacluster.api.engineflags import refusal
from llamacluster.api.llamacluster import LlamaCluster
from tests.build import llama_cluster

arguments = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=12),
    st.text("$()aX-", min_size=1, max_size=8),
    st.sampled_from(["$(HOME)", "$$(HOME)", "a$$b", "--", "-", "--temp", "'", '"']),
).filter(lambda argument: refusal(argument) is None)
"""What people may write into arguments; among it what Kubernetes or a shell would expand."""
labels = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True),
    st.sampled_from(["", "v"]),
    max_size=3,
)
quantities = st.sampled_from([1, "1", "500m", "1.5Gi", "2e9"])
resources = st.fixed_dictionaries({}, optional={
    "limits": st.dictionaries(st.sampled_from(["cpu", "memory"]), quantities),
    "requests": st.dictionaries(st.sampled_from(["cpu", "memory"]), quantities),
})  # fmt: skip
pod_settings = {
    "resources": resources,
    "threads": st.integers(1, 64),
    "nodeSelector": labels,
    "tolerations": st.lists(st.sampled_from([{"operator": "Exists"}, {"key": "a", "value": "b"}])),
    "affinity": st.sampled_from([{}, {"nodeAffinity": {}}]),
    "topologySpreadConstraints": st.lists(
        st.just({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}),
        max_size=1,
    ),
    "priorityClassName": st.just("high"),
    "metadata": st.fixed_dictionaries({}, optional={"labels": labels, "annotations": labels}),
}
models = st.one_of(
    st.fixed_dictionaries(
        {"uri": st.sampled_from(["http://h/m.gguf", "https://h/a/m.gguf?x=$(Y)"])},
        optional={
            "sha256": st.just("a" * 64),
            "storage": st.fixed_dictionaries({"size": quantities}),
        },
    ),
    st.fixed_dictionaries(
        {"uri": st.sampled_from(["https://h/m.gguf", "hf://o/r/m.gguf@v1"])},
        optional={"credentialsSecret": st.just({"name": "hub"})},
    ),
    st.fixed_dictionaries({"uri": st.sampled_from(["pvc://c/m.gguf", "file:///m.gguf"])}),
)
inferences = st.fixed_dictionaries({}, optional={
    "contextSize": st.integers(32, 1 << 20),
    "parallel": st.integers(1, 256),
    "batchSize": st.integers(512, 4096),
    "ubatchSize": st.integers(1, 512),
    "cacheTypeK": st.sampled_from(["f16", "q8_0"]),
    "embeddings": st.booleans(),
    "chatTemplate": st.just("chatml"),
    "extraArgs": st.lists(arguments, max_size=4),
})  # fmt: skip
clusters: st.SearchStrategy[LlamaCluster] = st.fixed_dictionaries(
    {
        "model": models,
        "workers": st.one_of(
            st.fixed_dictionaries({"count": st.integers(1, 15)}, optional=pod_settings),
            st.just({"resources": {"limits": {"cpu": "500m", "memory": "1.5Gi"}}}),
        ),
    },
    optional={
        "replicas": st.integers(0, 10),
        "leader": st.fixed_dictionaries({}, optional=pod_settings),
        "inference": inferences,
        "image": st.just("registry.example/engine:2"),
        "imagePullPolicy": st.sampled_from(["Always", "Never"]),
        "imagePullSecrets": st.just([{"name": "a"}]),
        "rpc": st.just({"encryption": True}),
    },
).map(lambda spec: llama_cluster(**spec))
