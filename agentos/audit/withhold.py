"""Withholding: which payloads an exporter keeps back, and what is left of a session then.

    Withhold.parse(["tool=send-mail", "s-0k3v9…"])   # all payloads of calls of that tool, and all of that session
    Withhold.parse(["all"])                          # every payload: headers alone

A header that stands alone says who, what, under which rules and what came of it; its place in the chain and in the trees can be
checked as before. The call of a tool is every event about it: decision, questions, answers, outcome. What a model said, the calls
that it proposed among it, is in the payloads of the calls of `model-call`; a fork begins with calls of another session, and its
first payload is kept back with those of any tool.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.abi.event import Event
from agentos.abi.ids import is_name
from agentos.abi.record import header_of, split

ALL: Final = "all"
TOOL: Final = "tool="


@dataclass(frozen=True, slots=True)
class Withhold:
    """What is kept back: everything, all of some sessions, all calls of some tools."""

    everything: bool = False
    sessions: frozenset[str] = frozenset()
    tools: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Withhold:
        """From what was asked for: each text is `all`, `tool=NAME`, or ids of sessions joined by commas. Raises UsageError."""
        everything, sessions, tools = False, set(), set()
        for text in texts:
            if text == ALL:
                everything = True
            elif text.startswith(TOOL):
                tools.add(text.removeprefix(TOOL))
            else:
                sessions.update(text.split(","))
        if not all(is_name(name) for name in sessions | tools):
            raise UsageError("withhold: expected all, SESSION[,SESSION…] or tool=NAME")
        return cls(everything, frozenset(sessions), frozenset(tools))

    def told(self) -> list[str]:
        """The texts again, in a fixed order, one session each."""
        return [*([ALL] if self.everything else []), *sorted(self.sessions), *(f"{TOOL}{name}" for name in sorted(self.tools))]

    def disclosed(self, session: str, records: Sequence[bytes]) -> list[bytes]:
        """The records of `session` without the payloads that are kept back. An open event has none and stays as it is."""
        if self.everything or session in self.sessions:
            return [header_of(record) for record in records]
        if not self.tools:
            return list(records)
        calls: set[Json] = set()
        return [header_of(record) if self._concerns(record, calls) else record for record in records]

    def _concerns(self, record: bytes, calls: set[Json]) -> bool:
        """Whether a record is about a call of a tool that is kept back; `calls` are those that are known so far."""
        if split(record)[1] is None:
            return False
        event = Event.from_bytes(record)
        if event.type == ev.SESSION_CREATED:
            # A fork begins with the calls of another session, whatever tools they were of.
            return "forked" in event.data
        tool, call = event.data.get("tool"), event.data.get("call")
        if tool in self.tools:
            calls.add(call)
        # Questions and answers name the call alone.
        return tool in self.tools or (tool is None and call in calls)


NOTHING: Final = Withhold()
"""Every payload is disclosed."""
