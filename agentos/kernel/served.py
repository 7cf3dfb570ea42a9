"""Sessions that a client outside drives: no process proposes for them, their frames come from commands (`gateway.*`).

A client is a harness like any other: it proposes, the gate decides. So its calls go the way of every frame of the ABI: through
`kernel.serving`, into the line, to the gate, and what came of them is in the log. Here is what such a session has instead of a
pipe: a `Window`, where proposals wait until the kernel takes them, and `WindowHarness`, which carries them as frames.

While nothing waits at its window a session rests: it has no place, and nothing of it is in memory but its window. A call that
waits for a person stays at the window; whoever answers wakes the session, and the call is proposed again. After a restart what is
still to be done is read from the log (`left_over`).
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from agentos.abi import rpc
from agentos.abi.canonical import Json
from agentos.abi.errors import Conflict
from agentos.kernel.port import Left
from agentos.kernel.seat import Displaced, Seat
from agentos.projections.session import SessionState, Step

MAX_WAITING: Final = 64
"""Proposals of one session that have no answer yet."""

LINGER_S: Final = 30.0
"""Seconds that a session without work keeps its place and the servers of its tools, if nobody needs the place."""

PREFIX: Final = "mcp-"
"""How the ids of calls begin that a client has not named itself."""

_Key = tuple[str, str]
"""Tenant and session."""


class Idle(Protocol):
    """`Places.idle`."""

    def __call__(self, session: str, done: asyncio.Future[None], grace_s: float | None = None) -> Awaitable[None]:
        """Let a session that runs wait for `done`. Raises Displaced."""


@dataclass(slots=True, eq=False)
class Proposal:
    """One frame that a client wants sent. `answered` ends with the kernel's answer; raises Conflict where that is a refusal."""

    method: str
    params: dict[str, Json]
    answered: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def call(self) -> str | None:
        """The call that it proposes; None for the end of the session."""
        return self.params.get("call")

    def settle(self) -> None:
        """It has its answer."""
        if not self.answered.done():
            self.answered.set_result(None)

    def refuse(self, message: str) -> None:
        """Nothing came of it."""
        if not self.answered.done():
            self.answered.set_exception(Conflict(message))
            self.answered.exception()  # whoever has proposed it may have left


class Window:
    """What waits for one session. Nothing in here is awaited but `WindowHarness` taking from it."""

    def __init__(self) -> None:
        self.queue: deque[Proposal] = deque()
        self.taken: dict[int, Proposal] = {}
        """What the kernel has and did not answer yet, by the numbers of the frames."""
        self.refused: set[str] = set()
        """Calls that the kernel has refused to hear of again."""
        self.closing = False
        """Whether the end of the session waits here as well."""
        self.counter = 0
        """The number of the last call that was named here."""
        self.used_ms = 0
        """When the client last asked for something."""
        self._stirred: asyncio.Future[None] | None = None

    def open(self) -> Iterator[Proposal]:
        """All proposals without an answer."""
        return itertools.chain(self.taken.values(), self.queue)

    def find(self, call: str) -> Proposal | None:
        """The proposal of a call that has no answer yet."""
        return next((one for one in self.open() if one.call == call), None)

    def put(self, proposal: Proposal) -> Proposal:
        """Have it wait behind the others. Raises Conflict where too many do, or the session is being ended."""
        if self.closing:
            raise Conflict("the session is being closed")
        if len(self.taken) + len(self.queue) >= MAX_WAITING:
            raise Conflict(f"{MAX_WAITING} calls of the session are under way", mend="wait until some of them have ended")
        self.closing = proposal.method == "finish"
        self.queue.append(proposal)
        self.stir()
        return proposal

    def withdraw(self, call: str) -> bool:
        """Take a proposal back that the kernel has not taken; whether there was one."""
        found = next((one for one in self.queue if one.call == call), None)
        if found is not None:
            self.queue.remove(found)
            found.refuse(f"call {call} was cancelled before it was decided")
        return found is not None

    def stir(self) -> None:
        """Something has come or was answered."""
        if self._stirred is not None and not self._stirred.done():
            self._stirred.set_result(None)

    def stirred(self) -> asyncio.Future[None]:
        """Done once something comes or is answered."""
        if self._stirred is None or self._stirred.done():
            self._stirred = asyncio.get_running_loop().create_future()
        return self._stirred


