"""kopf as a watcher only, and what of its events is news."""

from __future__ import annotations

import pytest
from kubernetes.aio.client import Configuration

from llamacluster.controller.operator import (
    Known,
    Options,
    connection_info,
    is_news,
    settings,
)
from tests.build import IMAGE


def test_a_new_generation_is_news_and_a_new_status_is_not() -> None:
    known: Known = {}
    assert is_news(known, "ns/x", ("u-1", 1))
    assert not is_news(known, "ns/x", ("u-1", 1))
    assert is_news(known, "ns/x", ("u-1", 2))


def test_a_cluster_made_again_under_its_name_is_news() -> None:
    known: Known = {}
    is_news(known, "ns/x", ("u-1", 1))
    assert is_news(known, "ns/x", ("u-2", 1))
    assert is_news(known, "other/x", ("u-1", 1))


def test_kopf_writes_no_events() -> None:
    assert settings(Options(IMAGE)).posting.enabled is False


@pytest.mark.parametrize(("namespaces", "disabled"), [((), False), (("a",), True)])
def test_crds_are_watched_only_with_rights_in_all_namespaces(
    namespaces: tuple[str, ...], disabled: bool
) -> None:
    assert settings(Options(IMAGE, namespaces)).scanning.disabled is disabled


async def test_kopf_speaks_as_the_same_user_as_the_client() -> None:
    configuration = Configuration()
    configuration.host = "https://server"
    configuration.ssl_ca_cert = "ca"
    configuration.api_key = {"BearerToken": "Bearer secret"}
    info = await connection_info(configuration)
    assert (info.server, info.ca_path) == ("https://server", "ca")
    assert (info.scheme, info.token) == ("Bearer", "secret")


async def test_kopf_may_speak_by_certificate() -> None:
    configuration = Configuration()
    configuration.host = "https://server"
    configuration.cert_file, configuration.key_file = "cert", "key"
    info = await connection_info(configuration)
    assert (info.certificate_path, info.private_key_path) == ("cert", "key")
    assert info.token is None
