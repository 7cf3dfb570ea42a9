"""Which streams an account has, as one process knows it: made when first needed, found when somebody else made them.

A stream is ensured once, by the first append to it; after that nothing is asked any more. Whoever follows the log hears of a new
event stream at once when it came into being here, or was seen by `ends`; every `LOOK_S` the server is asked what other processes
made. What was dropped on purpose is forbidden: an append must not make an empty stream of its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Final

from agentos.abi.errors import Conflict, LogUnavailable
from agentos.eventlog.adapters.refusal import MISSING, explain
from agentos.eventlog.adapters.stream_reading import Link
from agentos.eventlog.adapters.streams import StreamFacts, ensure_stream, every_stream
from agentos.eventlog.subject import event_streams

LOOK_S: Final = 30.0
"""Seconds between two looks for event streams that another process made."""


class StreamSet:
    """The streams of the account that `link` leads to. New ones get `replicas`."""

    def __init__(self, link: Link, replicas: int) -> None:
        self.replicas = replicas
        self._link = link
        self._there: set[str] = set()  # ensured, or found to exist
        self._seen: set[str] = set()  # event streams that followers were told of
        self._forbidden: set[str] = set()
        self._making: dict[str, asyncio.Task[StreamFacts]] = {}
        self._widened = asyncio.Event()

    def forbid(self, streams: Iterable[str]) -> None:
        """Never make these again: they were dropped on purpose."""
        self._forbidden |= set(streams)
        self._there -= self._forbidden
        self._seen -= self._forbidden

    async def ensure(self, stream: str, subject: str) -> None:
        """Make `stream` for an append to `subject` if it is not there. Raises LogUnavailable, Conflict for a forbidden one."""
        if stream in self._forbidden:
            raise Conflict(
                f"{stream} was retired: nothing can be added to the sessions of its period",
                where=subject,
                mend="begin a new session; what the old one did is in the packs that were exported",
            )
        making = self._making.get(stream)
        if making is None:
            making = self._making[stream] = asyncio.create_task(ensure_stream(self._link, stream, self.replicas))
            making.add_done_callback(lambda task: self._made(stream, task))
        try:
            # Others wait for the same stream: who leaves does not stop it.
            await asyncio.shield(making)
        except LogUnavailable as error:
            raise LogUnavailable(error.message, where=subject, mend=error.mend) from error

    def _made(self, stream: str, task: asyncio.Task[StreamFacts]) -> None:
        del self._making[stream]
        if not task.cancelled() and task.exception() is None:
            self._found([stream])

    async def exists(self, stream: str) -> bool:
        """Whether there is such a stream; asks the server until there is. Raises LogUnavailable."""
        if stream in self._there:
            return True
        answer = await self._link.api(f"STREAM.INFO.{stream}", {})
        if "error" not in answer:
            self._found([stream])
        elif answer["error"].get("err_code") not in MISSING:
            raise explain(stream, answer["error"])
        return stream in self._there

    async def ends(self) -> dict[str, int]:
        """See `EventLog.ends`."""
        facts = {found.name: found.last for found in await every_stream(self._link)}
        self._found(facts)
        return {name: facts[name] for name in event_streams(facts)}

    async def new(self, known: Collection[str]) -> tuple[str, ...]:
        """See `EventLog.new_streams`."""
        while True:
            widened = self._widened
            found = tuple(name for name in event_streams(self._seen) if name not in known)
            if found:
                return found
            try:
                async with asyncio.timeout(LOOK_S):
                    await widened.wait()
            except TimeoutError:
                await self.ends()

    def _found(self, streams: Iterable[str]) -> None:
        fresh = set(event_streams(streams)) - self._seen
        self._there |= set(streams) - self._forbidden
        if fresh:
            self._seen |= fresh
            widened, self._widened = self._widened, asyncio.Event()
            widened.set()
