"""What is applied arrives as it was written."""

from __future__ import annotations

import json

import pytest
import yaml

from llamacluster.controller.kubeapi import as_yaml

ODD = [
    *("💥", "é", "a\u202eb", "\x1b[2J", "\x7f\x85\x9f", "\u2028", "\ufeff", "\uffff"),
    *("\\ud83d", '"\\'),
]


@pytest.mark.parametrize("text", ODD)
def test_any_text_is_the_same_as_yaml_and_as_json(text: str) -> None:
    written = as_yaml({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert yaml.safe_load(written) == {text: [text]}
