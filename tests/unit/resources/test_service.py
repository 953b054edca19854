"""The Service of the API."""

from __future__ import annotations

import pytest

from llamacluster.resources.metadata import labels, leader_selector
from llamacluster.resources.service import endpoint, service
from tests.build import UID, llama_cluster


def test_it_has_the_clusters_name_and_selects_the_leaders() -> None:
    made = service(llama_cluster("gemma"))
    assert made["metadata"]["name"] == "gemma"
    assert made["metadata"]["labels"] == labels(llama_cluster("gemma"))
    assert made["metadata"]["ownerReferences"][0]["uid"] == UID
    assert made["spec"]["selector"] == leader_selector(llama_cluster("gemma"))


def test_the_port_is_the_specs_and_goes_to_the_leaders_named_port() -> None:
    [port] = service(llama_cluster(server={"port": 9000}))["spec"]["ports"]
    assert (port["port"], port["targetPort"], port["protocol"]) == (9000, "http", "TCP")


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort", "LoadBalancer"])
def test_its_type_is_the_users(kind: str) -> None:
    assert service(llama_cluster(server={"service": {"type": kind}}))["spec"]["type"] == kind


def test_it_has_the_users_annotations() -> None:
    annotations = {"cloud.example/internal": "true"}
    made = service(llama_cluster(server={"service": {"annotations": annotations}}))
    assert made["metadata"]["annotations"] == annotations
    assert "annotations" not in service(llama_cluster())["metadata"]


def test_the_endpoint_is_the_services_address() -> None:
    assert endpoint(llama_cluster("gemma", "llm")) == "http://gemma.llm.svc:8080/v1"
    assert endpoint(llama_cluster(server={"port": 9000})) == "http://x.ns.svc:9000/v1"


def test_with_a_certificate_it_is_https() -> None:
    cluster = llama_cluster(server={"tlsSecret": {"name": "y"}})
    assert endpoint(cluster) == "https://x.ns.svc:8080/v1"
    assert service(cluster)["spec"]["ports"][0]["appProtocol"] == "https"
    assert service(llama_cluster())["spec"]["ports"][0]["appProtocol"] == "http"
