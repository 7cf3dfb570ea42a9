"""What a model call is expected to use."""

from __future__ import annotations

from agentos.scheduler.estimate import FIRST_ANSWER, Expected, expect


def test_what_is_known_and_what_has_come_since() -> None:
    """Tokens that the provider has counted are taken over, bytes since then are four to a token, answers are as before."""
    assert expect(known=1000, fresh_bytes=401, answered=90, answers=4, most=4096) == Expected(1101, 23)
    assert expect(known=0, fresh_bytes=8, answered=0, answers=0, most=4096) == Expected(2, FIRST_ANSWER)


def test_an_answer_is_no_longer_than_the_longest() -> None:
    """The estimate of an answer is within what the endpoint gives, and nothing is expected to be free."""
    assert expect(known=0, fresh_bytes=0, answered=9000, answers=1, most=100).output == 100
    assert expect(known=0, fresh_bytes=0, answered=0, answers=3, most=0).total == 1
