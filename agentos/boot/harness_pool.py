"""Harness processes that many sessions use, one after the other: the log is the state, so a process has none.

A process belongs to one tenant, one set of labels, and one program in one place; only sessions of that kind are ever driven by
it. A session holds it from one wait to the next: while its calls are under way the process may go to another session. So a few
processes drive a thousand sessions. A process that has seen more labels than it came for belongs to those from then on. A program
that is not ours is not used again once it has driven a session with labels.

    pool = HarnessPool(spawner.start)
    process = await pool.spawn(Brief("acme", "s-1"))
    left = await process.stop(reuse=labels)             # back into the pool, if it says `left` in time
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from agentos.abi import rpc
from agentos.boot.system import GRACE, LOOP
from agentos.kernel.port import Brief, HarnessProcess, HarnessSilent, Left, Misdeed
from agentos.sandbox.profile import Profile

MOST: Final = 8
"""Processes of the built-in loop for one kind of session."""

MOST_IDLE: Final = 16
"""Processes that are kept for sessions to come, of all kinds together; the one that was used longest ago ends first."""

IDLE_S: Final = 300.0
"""Seconds that a process is kept which nobody uses."""

MOST_STRAY: Final = 64
"""Frames that a harness may have under way when it is told to leave; it reads that it has to before it writes more."""


class Startable(HarnessProcess, Protocol):
    """A harness process as it is started."""

    @property
    def alive(self) -> bool:
        """Whether it has not ended, as far as is known."""


Start = Callable[[str, Sequence[str], Profile | None], Awaitable[Startable]]
"""Starts a fresh process: owner (`tenant/…`), command, and place; None: that of harnesses. Raises as `Spawner.spawn`."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What sessions must have in common to use the same processes."""

    tenant: str
    labels: frozenset[str]
    command: tuple[str, ...]
    profile: Profile | None

    @property
    def ours(self) -> bool:
        # What a declared place has where ours lies is not ours.
        return self.command == LOOP and self.profile is None


