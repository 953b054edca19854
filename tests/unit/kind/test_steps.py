import io
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kind.command import CommandFailed
from tests.kind.steps import Lines, Step, elapsed, step


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def lines(out: io.StringIO, clock: Callable[[], float]) -> Lines:
    return Lines(Step("Build", Path("build.log")), out, clock, width=lambda: 30)


def test_a_step_leaves_one_line_with_its_time() -> None:
    out, clock = io.StringIO(), Clock()
    with step("Build", out=out, clock=clock):
        clock.now += 75
    assert out.getvalue() == "    ok Build (75 s)\n"


def test_a_note_stands_behind_the_time() -> None:
    out = io.StringIO()
    with step("Image", out=out, clock=Clock()) as now:
        now.note = "334 MB"
    assert out.getvalue() == "    ok Image (0.0 s): 334 MB\n"


def test_a_long_step_in_a_log_says_at_least_once_a_minute_what_it_does() -> None:
    out, clock = io.StringIO(), Clock()
    shown = lines(out, clock)
    shown.step.doing("compiling the kubelet")
    for _ in range(240):
        clock.now += 0.5
        shown.tick()
    assert out.getvalue().splitlines() == [
        "  ...  Build (45 s): compiling the kubelet",
        "  ...  Build (90 s): compiling the kubelet",
    ]


def test_a_terminal_shows_progress_in_place_within_its_width() -> None:
    out, clock = Terminal(), Clock()
    shown = lines(out, clock)
    shown.step.doing("compiling the kubelet")
    clock.now += 1
    shown.tick()
    shown.end("ok")
    in_place, lasting = out.getvalue().split("\r\x1b[2K")[1:]
    assert in_place == "  ...  Build (1.0 s): compiling the kubelet"[:29]
    assert lasting == "    ok Build (1.0 s)\n"


def test_a_failure_says_which_step_what_was_seen_where_the_rest_is_and_what_to_do() -> None:
    out = io.StringIO()
    with (
        pytest.raises(CommandFailed),
        step("Build", "free some disk", out=out, clock=Clock()) as now,
    ):
        now.run(["sh", "-c", "echo no space left >&2; exit 3"])
    text = out.getvalue()
    assert text.startswith("FAILED Build (0.0 s)\n")
    assert "exit code 3" in text
    assert "no space left" in text
    assert f"All of it: {now.log}" in text
    assert "What to do: free some disk" in text
    assert "no space left" in now.log.read_text()


def test_an_error_that_passes_two_steps_is_told_once() -> None:
    out = io.StringIO()
    with (
        pytest.raises(ValueError, match="the inner one"),
        step("Outer", out=out, clock=Clock()),
        step("Inner", out=out, clock=Clock()),
    ):
        raise ValueError("the inner one")
    assert out.getvalue().count("the inner one") == 1
    assert "FAILED Inner" in out.getvalue()
    assert "FAILED Outer" in out.getvalue()


def test_an_interrupted_step_says_how_to_go_on() -> None:
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), step("Build", out=out, clock=Clock()):
        raise KeyboardInterrupt
    assert out.getvalue() == (
        "  STOP Build (0.0 s): interrupted; run the same command again to go on\n"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (12.4, "12 s"), (119, "119 s"), (150, "2 min 30 s")],
)
def test_times_read_as_people_say_them(seconds: float, text: str) -> None:
    assert elapsed(seconds) == text
