"""Failpoints: where a runtime under test kills itself, to show that a crash there loses nothing and repeats nothing.

    AGENTOS_FAILPOINT=after-append:12 agentos up      # SIGKILL once the twelfth append of a session's event is acknowledged

| point | passed |
| --- | --- |
| before-append, after-append | around each append to a session |
| before-TYPE, after-TYPE | the same, of one type of event: `before-syscall.decided`, `after-session.owned` |
| before-act, after-act | around each call of a tool |
| before-model, after-model | around each call of a model |
| before-firing.NAME, after-firing.NAME | around each write to the record of a trigger |
| before-mark.NAME, after-mark.NAME | around what is kept of a firing of it that is done with |

It is for tests alone. Without the variable nothing is wrapped; with it the runtime says so in its log as it starts.
"""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.abi.record import header_of
from agentos.abi.syscall import Result
from agentos.drivers.port import CallContext, Driver, Found, ModelProvider, ModelReply, ModelRequest, ModelSpec, ToolSpec
from agentos.eventlog.port import EventLog, Message, Stored
from agentos.supervisor.progress import ProgressStore

log = logging.getLogger(__name__)

VARIABLE: Final = "AGENTOS_FAILPOINT"

_SPEC: Final = re.compile(r"((?:before|after)-[a-z.]+):([1-9][0-9]{0,6})", re.ASCII)
_TYPE: Final = re.compile(rb'"type":"agentos\.([a-z.]+)"', re.ASCII)


class Failpoints:
    """Counts passes of one point, and kills this process at the n-th."""

    def __init__(self, name: str, number: int, kill: Callable[[], None] | None = None) -> None:
        self._name = name
        self._left = number
        self._kill = kill or _kill

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Failpoints | None:
        """The failpoint that the environment asks for, None if it asks for none. Raises UsageError for one that is none."""
        text = environment.get(VARIABLE)
        if not text:
            return None
        found = _SPEC.fullmatch(text)
        if found is None:
            raise UsageError(f"{VARIABLE}={text[:100]} names no failpoint", mend="say it like after-append:12")
        log.warning("%s: this runtime kills itself at pass %s of %s", VARIABLE, found[2], found[1])
        return cls(found[1], int(found[2]))

    def reach(self, name: str) -> None:
        """Pass the point `name`."""
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                self._kill()

    def log(self, inner: EventLog) -> EventLog:
        """`inner`, with a point before and after each append."""
        return _Log(inner, self)

    def drivers(self, inner: Driver) -> Driver:
        """`inner`, with a point before and after each call."""
        return _Drivers(inner, self)

    def models(self, inner: ModelProvider) -> ModelProvider:
        """`inner`, with a point before and after each call."""
        return _Models(inner, self)

    def records(self, inner: ProgressStore) -> ProgressStore:
        """`inner`, with a point before and after each write."""
        return _Records(inner, self)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Log:
    def __init__(self, inner: EventLog, points: Failpoints) -> None:
        self._inner = inner
        self._points = points

    async def append(self, subject: str, messages: Sequence[Message], *, after: int) -> int:
        kinds = [found[1].decode("ascii") for one in messages if (found := _TYPE.search(header_of(one.data)))]
        self._reach("before", kinds)
        position = await self._inner.append(subject, messages, after=after)
        self._reach("after", kinds)
        return position

    def _reach(self, when: str, kinds: Sequence[str]) -> None:
        for name in ("append", *kinds):
            self._points.reach(f"{when}-{name}")

    def read(self, subject: str, *, after: int = 0) -> AsyncGenerator[Stored]:
        return self._inner.read(subject, after=after)

    async def last(self, subject: str) -> Stored | None:
        return await self._inner.last(subject)

    def scan(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored]:
        return self._inner.scan(stream, after=after)

    def follow(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored]:
        return self._inner.follow(stream, after=after)

    async def end(self, stream: str) -> int:
        return await self._inner.end(stream)

    async def ends(self) -> dict[str, int]:
        return await self._inner.ends()

    async def streams(self) -> tuple[str, ...]:
        return await self._inner.streams()

    async def new_streams(self, known: Collection[str]) -> tuple[str, ...]:
        return await self._inner.new_streams(known)


class _Drivers:
    def __init__(self, inner: Driver, points: Failpoints) -> None:
        self._inner = inner
        self._points = points

    async def call(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        self._points.reach("before-act")
        result = await self._inner.call(tool, args, context)
        self._points.reach("after-act")
        return result

    async def reconcile(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Found | None:
        return await self._inner.reconcile(tool, args, context)

    async def release(self, session: str) -> None:
        await self._inner.release(session)

    async def close(self) -> None:
        await self._inner.close()


class _Models:
    def __init__(self, inner: ModelProvider, points: Failpoints) -> None:
        self._inner = inner
        self._points = points

    async def complete(self, model: ModelSpec, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
        self._points.reach("before-model")
        reply = await self._inner.complete(model, request, on_text)
        self._points.reach("after-model")
        return reply

    async def close(self) -> None:
        await self._inner.close()


class _Records:
    def __init__(self, inner: ProgressStore, points: Failpoints) -> None:
        self._inner = inner
        self._points = points

    async def read(self, key: str) -> tuple[bytes, int] | None:
        return await self._inner.read(key)

    async def write(self, key: str, data: bytes, *, expected: int | None) -> int:
        kind, trigger = key.split(".")[:2]
        name = f"{'firing' if kind == 'state' else kind}.{trigger}"
        self._points.reach(f"before-{name}")
        revision = await self._inner.write(key, data, expected=expected)
        self._points.reach(f"after-{name}")
        return revision

    async def forget(self, key: str) -> None:
        await self._inner.forget(key)

    async def all(self) -> list[tuple[str, bytes]]:
        return await self._inner.all()
