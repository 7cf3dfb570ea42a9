"""Who serves a tenant: only the newest runtime does, and the one before it lets go as soon as it looks.

A session has one writer by the sequence of its subject, whoever believes what. What spans sessions (how often a rate lets
calls through, which sessions are to be taken over) has none, so a runtime asks whether it is still the one that serves before it
takes a session, before it decides a call, and before it does what a person tells it. An answer holds for `STILL_US`; a runtime
that stood still for longer asks again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agentos.abi.errors import Relieved
from agentos.kernel.acts import STILL_US
from agentos.kernel.port import Timer


class Alone:
    """Where a lock of the host sees to it that there is one runtime: it always serves."""

    async def hold(self, tenant: str) -> None:
        """See `Tenure.hold`."""
        del tenant


class Watched:
    """Where others may serve the same log: a claim in the log says who is the newest.

    `look` reads it: whether this runtime's claim is the newest of a tenant. It raises LogUnavailable when that cannot be told.
    """

    def __init__(self, look: Callable[[str], Awaitable[bool]], timer: Timer) -> None:
        self._look = look
        self._timer = timer
        self._held: dict[str, int] = {}

    async def hold(self, tenant: str) -> None:
        """See `Tenure.hold`."""
        while self._timer.monotonic_us() - self._held.get(tenant, -2 * STILL_US) > STILL_US:
            asked = self._timer.monotonic_us()
            if not await self._look(tenant):
                raise Relieved(f"a newer runtime serves tenant {tenant}", mend="end this one: agentos down")
            # The answer is as old as the question.
            self._held[tenant] = asked
