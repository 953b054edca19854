"""The plan of a LlamaCluster: kept in its status, or taken from an equal one, or made by a Job."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from llamacluster.api.llamacluster import LlamaCluster
from llamacluster.api.plan import Plan
from llamacluster.api.status import LlamaClusterStatus
from llamacluster.controller.conditions import Verdict
from llamacluster.controller.kubeapi import (
    JOBS,
    LEADERWORKERSETS,
    LLAMACLUSTERS,
    PODS,
    ApiError,
    KubeApi,
)
from llamacluster.controller.objects import make_true, read
from llamacluster.controller.planner import Found, answered, planning, told, without_pod
from llamacluster.resources.leaderworkerset import running_plan, runs_this_spec
from llamacluster.resources.metadata import (
    CLUSTER_LABEL,
    JOB_UID_LABEL,
    PLAN_LABEL,
    Manifest,
    plan_job_name,
    plan_selector,
)
from llamacluster.resources.planjob import inputs_hash, plan_job


async def find_plan(
    cluster: LlamaCluster,
    group_set: Manifest | None,
    image: str,
    api: KubeApi,
    now: datetime,
    *,
    upgrading: bool = False,
) -> Found:
    """The plan for the newest spec and `image`, or how far it is. Raises Refused and
    PredecessorRemains."""
    wanted = inputs_hash(cluster, image)
    if known := _kept(cluster, None if upgrading else group_set, wanted):
        found = told(known)
        if not _is_said(cluster.status, found.verdict):
            # The spec has been changed and changed back while another plan was being made.
            await _remove_jobs_but(known.inputs_hash, cluster, api)
        return found
    found = await _made(cluster, image, wanted, api, now)
    if found.plan:
        await _remove_jobs_but(wanted, cluster, api)
    return found


def _kept(cluster: LlamaCluster, group_set: Manifest | None, wanted: str) -> Plan | None:
    """The plan in the status, if it is the one for the newest spec.

    It is that too where the groups of `group_set` run by it and the spec has not changed since, but
    a newer operator would ask for the plan in another way.
    """
    plan = cluster.status.plan
    if plan is None:
        return None
    runs = runs_this_spec(cluster, group_set) and running_plan(group_set) == plan.inputs_hash
    return plan if runs or plan.inputs_hash == wanted else None


async def _shared(cluster: LlamaCluster, wanted: str, api: KubeApi) -> Plan | None:
    """The plan by which an equal LlamaCluster of the namespace runs."""
    namespace = cluster.metadata.namespace
    try:
        # By label, and one: a namespace may have a thousand LlamaClusters.
        equal = await api.list(LEADERWORKERSETS, namespace, f"{PLAN_LABEL}={wanted}", limit=1)
    except ApiError as error:
        if error.status == 404:
            return None  # LeaderWorkerSet is not installed: said when one is to be made
        raise
    for group_set in equal:
        name = group_set["metadata"]["labels"].get(CLUSTER_LABEL)
        other = await api.get(LLAMACLUSTERS, namespace, name) if name else None
        try:
            plan = Plan.model_validate((other or {}).get("status", {}).get("plan"))
        except ValidationError:
            continue
        if plan.inputs_hash == wanted:
            return without_observed(plan)
    return None


def without_observed(plan: Plan) -> Plan:
    """The plan alone, without what was seen of somebody's pods."""
    nothing = {"observed": None}
    return plan.model_copy(
        update={
            "per_worker": [worker.model_copy(update=nothing) for worker in plan.per_worker],
            "leader": plan.leader.model_copy(update=nothing),
        }
    )


async def _made(
    cluster: LlamaCluster, image: str, wanted: str, api: KubeApi, now: datetime
) -> Found:
    """The plan of the Job, which is made if there is neither it nor a plan to share."""
    name = plan_job_name(cluster, wanted)
    job = await read(cluster, api, JOBS, name)
    if job is None:
        if plan := await _shared(cluster, wanted, api):
            return told(plan)
        await make_true(api, JOBS, plan_job(cluster, image), None)
        await _remove_jobs_but(wanted, cluster, api)
        return planning(f"Job {name} plans which worker holds what")
    selector = f"{JOB_UID_LABEL}={job['metadata']['uid']}"
    pods = await api.list(PODS, cluster.metadata.namespace, selector)
    if not pods:
        if job.get("status", {}).get("completionTime"):
            # Its pod went, with a node for example, before its answer was read.
            await api.delete(JOBS, cluster.metadata.namespace, name)
        return without_pod(job, now)
    return answered(cluster, wanted, pods)


async def _remove_jobs_but(wanted: str, cluster: LlamaCluster, api: KubeApi) -> None:
    """Delete the Jobs of former specs, which may be trying for ever."""
    namespace, kept = cluster.metadata.namespace, plan_job_name(cluster, wanted)
    selector = ",".join(f"{key}={value}" for key, value in plan_selector(cluster).items())
    for job in await api.list(JOBS, namespace, selector):
        if job["metadata"]["name"] != kept:
            await api.delete(JOBS, namespace, job["metadata"]["name"])


def _is_said(status: LlamaClusterStatus, verdict: Verdict) -> bool:
    """Whether the status has said this before."""
    return any(c.type == "Planned" and c.reason == verdict.reason for c in status.conditions)
