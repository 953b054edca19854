"""What a stored object is refused for, whatever CRD let it through, and what an old status is."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llamacluster.api.status import LlamaClusterStatus
from tests.build import a_plan, llama_cluster


def limited(memory: Any) -> dict[str, Any]:
    return {"resources": {"limits": {"memory": memory}}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workers": {}}, "give workers.count, or workers.resources.limits.memory"),
        ({"workers": {"resources": {"requests": {"memory": "1Gi"}}}}, "give workers.count, or"),
        ({"workers": limited("0")}, "a memory limit of 0 holds nothing"),
        ({"workers": limited(0)}, "a memory limit of 0 holds nothing"),
        ({"workers": {"count": 2, **limited("0.0Gi")}}, "a memory limit of 0 holds nothing"),
        ({"leader": limited("0")}, "a memory limit of 0 holds nothing"),
        ({"workers": limited("4GB")}, "'4GB' is not a quantity"),
        ({"workers": limited("-1")}, "'-1' is not a quantity"),
    ],
)
def test_what_cannot_be_planned_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        llama_cluster(**fields)
    assert message in str(refused.value)


@pytest.mark.parametrize("memory", ["1m", "100", 1, "1e40", "16Gi"])
def test_any_memory_can_be_planned_with(memory: str | int) -> None:
    assert llama_cluster(workers=limited(memory)).spec.workers.count is None


@pytest.mark.parametrize(
    "key",
    [
        "container.apparmor.security.beta.kubernetes.io/leader",
        "seccomp.security.alpha.kubernetes.io/pod",
        "k8s.v1.cni.cncf.io/networks",
    ],
)
def test_no_annotation_takes_a_pod_out_of_its_confinement(key: str) -> None:
    with pytest.raises(ValidationError, match="out of their confinement"):
        llama_cluster(workers={"count": 1, "metadata": {"annotations": {key: "unconfined"}}})


def test_the_status_of_an_operator_without_plans_is_one() -> None:
    assert LlamaClusterStatus.model_validate({"replicas": 1}).plan is None


def test_a_plan_comes_back_from_the_status() -> None:
    plan = a_plan(3, 2)
    stored = plan.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert stored["perWorker"][0] == {
        "firstLayer": 0,
        "lastLayer": 2,
        "layers": 3,
        "weights": "1000Mi",
        "context": "400Mi",
        "compute": "200Mi",
        "memoryLimit": "1900Mi",
    }
    assert type(plan).model_validate({**stored, "ofANewerOperator": 1}) == plan
