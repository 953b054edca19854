"""What is applied arrives as it was written."""

from __future__ import annotations

import json

import pytest
import yaml
from aiohttp import web
from kubernetes.aio.client import Configuration

from llamacluster.controller.kubeapi import PODS, ApiError, as_yaml, connect
from llamacluster.controller.lws import RESOURCES

ODD = [
    *("💥", "é", "a\u202eb", "\x1b[2J", "\x7f\x85\x9f", "\u2028", "\ufeff", "\uffff"),
    *("\\ud83d", '"\\'),
]


@pytest.mark.parametrize("text", ODD)
def test_any_text_is_the_same_as_yaml_and_as_json(text: str) -> None:
    written = as_yaml({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert yaml.safe_load(written) == {text: [text]}


async def test_every_answer_is_counted_and_a_refusal_is_the_servers_own_sentence() -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path == RESOURCES:
            return web.json_response({"resources": []})
        return web.json_response({"message": "not for you"}, status=403)

    server = web.Server(answer)
    runner = web.ServerRunner(server)
    await runner.setup()
    counted: list[tuple[str, str, int]] = []
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with connect(Configuration(host), lambda *one: counted.append(one)) as api:
            assert await api.get_raw(RESOURCES, 5) == {"resources": []}
            with pytest.raises(ApiError, match="403: not for you"):
                await api.list(PODS, "ns", "a=b")
    finally:
        await runner.cleanup()
    assert counted == [("get", RESOURCES, 200), ("list", "pods", 403)]
