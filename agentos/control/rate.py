"""How often something may happen: at each webhook, by each principal, in each tenant. One bucket of tokens per place.

A place may have its burst at once and its rate in the long run. `Knocks` is what the control service asks: a request counts for
its principal and for the tenant that the principal belongs to, not for the one that it names. So nobody of one tenant can use up
what another has, nor what the fleet's operators need to put an end to it; and as one principal gets a half of what its tenant
may, it cannot keep the others out. What is urgent counts by itself, in buckets that nothing else draws from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentos.abi.errors import TooOften

MAX_PLACES: Final = 4096
"""Places that are remembered at one time. One that has all its tokens again need not be."""

REQUESTS_PER_SECOND: Final = 500
"""Requests per second of a tenant that says nothing else; also the fleet's."""

BURST_S: Final = 2
"""Seconds' worth of requests that may come at once."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many per second in the long run, `burst` (at least 1) at once."""

    per_second: float
    burst: float


URGENT: Final = Allowance(2.0, 20.0)
"""What is urgent, for each principal: a kill switch is thrown a few times, not hundreds."""

URGENT_TOGETHER: Final = Allowance(10.0, 100.0)
"""What is urgent, of each tenant: more than one principal can use up, or one would keep the others from the kill switch."""


URGENT_VERBS: Final = frozenset({"freeze.set"})
"""What must not wait behind a flood: the kill switch."""

BUSY_MS: Final = 250
"""After how many ms to ask again where too many requests are under way."""


class Rate:
    """How often something may happen at each place; `allowance` is that of a place that brings none of its own."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._left: dict[str, tuple[float, int, Allowance]] = {}

    def take(self, place: str, now_us: int, allowance: Allowance | None = None) -> float:
        """Take one at `place`; 0.0 if it may happen now, else the seconds until it may. `now_us` never goes back."""
        given = allowance or self._allowance
        if place not in self._left and len(self._left) >= MAX_PLACES:
            self._forget(now_us)
            if len(self._left) >= MAX_PLACES:
                return 1.0
        left = self._now(place, now_us, given)
        if left < 1.0:
            self._left[place] = (left, now_us, given)
            return (1.0 - left) / given.per_second
        self._left[place] = (left - 1.0, now_us, given)
        return 0.0

    def give_back(self, place: str) -> None:
        """One that was taken was not used."""
        if place in self._left:
            left, since, given = self._left[place]
            self._left[place] = (min(given.burst, left + 1.0), since, given)

    def _now(self, place: str, now_us: int, given: Allowance) -> float:
        left, since, _ = self._left.get(place, (given.burst, now_us, given))
        return min(given.burst, left + (now_us - since) * given.per_second / 1_000_000)

    def _forget(self, now_us: int) -> None:
        """Places that have all their tokens again are as if nothing had ever happened there."""
        for place, (_, _, given) in tuple(self._left.items()):
            if self._now(place, now_us, given) >= given.burst:
                del self._left[place]


class Knocks:
    """How often principals may ask. `per_second` gives how many requests a tenant (`*`: the fleet) may make."""

    def __init__(self, monotonic_us: Callable[[], int], per_second: Callable[[str], int]) -> None:
        self._clock = monotonic_us
        self._per_second = per_second
        self._tenants = Rate(_for(REQUESTS_PER_SECOND))
        self._principals = Rate(_for(REQUESTS_PER_SECOND / 2))
        self._urgent = Rate(URGENT)

    def take(self, tenant: str, principal: str, *, urgent: bool = False) -> float:
        """Count a request of a principal of `tenant`; 0.0 if it may be served, else the seconds after which it may."""
        now = self._clock()
        who, whole = f"{tenant}/{principal}", f"{tenant}/"
        if urgent:
            return self._both(self._urgent, who, self._urgent, whole, now, URGENT, URGENT_TOGETHER)
        most = self._per_second(tenant)
        return self._both(self._principals, who, self._tenants, whole, now, _for(max(1.0, most / 2)), _for(most))

    @staticmethod
    def _both(first: Rate, who: str, second: Rate, whole: str, now: int, each: Allowance, together: Allowance) -> float:
        wait = first.take(who, now, each)
        if wait:
            # What a principal is refused does not count for its tenant: the others would pay for its flood.
            return wait
        wait = second.take(whole, now, together)
        if wait:
            first.give_back(who)
        return wait


def too_often(name: str, wait_s: float) -> TooOften:
    """The refusal of a request of principal `name` that may come again in `wait_s` seconds."""
    return TooOften(
        f"{name} asks more often than it may",
        retry_after_ms=max(1, math.ceil(wait_s * 1000)),
        mend=f"ask again in {wait_s:.3g} s; see Tenant.spec.limits",
    )


def busy() -> TooOften:
    """The refusal of a request that there is no room for now."""
    return TooOften("the runtime is busy: too many requests are under way", retry_after_ms=BUSY_MS, mend="ask again later")


def _for(per_second: float) -> Allowance:
    return Allowance(per_second, max(1.0, per_second * BURST_S))
