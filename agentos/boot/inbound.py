"""Events of publishers as firings: each is acted on by every trigger whose subject means it, and then forgotten."""

from __future__ import annotations

import logging
from typing import Final

from agentos.abi.errors import AgentOSError, Conflict, NotFound, Unavailable, UsageError
from agentos.drivers.spaces import UNTRUSTED
from agentos.eventlog.adapters.events_in import EventIn, EventsIn, matches
from agentos.kernel.firing import Firing, Subject
from agentos.kernel.port import Timer
from agentos.supervisor.triggers import Triggers

log = logging.getLogger(__name__)

LATER_S: Final = 5
"""Seconds until an event comes again that could not be acted on, and between two tries to read the next; for an event twice as
many after each try, up to `LONGEST_LATER_S`."""

LONGEST_LATER_S: Final = 120

TOLD_US: Final = 60_000_000
"""Microseconds between two lines of the log about events that nothing waits for."""


class Inbound:
    """The events of one tenant."""

    def __init__(self, tenant: str, events: EventsIn, triggers: Triggers, timer: Timer) -> None:
        self._tenant = tenant
        self._events = events
        self._triggers = triggers
        self._timer = timer
        self._unwanted = 0
        self._told_us: int | None = None

    async def run(self) -> None:
        """Hear publishers and fire, until cancelled."""
        while True:
            try:
                async with self._events.listening():
                    while True:
                        await self._one()
            except AgentOSError as error:
                log.warning("tenant %s: events of publishers wait: %s", self._tenant, error)
                await self._timer.sleep(LATER_S)

    async def _one(self) -> None:
        found = await self._events.next()
        if found is None:
            return
        event, message = found
        if await self._act(event):
            await self._events.done(message)
        else:
            await self._events.later(message, min(LATER_S << min(event.tries - 1, 16), LONGEST_LATER_S))

    async def _act(self, event: EventIn) -> bool:
        """Fire what waits for `event`. Whether all of it is durable."""
        wanted = [
            spec.name
            for spec in self._triggers.declared(self._tenant, "subject")
            if isinstance(spec.on, Subject) and matches(spec.on.name, event.name)
        ]
        if not wanted:
            self._count_unwanted(event)
        whole = True
        for name in wanted:
            # The same event of the same trigger is the same firing: what fired before the others failed does not fire again.
            firing = Firing(
                trigger=name,
                id=event.id,
                at_ms=event.at_ms,
                source="subject",
                payload=event.data,
                content_type=event.content_type,
                labels=(UNTRUSTED,),
                facts={"publisher": event.publisher, "subject": event.name, "sequence": event.sequence},
            )
            try:
                await self._triggers.fire(self._tenant, firing)
            except (Conflict, Unavailable) as error:
                log.info("trigger %s of tenant %s: event %d comes again: %s", name, self._tenant, event.sequence, error.message)
                whole = False
            except (NotFound, UsageError) as error:
                log.warning("trigger %s of tenant %s: event %d is lost to it: %s", name, self._tenant, event.sequence, error)
            except AgentOSError as error:
                log.warning("trigger %s of tenant %s: event %d comes again: %s", name, self._tenant, event.sequence, error)
                whole = False
        return whole

    def _count_unwanted(self, event: EventIn) -> None:
        self._unwanted += 1
        now = self._timer.monotonic_us()
        if self._told_us is None or now - self._told_us >= TOLD_US:
            last = f"{event.publisher}.{event.name}"
            log.info("tenant %s: no trigger waits for %d events, the last is %s", self._tenant, self._unwanted, last)
            self._unwanted, self._told_us = 0, now
