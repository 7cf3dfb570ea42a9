"""The gateway: which client sits where, what is offered to it, and how a person at the client answers what waits.

A yes that is given at the client is said to the runtime as the approving principal, whom the operator named when the gateway
was started. Whether it counts is policy. One that does not count, and one that is not given, leave the call where it was: in the
inbox.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import anyio

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Conflict, Denied
from agentos.gateway.seat import Client, Seat
from agentos.gateway.telling import Said
from agentos.gateway.upstream import Answer, Tell, Upstream, Waiting

SEATS: Final = 64
"""Clients at a time; the one that has asked for nothing longest leaves for a new one."""

WATCH_S: Final = 5.0
"""How often it is looked whether the tools are still what clients were shown."""


NEWS_S: Final = 1.0
"""How long a client may take to be told so."""


class Gateway:
    """The tools of one agent, for clients."""

    def __init__(self, upstream: Upstream, agent: str, *, session: str | None = None) -> None:
        """`session` is taken up by the first client."""
        self._upstream = upstream
        self._agent = agent
        self._session = session
        self._seats: OrderedDict[str, Seat] = OrderedDict()
        self._news: dict[str, Callable[[], Awaitable[None]]] = {}

    @property
    def agent(self) -> str:
        """Whose tools these are."""
        return self._agent

    @property
    def can_ask(self) -> bool:
        """Whether a person at the client may be asked for approval."""
        return self._upstream.can_answer

    async def seat(self, key: str, client: Client, news: Callable[[], Awaitable[None]] | None = None) -> Seat:
        """The seat of whoever is known by `key`; `news` is called when the tools are others than it was shown."""
        seat = self._seats.get(key)
        if seat is None:
            wanted, self._session = self._session, None
            seat = self._seats[key] = Seat(self._upstream, self._agent, client, wanted)
        self._seats.move_to_end(key)
        if news is not None:
            self._news[key] = news
        while len(self._seats) > SEATS:
            await self.leave(next(iter(self._seats)))
        return seat

    async def leave(self, key: str) -> None:
        """Whoever is known by `key` has gone."""
        self._news.pop(key, None)
        seat = self._seats.pop(key, None)
        if seat is not None:
            try:
                await seat.leave()
            except AgentOSError:
                # The runtime ends a session that nobody uses by itself.
                return

    async def close(self) -> None:
        """Everybody has gone."""
        for key in list(self._seats):
            await self.leave(key)

    async def answered(
        self, seat: Seat, waiting: Waiting, said: Said, tool: str, args: dict[str, Json], tell: Tell
    ) -> tuple[Answer, str]:
        """Say what a person said of the call that waits: how it stands then, and why the word did not settle it, or `""`."""
        why = ""
        try:
            await self._upstream.say(waiting, granted=said.granted, reason=said.reason)
        except Denied as error:
            return waiting, "; ".join([error.message, *error.reasons])
        except Conflict as error:
            # Somebody else has answered meanwhile.
            why = error.message
        answer = await seat.after(waiting.call, tool, args, tell)
        return answer, why

    async def watch(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Tell clients whose tools have changed, and call `changed` once for all others; runs until it is cancelled."""
        told: dict[str, bool] = {}
        while True:
            await asyncio.sleep(WATCH_S)
            fresh = await self._stale(told)
            for key in fresh:
                news = self._news.get(key)
                if news is not None:
                    # One that does not read must not keep the news from the others.
                    with anyio.move_on_after(NEWS_S):
                        await news()
            if fresh:
                await changed()

    async def _stale(self, told: dict[str, bool]) -> list[str]:
        """The clients whose tools have changed since they were shown, each once until it has looked again."""
        fresh: list[str] = []
        for key, seat in self._seats_now().items():
            try:
                changed = await seat.changed()
            except AgentOSError:
                continue
            if changed and not told.get(key):
                fresh.append(key)
            told[key] = changed
        for key in [key for key in told if key not in self._seats]:
            del told[key]
        return fresh

    def _seats_now(self) -> Mapping[str, Seat]:
        return dict(self._seats)
