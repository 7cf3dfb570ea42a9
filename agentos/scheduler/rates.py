"""A rate over time as a token bucket in whole numbers: so many a minute, at most a minute's worth at once.

bucket = Bucket(per_minute=60)
bucket.has(1, now_ms=0)                                      # True
bucket.take(1, now_ms=0)
bucket.when(60, now_ms=0)                                    # 1000: the millisecond in which 60 would be there
"""

from __future__ import annotations

from typing import Final

MINUTE_MS: Final = 60_000


class Bucket:
    """What is left of a rate. It may fall below zero, as what a call uses is known only afterwards; then all wait until it is
    made good.
    """

    def __init__(self, per_minute: int, *, now_ms: int = 0) -> None:
        """Full at `now_ms`. Raises ValueError for a rate below one a minute."""
        if per_minute < 1:
            raise ValueError("a rate is at least one a minute")
        self.per_minute = per_minute
        # In units of 1/60,000: each millisecond adds `per_minute` of them.
        self._level = per_minute * MINUTE_MS
        self._at_ms = now_ms

    def change(self, per_minute: int, now_ms: int) -> None:
        """Another rate from now on; what is there stays, at most a minute's worth of the new one."""
        self._fill(now_ms)
        self.per_minute, self._level = per_minute, min(self._level, per_minute * MINUTE_MS)

    def level(self, now_ms: int) -> int:
        """How much is there, rounded down."""
        self._fill(now_ms)
        return self._level // MINUTE_MS

    def has(self, amount: int, now_ms: int) -> bool:
        """Whether `amount` may be taken: it is there; or, being more than a minute's worth, finds the bucket full."""
        return self.when(amount, now_ms) <= now_ms

    def take(self, amount: int, now_ms: int) -> None:
        """Take `amount`, there or not; a negative one is given back."""
        self._fill(now_ms)
        self._level = min(self._level - amount * MINUTE_MS, self.per_minute * MINUTE_MS)

    def when(self, amount: int, now_ms: int) -> int:
        """The first millisecond, `now_ms` or later, in which `amount` may be taken if nobody takes any before."""
        self._fill(now_ms)
        missing = min(amount, self.per_minute) * MINUTE_MS - self._level
        return now_ms if missing <= 0 else now_ms + -(-missing // self.per_minute)

    def _fill(self, now_ms: int) -> None:
        # A clock that is set back adds nothing and takes nothing.
        gone = max(0, now_ms - self._at_ms)
        self._at_ms = max(self._at_ms, now_ms)
        self._level = min(self._level + gone * self.per_minute, self.per_minute * MINUTE_MS)


def at_rate(bucket: Bucket | None, per_minute: int | None, now_ms: int) -> Bucket | None:
    """`bucket` at another rate, None for none; what was in it stays, as far as it is a minute's worth."""
    if per_minute is not None and bucket is not None:
        bucket.change(per_minute, now_ms)
        return bucket
    return None if per_minute is None else Bucket(per_minute, now_ms=now_ms)
