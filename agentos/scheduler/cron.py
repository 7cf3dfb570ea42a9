"""Times of a schedule in cron's notation and a time zone, as Debian's cron has them where the clocks are changed.

    nightly = schedule("30 2 * * *", "Europe/Zurich")
    nightly.after(now_ms)                          # the next time, ms since the epoch
    nightly.between(cursor_ms, now_ms, most=10)    # ([...], False): the newest ten that have passed; were there more?

Five fields: minute, hour, day of month, month, day of week. A time that does not exist, because the clocks go forward over it, is
the first moment that does; one that exists twice is the first of the two. A schedule whose minute or hour begins with a star goes
by the time that passes, through both.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_FIELDS: Final = 5
_SPANS_MS: Final = (3_600_000, 86_400_000, 31 * 86_400_000, 366 * 86_400_000)
"""How far back to look for the newest times, the shortest first: there may be more than anybody can count."""

_LATEST_MS: Final = 4_102_444_800_000
"""The year 2100: nothing is scheduled behind it."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule that was read. Made by `schedule`."""

    expression: str
    zone: str

    def __str__(self) -> str:
        return f"{self.expression} {self.zone}"

    def after(self, ms: int) -> int | None:
        """The first time behind `ms`; None if there is none any more."""
        return next(self._times(ms), None)

    def upcoming(self, ms: int, most: int) -> list[int]:
        """The first `most` times behind `ms`."""
        return list(itertools.islice(self._times(ms), most))

    def between(self, after_ms: int, until_ms: int, *, most: int) -> tuple[list[int], bool]:
        """The newest `most` times behind `after_ms` up to `until_ms`, the oldest first, and whether there are more."""
        for span in _SPANS_MS:
            begin = max(after_ms, until_ms - span)
            found = list(itertools.takewhile(lambda ms: ms <= until_ms, self._times(begin)))
            if begin == after_ms or len(found) >= most:
                break
        return found[-most:], len(found) > most or begin > after_ms

    def _times(self, after_ms: int) -> Iterator[int]:
        """Every time behind `after_ms`, in order, each once."""
        if not 0 <= after_ms < _LATEST_MS:
            return
        zone = ZoneInfo(self.zone)
        last = after_ms
        # In the hour that comes twice the library counts from the first of the two.
        for moment in CronSim(self.expression, datetime.fromtimestamp(after_ms // 1000, UTC).astimezone(zone)):
            ms = int(moment.astimezone(UTC).timestamp()) * 1000
            if ms >= _LATEST_MS:
                return
            if ms > last:
                last = ms
                yield ms


def schedule(expression: str, zone: str = "UTC") -> Schedule:
    """Read a schedule. Raises ValueError with one sentence if it is none, has no time at all, or the zone is not known."""
    if len(expression.split()) != _FIELDS:
        raise ValueError(f"{expression!r} is no schedule of five fields: minute, hour, day of month, month, day of week")
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"there is no time zone {zone!r}") from error
    made = Schedule(" ".join(expression.split()), zone)
    try:
        first = made.after(0)
    except (CronSimError, AssertionError) as error:
        raise ValueError(f"{expression!r} is no schedule: {str(error).lower() or 'a field is malformed'}") from error
    if first is None:
        raise ValueError(f"{expression!r} never comes")
    return made
