"""Commands that the tests run beside themselves."""

from __future__ import annotations

from threading import Event

from tests.kind.command import listening_to


def test_a_command_is_listened_to_until_the_block_ends() -> None:
    said: list[str] = []
    heard = Event()

    def hear(line: str) -> None:
        said.append(line)
        if line == "two":
            heard.set()

    with listening_to(
        ["sh", "-c", "echo $WORD; echo two; exec sleep 600"], hear, env={"WORD": "one"}
    ):
        assert heard.wait(20)
    assert said == ["one", "two"]