class Windows:
    """The windows of all served sessions."""

    def __init__(self) -> None:
        self.idle: Idle = _patiently
        """How a session without work waits for some with its place; set by whoever gives places."""
        self._windows: dict[_Key, Window] = {}
        self._resting: set[_Key] = set()

    def of(self, state: SessionState) -> Window:
        """The window of a live session."""
        return self._windows.setdefault((state.tenant, state.id), Window())

    def used_ms(self, tenant: str, session: str) -> int:
        """When the client of a session last asked for something, as far as this runtime knows; 0: it did not."""
        return self._windows.get((tenant, session), _NOBODY).used_ms

    def has_work(self, state: SessionState) -> bool:
        """Whether there is something to do for a session; always, where a harness of its own drives it."""
        if state.served is None:
            return True
        window = self._windows.get((state.tenant, state.id), _NOBODY)
        return bool(window.queue) or next(left_over(state, window), None) is not None

    def busy(self, tenant: str, session: str) -> bool:
        """Whether a session has proposals without an answer."""
        return next(self._windows.get((tenant, session), _NOBODY).open(), None) is not None

    def harness(self, state: SessionState) -> WindowHarness:
        """What drives a served session, from now until nothing is left to do."""
        window = self.of(state)
        known = {one.call for one in window.open()}
        window.queue.extendleft(one for one in left_over(state, window) if one.call not in known)
        return WindowHarness(state.id, window, self.idle)

    def gave_way(self, state: SessionState, seat: Seat) -> bool:
        """Whether a served session has given its place up for want of work. If it has some by now, it asks for a place again."""
        if state.served is None or not seat.leaving:
            return False
        seat.elsewhere = None
        return True

    def rest(self, key: _Key) -> None:
        """It has nothing to do, and is ours."""
        self._resting.add(key)

    def wake(self, key: _Key) -> None:
        """It runs."""
        self._resting.discard(key)

    def rests(self, key: _Key) -> bool:
        """Whether it has nothing to do and is ours."""
        return key in self._resting

    def ended(self, tenant: str, session: str) -> None:
        """It is over: nothing more comes of what waits. May be told more than once."""
        self._resting.discard((tenant, session))
        window = self._windows.pop((tenant, session), None)
        for one in window.open() if window is not None else ():
            one.refuse("the session is over") if one.method != "finish" else one.settle()


def left_over(state: SessionState, window: Window) -> Iterator[Proposal]:
    """Calls that the log has open and that may be made, as they were proposed.

    One whose arguments policy has rewritten cannot be told from the log: it is made when the client proposes it again.
    """
    if state.served is None:
        return
    for call in state.calls.values():
        if call.step in {Step.APPROVED, Step.ALLOWED} and call.proposed == call.args_digest and call.call not in window.refused:
            yield Proposal("tool.call", {"call": call.call, "tool": call.tool, "args": dict(call.args)})


class WindowHarness:
    """See `kernel.port.HarnessProcess`: the frames are what waits at a window."""

    def __init__(self, session: str, window: Window, idle: Idle) -> None:
        self._session = session
        self._window = window
        self._idle = idle
        self._numbers = itertools.count(1)
        self._greeting: bytes | None = None
        self._leaves = False
        """Whether it was told to."""

    def rest(self) -> asyncio.Future[None]:
        """Nobody else can use it."""
        return asyncio.get_running_loop().create_future()

    def rise(self) -> None:
        """Nothing to do."""

    async def read_frame(self) -> bytes:
        window = self._window
        while not self._leaves:
            if self._greeting is not None:
                greeting, self._greeting = self._greeting, None
                return greeting
            if window.queue:
                number, proposal = next(self._numbers), window.queue.popleft()
                window.taken[number] = proposal
                return rpc.request(number, proposal.method, proposal.params).rstrip(b"\n")
            stirred = window.stirred()
            if window.taken:
                await asyncio.wait((stirred,))
                continue
            try:
                await self._idle(self._session, stirred, LINGER_S)
            except Displaced:
                break
        return b""

    async def write_frame(self, frame: bytes) -> None:
        body = json.loads(frame)
        if body.get("method") == "initialize":
            self._greeting = rpc.response(body["id"], {"abi": rpc.ABI, "name": "gateway"}).rstrip(b"\n")
            return
        error = body.get("error")
        if error is not None and error["code"] != rpc.INVALID_PARAMS:
            # It was told to leave. What has no answer is proposed again, or refused when the session is over.
            self._leaves = True
        elif (proposal := self._window.taken.pop(body.get("id", 0), None)) is not None:
            if error is None:
                proposal.settle()
            else:
                self._window.refused.add(proposal.call or "")
                self._window.closing &= proposal.method != "finish"
                proposal.refuse(error["message"])
        self._window.stir()

    def hint(self, frame: bytes) -> None:
        """What the session is told besides is in its log."""

    async def stop(self, *, reuse: frozenset[str] | None = None, finished: bool = False) -> Left:
        del reuse, finished
        window = self._window
        window.queue.extendleft(reversed(window.taken.values()))
        window.taken.clear()
        window.stir()
        return Left(0)


async def _patiently(session: str, done: asyncio.Future[None], grace_s: float | None = None) -> None:
    """Wait for nothing: without places nobody may linger in one."""
    raise Displaced


_NOBODY: Final = Window()
"""Of a session that nobody has asked for anything since the runtime began."""
