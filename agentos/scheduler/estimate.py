"""What a model call is expected to use, before it is made. The estimate is charged when it goes out and corrected when it ends.

The last reply says how long the conversation was; what has come since is counted by its bytes, and the answer is taken to be as
long as answers of the session are on average.

>>> expect(known=1200, fresh_bytes=400, answered=300, answers=2, most=4096)
Expected(input=1300, output=150)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BYTES_PER_TOKEN: Final = 4
"""About what tokens of text are; off by a factor of two either way for other languages and for JSON."""

FIRST_ANSWER: Final = 400
"""Tokens of an answer while the session has none to go by."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Tokens of the request and of its answer."""

    input: int
    output: int

    @property
    def total(self) -> int:
        """What is charged; at least one, so that nothing goes out for free."""
        return max(1, self.input + self.output)


def expect(*, known: int, fresh_bytes: int, answered: int, answers: int, most: int) -> Expected:
    """`known` tokens were counted by the provider at the last reply, itself among them; `fresh_bytes` have come since.

    `answered` tokens were in `answers` replies so far; `most` is the longest answer that the endpoint gives.
    """
    usual = -(-answered // answers) if answers else FIRST_ANSWER
    return Expected(known + tokens_of(fresh_bytes), min(max(usual, 1), most))


def tokens_of(size: int) -> int:
    """Tokens of so many bytes of text, rounded up."""
    return -(-size // BYTES_PER_TOKEN)