class HarnessPool:
    """See the module. A `Spawner`."""

    def __init__(self, start: Start, *, most: int = MOST, most_idle: int = MOST_IDLE, idle_s: float = IDLE_S) -> None:
        self._start = start
        self._most = most
        self._most_idle = most_idle
        self._idle_s = idle_s
        self._idle: OrderedDict[Pooled, asyncio.TimerHandle] = OrderedDict()
        """The one that was used longest ago first."""
        self._used: dict[_Kind, int] = {}
        """Processes in use, those that are being started among them."""
        self._waiting: dict[_Kind, deque[asyncio.Future[Pooled | None]]] = {}
        """Who waits for one: what they get is the process, or None for the right to start one."""
        self._resting: dict[_Kind, OrderedDict[Pooled, asyncio.Future[None]]] = {}
        """In use, but could go to another session; the one that rests longest first."""
        self._ending: set[asyncio.Task[Left]] = set()
        self._numbers = itertools.count(1)
        self._closed = False

    @property
    def processes(self) -> int:
        """How many there are, in use and kept."""
        return sum(self._used.values()) + len(self._idle)

    async def spawn(self, brief: Brief) -> HarnessProcess:
        """See `Spawner.spawn`."""
        command = LOOP if brief.harness is None else brief.harness.command
        kind = _Kind(brief.tenant, brief.labels, command, brief.profile)
        found = self._kept(kind)
        if found is None and kind.ours and self._used.get(kind, 0) >= self._most:
            # One that another session has brought along may be kept meanwhile.
            found = await self._wait(kind) or self._kept(kind)
        else:
            self._used[kind] = self._used.get(kind, 0) + 1
        if found is not None:
            return found
        try:
            process = await self._start(f"{brief.tenant}/harness-{next(self._numbers)}", command, brief.profile)
        except BaseException:
            self._free(kind)
            raise
        return Pooled(self, kind, process)

    async def close(self) -> None:
        """End those that are kept; those in use end with their sessions."""
        self._closed = True
        for process in tuple(self._idle):
            self._end(process)
        if self._ending:
            await asyncio.wait(self._ending)

    async def _wait(self, kind: _Kind) -> Pooled | None:
        """Wait for a process of this kind, or (None) for the right to start one; either counts as used."""
        waiting = self._waiting.setdefault(kind, deque())
        turn: asyncio.Future[Pooled | None] = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        self._call(kind)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                given = turn.result()
                if given is None:
                    self._free(kind)
                else:
                    self.back(given, kind)
            raise
        finally:
            if turn in waiting:
                waiting.remove(turn)
            if not waiting and self._waiting.get(kind) is waiting:
                del self._waiting[kind]

    def rests(self, process: Pooled, told: asyncio.Future[None]) -> None:
        """A session could do without its process: `told` is done once another one waits for it."""
        self._resting.setdefault(process.kind, OrderedDict())[process] = told
        self._call(process.kind)

    def rises(self, process: Pooled) -> None:
        """It needs it again, or has left it."""
        resting = self._resting.get(process.kind)
        if resting is not None:
            resting.pop(process, None)
            if not resting:
                del self._resting[process.kind]

    def _call(self, kind: _Kind) -> None:
        """Have as many that rest leave as are waited for."""
        resting = self._resting.get(kind, OrderedDict())
        needed = len(self._waiting.get(kind, ())) - sum(told.done() for told in resting.values())
        for told in [told for told in resting.values() if not told.done()][: max(0, needed)]:
            told.set_result(None)

    def back(self, process: Pooled, kind: _Kind) -> None:
        """A session of `kind` has left a process, which may be of another kind by now."""
        if self._closed or not process.alive:
            self._ended(process, kind)
        elif process.kind == kind and (next_one := self._next(kind)) is not None:
            next_one.set_result(process)
        else:
            self._free(kind)
            self._idle[process] = asyncio.get_running_loop().call_later(self._idle_s, self._end, process)
            while len(self._idle) > self._most_idle:
                self._end(next(iter(self._idle)))

    def gone(self, kind: _Kind) -> None:
        """A process that a session of `kind` used has ended."""
        self._free(kind)

    def _ended(self, process: Pooled, kind: _Kind) -> None:
        self._free(kind)
        self._finish(process)

    def _free(self, kind: _Kind) -> None:
        """One less is in use: whoever waits may start one."""
        if (next_one := self._next(kind)) is not None:
            next_one.set_result(None)
            return
        self._used[kind] -= 1
        if not self._used[kind]:
            del self._used[kind]

    def _next(self, kind: _Kind) -> asyncio.Future[Pooled | None] | None:
        waiting = self._waiting.get(kind)
        while waiting:
            if not (turn := waiting.popleft()).done():
                return turn
        return None

    def _kept(self, kind: _Kind) -> Pooled | None:
        """The process of this kind that was used last, out of those that are kept."""
        for process in reversed(tuple(self._idle)):
            if process.kind == kind:
                self._idle.pop(process).cancel()
                if process.alive:
                    return process
                self._finish(process)
        return None

    def _end(self, process: Pooled) -> None:
        """End one that is kept."""
        self._idle.pop(process).cancel()
        self._finish(process)

    def _finish(self, process: Pooled) -> None:
        task = asyncio.create_task(process.end(), name="a harness process ends")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class Pooled:
    """A process in the hands of a session, until `stop`. A `HarnessProcess`."""

    def __init__(self, pool: HarnessPool, kind: _Kind, process: Startable) -> None:
        self.kind = kind
        self._pool = pool
        self._process = process

    @property
    def alive(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self._process.alive

    async def read_frame(self) -> bytes:
        """See `HarnessProcess`."""
        return await self._process.read_frame()

    async def write_frame(self, frame: bytes) -> None:
        """See `HarnessProcess`."""
        await self._process.write_frame(frame)

    def hint(self, frame: bytes) -> None:
        """See `HarnessProcess`."""
        self._process.hint(frame)

    def rest(self) -> asyncio.Future[None]:
        """See `HarnessProcess`."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pool.rests(self, told)
        return told

    def rise(self) -> None:
        """See `HarnessProcess`."""
        self._pool.rises(self)

    async def stop(self, *, reuse: frozenset[str] | None = None, finished: bool = False) -> Left:
        """See `HarnessProcess`."""
        kind = self.kind
        seen = kind.labels | (reuse or frozenset())
        misdeed: Misdeed | None = None
        try:
            if reuse is not None and (kind.ours or not seen):
                parted, misdeed = await self._parted(finished=finished)
                if parted:
                    # Taking a label off a session does not take what stood below it from who has seen it.
                    self.kind = replace(kind, labels=seen)
                    self._pool.back(self, kind)
                    return Left(None)
        except asyncio.CancelledError:
            await self._give_up(kind)
            raise
        left = await self._give_up(kind, finished=finished and misdeed is None)
        return left if misdeed is None else Left(left.code, misdeed)

    async def end(self) -> Left:
        """End a process that nobody uses."""
        return await self._process.stop()

    async def _give_up(self, kind: _Kind, *, finished: bool = False) -> Left:
        try:
            return await self._process.stop(finished=finished)
        finally:
            self._pool.gone(kind)

    async def _parted(self, *, finished: bool) -> tuple[bool, Misdeed | None]:
        """Whether the harness has left its session, as it has to by a word of its own, and nothing else is in the pipe."""
        try:
            async with asyncio.timeout(GRACE):
                for _ in range(MOST_STRAY):
                    frame = await self._process.read_frame()
                    if rpc.is_left(frame):
                        return True, None
                    if not frame:
                        break
                    if finished:
                        return False, Misdeed.AFTER_FINISH
        except (TimeoutError, ValueError, HarnessSilent):
            return False, None
        return False, None
