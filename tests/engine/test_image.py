"""What the engine image holds besides the engine."""

from __future__ import annotations

import pytest

from tests.kind import docker

pytestmark = [pytest.mark.engine, pytest.mark.beside]

COUNT_AUTHORITIES = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"


def test_it_trusts_the_public_certificate_authorities(engine_image: str) -> None:
    """Without them no model could be downloaded over https."""
    engine = docker.find_or_start()
    counted = engine.docker(
        "run", "--rm", "--entrypoint=python3", engine_image, "-c", COUNT_AUTHORITIES
    )
    assert int(counted) > 50
