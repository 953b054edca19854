"""What the plug-in relies on of a group's API: a test class for the real one and for the fake."""

from __future__ import annotations

import pytest

from llamacluster.cli.bench import TEXT, Sizes, measured
from llamacluster.cli.chat import answer
from llamacluster.cli.groupapi import GroupApi, Refused


class GroupApiBehaviour:
    """Subclasses give a fixture `api`, of an engine with two slots and no API keys."""

    def test_a_text_is_made_into_tokens(self, api: GroupApi) -> None:
        tokens = api.ask("/tokenize", {"content": TEXT})["tokens"]
        assert len(tokens) > 1
        assert all(isinstance(token, int) for token in tokens)

    def test_a_request_tells_its_own_timings(self, api: GroupApi) -> None:
        asked = {"prompt": [1, 2, 3, 4], "n_predict": 5, "cache_prompt": False, "ignore_eos": True}
        timings = api.ask("/completion", asked)["timings"]
        assert (timings["prompt_n"], timings["predicted_n"]) == (4, 5)
        assert timings["predicted_per_second"] > 0

    def test_it_can_be_measured(self, api: GroupApi) -> None:
        paces = list(measured(api, Sizes(prompt=40, answer=8), [1, 2]))
        assert [pace.streams for pace in paces] == [1, 2]
        assert all(pace.prompt > 0 < pace.decode_each for pace in paces)
        assert all(pace.decode_all > 0 for pace in paces)

    def test_an_answer_comes_in_pieces_and_then_its_pace(self, api: GroupApi) -> None:
        pieces = list(answer(api, [{"role": "user", "content": "Hello"}]))
        kinds = [kind for kind, _ in pieces]
        assert kinds[-1] == "pace"
        assert set(kinds[:-1]) == {"content"}
        assert "tokens/s" in pieces[-1][1]

    def test_a_prompt_beyond_the_context_is_refused_in_words(self, api: GroupApi) -> None:
        with pytest.raises(Refused, match="context"):
            list(answer(api, [{"role": "user", "content": "word " * 2000}]))
