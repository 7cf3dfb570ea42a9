"""A seat: one client of the gateway and the session that it works in.

The session is begun at the client's first request, so that somebody who only looks in leaves nothing behind. The seat remembers
what this client was shown of each tool (a call is for that, and for nothing that the tool has become since), and which of its
calls wait for people: the same call once more asks after that one and does not make another.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import anyio

from agentos.abi.canonical import Json, digest_of
from agentos.abi.errors import AgentOSError, Conflict
from agentos.gateway.upstream import ROUND_MS, Answer, Running, Tell, Tool, Upstream, Waiting

AT_ONCE: Final = 16
"""Calls of one client that may be under way at the runtime at a time; it looks at its tools one look after the other."""

HELD: Final = 256
"""Calls of one client that may wait for people and are found again; the oldest is forgotten here then, not in the inbox."""

CANCEL_S: Final = 5.0
"""How long the runtime is waited for when a call is given up."""


class Crowded(AgentOSError):
    """Too many calls of one client at a time."""

    code = "gateway.crowded"
    retryable = True


@dataclass(frozen=True, slots=True)
class Client:
    """What a client says of itself; nothing is decided by it."""

    name: str
    version: str

    def to_dict(self) -> dict[str, str]:
        """As `gateway.open` takes it."""
        return {"name": self.name, "version": self.version}


class Seat:
    """One client; its methods raise what the runtime answers with, and Crowded."""

    def __init__(self, upstream: Upstream, agent: str, client: Client, session: str | None = None) -> None:
        """`session` is one to take up instead of beginning a new one."""
        self._upstream = upstream
        self._agent = agent
        self._client = client
        self._wanted = session
        self._session: str | None = None
        self._opening = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._shown: Mapping[str, str] = MappingProxyType({})
        self._waits: OrderedDict[str, str] = OrderedDict()
        self._asking: set[str] = set()
        self._busy = 0

    @property
    def client(self) -> Client:
        """Who sits here."""
        return self._client

    @property
    def session(self) -> str | None:
        """The session, once there is one."""
        return self._session

    async def opened(self) -> str:
        """The name of the session, which is begun now if it was not."""
        async with self._opening:
            if self._session is None:
                self._session = await self._upstream.open(self._agent, self._client.to_dict(), self._wanted)
            return self._session

    async def tools(self) -> list[Tool]:
        """What the agent may use now; from here on calls are for these."""
        async with self._looking:
            tools = await self._upstream.tools(await self.opened())
        self._shown = MappingProxyType({tool.name: tool.digest for tool in tools})
        return tools

    async def changed(self) -> bool:
        """Whether a tool is another one than this client was shown; False before it was shown any."""
        if self._session is None or not self._shown:
            return False
        tools = await self._upstream.tools(self._session)
        return self._shown != {tool.name: tool.digest for tool in tools}

    async def knows(self, tool: str) -> bool:
        """Whether the agent has `tool` now."""
        async with self._looking:
            return any(one.name == tool for one in await self._upstream.tools(await self.opened()))

    async def call(self, tool: str, args: dict[str, Json], pin: str | None, tell: Tell) -> Answer:
        """Make a call, or ask after the one that waits already; `pin` is a digest that the client gives by itself.

        A call that nobody waits for any more is given up at the runtime. Raises Conflict for a tool that has changed.
        """
        key = _key(tool, args)
        async with self._one_more():
            session = await self.opened()
            held = self._waits.get(key)
            answer: Answer | Running
            if held is not None:
                answer = await self._upstream.outcome(session, held, wait_ms=0)
            else:
                # Whoever is cancelled here would not know what to give up.
                with anyio.CancelScope(shield=True):
                    answer = await self._begin(session, tool, args, pin or self._shown.get(tool))
            return await self._settled(session, key, answer, tell)

    async def after(self, call: str, tool: str, args: dict[str, Json], tell: Tell, *, wait_ms: int = ROUND_MS) -> Answer:
        """How `call`, which waited, comes out now; `wait_ms` is what a person's answer may take to arrive."""
        async with self._one_more():
            session = await self.opened()
            answer = await self._upstream.outcome(session, call, wait_ms=wait_ms)
            return await self._settled(session, _key(tool, args), answer, tell)

    @contextmanager
    def asking(self, call: str) -> Iterator[None]:
        """The person at the client is being asked about `call`: what waits behind it waits for that."""
        self._asking.add(call)
        try:
            yield
        finally:
            self._asking.discard(call)

    async def give_up(self, call: str) -> None:
        """Cancel `call` although we are cancelled ourselves; a runtime that says no was quicker."""
        if self._session is None:
            return
        self._waits = OrderedDict((key, name) for key, name in self._waits.items() if name != call)
        with anyio.move_on_after(CANCEL_S, shield=True):
            try:
                await self._upstream.cancel(self._session, call)
            except AgentOSError:
                return

    async def leave(self) -> None:
        """Finish the session, unless somebody is still asked about one of its calls: the runtime ends it in its own time then."""
        if self._session is None or self._waits:
            return
        session, self._session = self._session, None
        await self._upstream.close(session, "the client has left")

    async def _begin(self, session: str, tool: str, args: dict[str, Json], digest: str | None) -> Answer | Running:
        """Propose a call; in a new session, if the runtime has finished ours because nothing was asked of it for long.

        One that was cancelled or halted is not replaced: whoever did that meant this client.
        """
        try:
            return await self._upstream.begin(session, tool, args, digest)
        except Conflict as error:
            if error.message != f"session {session} is finished":
                raise
        self._session, self._wanted = None, None
        self._waits.clear()
        return await self._upstream.begin(await self.opened(), tool, args, digest)

    async def _settled(self, session: str, key: str, answer: Answer | Running, tell: Tell) -> Answer:
        """Wait until a call has ended, or waits for people who are not being asked here."""
        call = answer.call
        try:
            while isinstance(answer, Running) or (isinstance(answer, Waiting) and answer.asked in self._asking):
                await tell()
                answer = await self._upstream.outcome(session, call)
        except asyncio.CancelledError:
            await self.give_up(call)
            raise
        if isinstance(answer, Waiting):
            self._waits[key] = call
            while len(self._waits) > HELD:
                self._waits.popitem(last=False)
        else:
            self._waits.pop(key, None)
        return answer

    @asynccontextmanager
    async def _one_more(self) -> AsyncIterator[None]:
        if self._busy >= AT_ONCE:
            raise Crowded(f"{AT_ONCE} calls of this client are under way", mend="wait for one of them")
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1


def _key(tool: str, args: dict[str, Json]) -> str:
    return digest_of({"tool": tool, "args": args})
