"""What the engine image holds besides the engine."""

from __future__ import annotations

import pytest

from tests.kind import docker

pytestmark = [pytest.mark.engine, pytest.mark.beside]

OF_STRANGERS = """
set -eu
own=$(PYTHONNOUSERSITE= python3 -c 'import site; print(site.getusersitepackages())')
mkdir -p "$own"
echo 'import os; os._exit(3)' | tee json.py > "$own/x.pth"
exec llamacluster-agent --help
"""

COUNT_AUTHORITIES = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"


def test_it_trusts_the_public_certificate_authorities(engine_image: str) -> None:
    """Without them no model could be downloaded over https."""
    engine = docker.find_or_start()
    counted = engine.docker(
        "run", "--rm", "--entrypoint=python3", engine_image, "-c", COUNT_AUTHORITIES
    )
    assert int(counted) > 50


def test_no_code_comes_from_the_folder_that_containers_share(engine_image: str) -> None:
    """What the engine's container leaves there would run in the gate's, which has the API's keys,
    when that starts anew."""
    engine = docker.find_or_start()
    run = ("run", "--rm", "--read-only", "--tmpfs", "/tmp:mode=1777", "--entrypoint=sh")
    said = engine.docker(*run, engine_image, "-c", OF_STRANGERS)
    assert said.startswith("usage: llamacluster-agent")
