"""What tells the operator whether LeaderWorkerSet is there may be read without any right."""

from __future__ import annotations

import json

import pytest

from llamacluster.controller.kubeapi import KubeApi
from llamacluster.controller.lws import RESOURCES, SCHEMAS, LeaderWorkerSetLookout
from tests.kind.cluster import Cluster

pytestmark = pytest.mark.cluster


async def test_the_real_one_is_there_and_new_enough(api: KubeApi) -> None:
    lookout = LeaderWorkerSetLookout(api)
    await lookout.look()
    assert lookout.problem is None


async def test_its_schema_says_so(api: KubeApi) -> None:
    schemas = (await api.get_raw(SCHEMAS, 30))["components"]["schemas"]
    [found] = [name for name in schemas if name.endswith(".LeaderWorkerSet")]
    assert "observedGeneration" in schemas[found]["properties"]["status"]["properties"]


@pytest.mark.parametrize("path", [RESOURCES, SCHEMAS])
def test_any_service_account_may_read_it(api_server: Cluster, path: str) -> None:
    nobody = ("--as=system:serviceaccount:default:nobody", "--as-group=system:authenticated")
    assert json.loads(api_server.kubectl("get", "--raw", path, *nobody))
