"""The circuit of one endpoint: after too many failures in a row it is left alone for a while, then one call tries it.

    breaker = Breaker(Circuit(failures=2, open_ms=30_000))
    breaker.failed(0, tried=breaker.began(0))
    breaker.failed(5, tried=breaker.began(5))
    breaker.may(10)                                              # False: open until 30,005
    breaker.may(30_005)                                          # True: half open, one call may try it

Only what the endpoint is to blame for is a failure (`drivers.port.ModelUnavailable`): a refusal of ours, or a call that was
stopped, says nothing of it. An endpoint that asks to be left alone for a time is left alone, whatever the count.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from agentos.scheduler.declared import Circuit

LONGEST_REST_MS: Final = 60_000
"""Most milliseconds that an endpoint is left alone because it asks for it."""


class CircuitState(StrEnum):
    """`open`: nobody asks it. `half-open`: one call tries it, or may."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """See the module. It holds no clock. Whoever began a call says once how it ended, and whether it was the one that tries."""

    def __init__(self, declared: Circuit) -> None:
        self.declared = declared
        self.failures = 0
        """How many calls in a row have failed."""
        self._until: int | None = None
        """While it is not closed: until when it is open."""
        self._rest = 0
        self._tried = False
        """Whether a call is under way that tries it."""

    def state(self, now_ms: int) -> CircuitState:
        """Where it stands."""
        if self._until is None:
            return CircuitState.CLOSED
        return CircuitState.OPEN if now_ms < self._until else CircuitState.HALF_OPEN

    def may(self, now_ms: int) -> bool:
        """Whether a call may go out now."""
        return self.may_at(now_ms) == now_ms

    def may_at(self, now_ms: int) -> int | None:
        """When a call may go out; None: only once the one that tries it has ended."""
        return None if self._tried else max(now_ms, self._rest, self._until or 0)

    def began(self, now_ms: int) -> bool:
        """A call goes out that `may`; return whether it is the one that tries it."""
        self._tried = self.state(now_ms) is CircuitState.HALF_OPEN
        return self._tried

    def succeeded(self) -> None:
        """A call was answered, whichever."""
        self.failures, self._until, self._tried = 0, None, False

    def failed(self, now_ms: int, *, tried: bool, retry_after_ms: int | None = None) -> None:
        """A call failed, and the endpoint is to blame; it may ask to be left alone for a time."""
        self.failures += 1
        if retry_after_ms is not None:
            self._rest = max(self._rest, now_ms + min(retry_after_ms, LONGEST_REST_MS))
        # Calls that began before the circuit opened do not keep it open for longer.
        if tried or (self._until is None and self.failures >= self.declared.failures):
            self._until = now_ms + self.declared.open_ms
        self.released(tried=tried)

    def released(self, *, tried: bool) -> None:
        """A call ended, and nothing is known of the endpoint by it."""
        self._tried = self._tried and not tried
