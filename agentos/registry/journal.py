"""One chained subject of the registry: read what is new and check it, append the next event.

The caller keeps the `Tip` and moves it only once it has understood the news, so that nothing is skipped when reading
fails halfway.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentos.abi.canonical import Json
from agentos.abi.chain import Head, follow
from agentos.abi.errors import ChainBroken
from agentos.abi.event import Event
from agentos.abi.ids import FLEET, Clock, Random, new_id
from agentos.eventlog.port import EventLog, Message


@dataclass(frozen=True, slots=True)
class Tip:
    """How far a subject was read: its chain's head and the position of its last message (0: none)."""

    head: Head
    position: int

    @classmethod
    def start(cls) -> Tip:
        return cls(Head.empty(), 0)


@dataclass(frozen=True, slots=True)
class Journal:
    """A log subject (`reg.revision`) whose events carry `name` (`registry`) as their own subject."""

    log: EventLog
    subject: str
    name: str

    async def news(self, tip: Tip) -> tuple[Tip, list[Event]]:
        """The events behind `tip` in order, each checked against the chain, and the new tip.

        Raises ChainBroken when an event was edited, dropped, added or cut off, LogUnavailable without a log.
        """
        last = await self.log.last(self.subject)
        end = last.position if last is not None else 0
        if end == tip.position:
            return tip, []
        if end < tip.position:
            raise ChainBroken(f"ends at position {end}, was read up to {tip.position}: its tail was cut", where=self.subject)
        events: list[Event] = []
        head, position = tip.head, tip.position
        async for stored in self.log.read(self.subject, after=tip.position):
            head, body = follow(head, stored.data, subject=self.name)
            position = stored.position
            try:
                events.append(Event.from_dict(body))
            except (KeyError, ValueError, TypeError) as error:
                raise ChainBroken(f"is no event of this runtime: {error}", where=f"{self.name}#{head.seq}") from error
        return Tip(head, position), events

    async def append(
        self, tip: Tip, type_: str, data: dict[str, Json], *, actor: str, revision: int, clock: Clock, random: Random
    ) -> tuple[Tip, Event]:
        """Store the next event behind `tip`; return the new tip and the event. Raises SequenceConflict if somebody was first."""
        event = Event(
            id=new_id("e", clock, random),
            type=type_,
            tenant=FLEET,
            subject=self.name,
            seq=tip.head.seq + 1,
            prev=tip.head.hash,
            time_ms=clock.now_ms(),
            actor=actor,
            config_revision=revision,
            policy_digest=None,
            data=data,
        )
        stored = event.to_bytes()
        position = await self.log.append(self.subject, [Message(event.id, stored)], after=tip.position)
        return Tip(event.head(stored), position), event
