"""The laws of the chaos suite see what breaks them, and nothing else."""

from __future__ import annotations

from tests.chaos.laws import Answer, Span, first_law, second_law, third_law


def answer(at: float, outcome: str = "done", kind: str = "probe", *, token: bool = True) -> Answer:
    return Answer(kind, at - 0.5, at if token else None, at, outcome, "what was said")


def test_only_a_completed_answer_can_be_wrong() -> None:
    assert not first_law([answer(1), answer(2, "lost"), answer(3, "refused")])
    assert first_law([answer(1), answer(2, "wrong", "stream")]) == [
        "law 1: a completed answer is not the oracle's: what was said"
    ]


def test_a_ready_group_that_gives_tokens_breaks_nothing() -> None:
    assert not second_law([answer(at) for at in range(0, 100, 10)], [Span(0, 100)], Span(0, 95), 15)


def test_ready_without_a_token_for_too_long_breaks_the_second_law() -> None:
    [told] = second_law([answer(10), answer(30)], [Span(0, 100)], Span(0, 31), 15)
    assert told.startswith("law 2: Ready for 20.0 s without a token")


def test_tokens_of_other_clients_are_no_answer_to_the_probe() -> None:
    answers = [answer(10), answer(20, kind="stream"), answer(30)]
    assert second_law(answers, [Span(0, 100)], Span(0, 31), 15)


def test_a_silence_that_goes_on_counts_up_to_now() -> None:
    assert second_law(
        [answer(10), answer(20, "lost", token=False)], [Span(0, 100)], Span(0, 30), 15
    )


def test_a_silence_that_begins_with_the_fault_counts() -> None:
    assert second_law([answer(5), answer(60)], [Span(0, 100)], Span(10, 61), 15)
    assert second_law([answer(60, "lost", token=False)], [Span(0, 100)], Span(0, 100), 15)


def test_silence_of_a_group_that_is_not_ready_breaks_nothing() -> None:
    ready = [Span(0, 12), Span(60, 100)]
    assert not second_law([answer(10), answer(61)], ready, Span(0, 62), 15)


def test_two_short_times_of_being_ready_are_not_one_long() -> None:
    ready = [Span(0, 20), Span(40, 60)]
    assert not second_law([answer(10), answer(52)], ready, Span(0, 53), 15)


def test_the_third_law_names_the_fault_and_the_time() -> None:
    assert not third_law("a cut", 29.0, 30)
    assert third_law("a cut", 31.0, 30) == [
        "law 3: a cut: Ready again after 31.0 s, and 30 s are the most"
    ]
    assert third_law("a cut", None, 30) == ["law 3: a cut: not Ready again, and 30 s are the most"]
