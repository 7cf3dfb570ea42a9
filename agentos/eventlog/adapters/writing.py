"""Carrying out appends to one stream, and finding out what became of them.

    alone       one append: a publish, or a batch of its own
    together    many appends in one atomic batch: the server stores all or none

No answer, or one that says "moved", does not settle the matter: the subjects themselves are asked. The ids behind the expected
position tell whether it was our own append that moved a subject. After a batch was refused, those that did move get their own
answer, and the others are committed again without them.

A server that fails within the commit of a batch (seen when its store is full) answers nothing and may have kept its beginning,
perhaps not yet on disk. So what a batch without an answer has stored in part counts as stored only once something later is
acknowledged: then it is on disk as well.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from nats.errors import ConnectionReconnectingError, MaxPayloadError
from nats.errors import Error as NatsError
from nats.nuid import NUID

from agentos.abi.errors import AgentOSError, LogUnavailable, SequenceConflict, TooLarge
from agentos.eventlog.adapters.append_wire import Append, batch_frames, single_headers
from agentos.eventlog.adapters.refusal import BATCH_TOO_LARGE, BATCHES_OFF, FULL, KNOWN_ID, LATER, MOVED, explain
from agentos.eventlog.adapters.stream_reading import Link
from agentos.eventlog.port import MAX_BATCH

AT_ONCE: Final = 16
"""Appends of a refused batch that are looked after one by one at a time."""

Settle = Callable[[Append, int | AgentOSError], None]


class Writer:
    """Writes to `stream` over `link`; tells `settle` the outcome of each append; the first outcome counts.

    `most` is how many messages a batch may have.
    """

    def __init__(self, link: Link, stream: str, settle: Settle) -> None:
        self._link = link
        self._client = link.client
        self._stream = stream
        self._settle = settle
        self._nuid = NUID()
        self._atomic: bool | None = None
        self._asked_at = -1  # the connection that `_atomic` was asked on
        self.most = MAX_BATCH

    @property
    def atomic(self) -> bool | None:
        """Whether the stream takes atomic batches; None when the server was not asked yet (after a reconnect: not again)."""
        return self._atomic if self._asked_at == self._link.generation else None

    async def learn(self, *, since: float | None = None) -> None:
        """Ask whether the stream takes atomic batches; servers before 2.12 do not know of them. Raises LogUnavailable.

        The patience counts from `since` (loop time), else from now.
        """
        asked_at = self._link.generation
        answer = await self._link.api(f"STREAM.INFO.{self._stream}", {}, since=since)
        if "error" in answer:
            raise explain(self._stream, answer["error"])
        self._atomic, self._asked_at = answer["config"].get("allow_atomic") is True, asked_at

    async def _learn_for(self, append: Append) -> None:
        try:
            await self.learn(since=append.since)
        except LogUnavailable as error:
            raise _copy(error, append) from error

    async def alone(self, append: Append) -> None:
        """Store one append."""
        try:
            outcome: int | AgentOSError = await self._store(append)
        except AgentOSError as error:
            outcome = error
        self._settle(append, outcome)

    async def together(self, appends: Sequence[Append]) -> None:
        """Store appends to different subjects, no id twice among them, in one batch as far as they can be."""
        tries = self._link.tries(self._stream, since=min(append.since for append in appends))
        left, stored = list(appends), _Unproved(self._settle)
        in_doubt = False
        while left:
            try:
                seconds = await tries.next()
                try:
                    last = await self._send_batch(left, seconds)
                except NatsError as error:
                    await tries.lost(error)
                    in_doubt = True
                else:
                    if isinstance(last, int):
                        stored.prove()
                        self._place(left, last)
                        return
                    code = last.get("err_code")
                    if code in FULL:
                        raise explain(self._stream, last)
                    if code not in MOVED:
                        self._less(code)
                        await self._each(left, stored)
                        return
                before = len(left)
                left = await self._stayed(left, stored)
            except LogUnavailable as error:
                stored.fail(error)
                for append in left:
                    self._settle(append, _copy(error, append))
                return
            if not in_doubt or not left:
                stored.prove()  # a batch that was refused, or is whole: nothing of it hangs in the air
            if not in_doubt and len(left) == before:
                await self._each(left, stored)
                return

    async def _each(self, appends: Iterable[Append], stored: _Unproved) -> None:
        """Look after appends one by one."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(append: Append) -> LogUnavailable | None:
            async with turns:
                try:
                    position = await self._store(append)
                except LogUnavailable as error:
                    self._settle(append, error)
                    return error
                except AgentOSError as error:
                    self._settle(append, error)
                    return None
                stored.prove()
                self._settle(append, position)
                return None

        lost = [error for error in await asyncio.gather(*(one(append) for append in appends)) if error is not None]
        if lost:
            stored.fail(lost[0])
        stored.prove()

    async def _store(self, append: Append) -> int:
        """Store one append, whatever it takes; the position of its last message. Raises AgentOSError."""
        tries = self._link.tries(append.subject, since=append.since)
        whole, torn = len(append.messages) > 1, False
        if whole and self.atomic is None:
            await self._learn_for(append)
        whole = whole and self.atomic is True and len(append.messages) <= self.most
        while True:
            seconds = await tries.next()
            known = False
            try:
                if whole and len(append.messages) > 1:
                    answer = await self._send_batch([append], seconds)
                else:
                    answer = await self._send_first(append, seconds)
            except MaxPayloadError as error:
                raise too_large(append.subject) from error
            except NatsError as error:
                await tries.lost(error)
            else:
                if isinstance(answer, int):
                    if whole or len(append.messages) == 1:
                        return answer
                    append.stored(1, answer)
                    torn = True
                    continue
                code = answer.get("err_code")
                if code in LATER:
                    await tries.put_off(str(answer.get("description")))
                    continue
                if code in (BATCHES_OFF, BATCH_TOO_LARGE):
                    self._less(code)
                    whole = False
                    continue
                if code not in MOVED:
                    raise explain(append.subject, answer)
                known = code == KNOWN_ID
            last = await self._resume(append, known=known, torn=torn)
            if last is not None:
                return last

    async def _resume(self, append: Append, *, known: bool, torn: bool) -> int | None:
        """Take from `append` what is stored of it; the position of the last message if that was all. Raises SequenceConflict.

        `known`: the server knows an id of it. `torn`: it is being appended message by message, and its beginning is stored.
        """
        try:
            count, last = await self._found(append)
        except SequenceConflict as error:
            if torn:
                raise _torn(append) from error
            raise
        append.stored(count, last)
        if known and not count:
            raise SequenceConflict("an id of this append is stored elsewhere in the stream", where=append.subject)
        return None if append.messages else last

    async def _send_first(self, append: Append, seconds: float) -> int | dict[str, Any]:
        """Publish the first message of `append`; its position, or why it was refused. Raises nats errors."""
        message = append.messages[0]
        headers = single_headers(message, append.after)
        answer = await self._client.request(append.subject, message.data, timeout=seconds, headers=headers)
        return _read(answer.data)

    async def _send_batch(self, appends: Sequence[Append], seconds: float) -> int | dict[str, Any]:
        """Publish an atomic batch; the position of its last message, or why it was refused. Raises nats errors."""
        if not self._client.is_connected:
            raise ConnectionReconnectingError
        batch = self._nuid.next().decode("ascii")
        pieces, commit = batch_frames(batch, appends)
        # One write for the whole batch: a publish of the client per message costs four times as much.
        await self._client._send_command(b"".join(pieces))  # noqa: SLF001 - there is no public way
        answer = await self._client.request(commit.subject, commit.data, timeout=seconds, headers=commit.headers)
        return _read(answer.data, batch, sum(len(append.messages) for append in appends))

    def _place(self, appends: Iterable[Append], last: int) -> None:
        """Tell the appends of a batch that ends at `last` their positions: a batch is stored in one piece."""
        position = last - sum(len(append.messages) for append in appends)
        for append in appends:
            position += len(append.messages)
            self._settle(append, position)

    async def _stayed(self, appends: Sequence[Append], stored: _Unproved) -> list[Append]:
        """Settle the appends whose subjects have moved; those (or what is left of them) that may be committed again."""
        ends = await self._link.lasts(self._stream, [append.subject for append in appends])
        turns = asyncio.Semaphore(AT_ONCE)

        async def look(append: Append) -> bool:
            if ends.get(append.subject, 0) == append.after:
                return True
            async with turns:
                try:
                    count, last = await self._found(append)
                except SequenceConflict as error:
                    self._settle(append, error)
                    return False
            append.stored(count, last)
            if not append.messages:
                stored.add(append, last)
            return bool(append.messages)

        stay = await asyncio.gather(*(look(append) for append in appends))
        return [append for append, stays in zip(appends, stay, strict=True) if stays]

    async def _found(self, append: Append) -> tuple[int, int]:
        """How many messages of `append` are stored where they are to go, and the position of the last of them.

        Raises SequenceConflict if something else stands there, LogUnavailable if it cannot be found out.
        """
        found: list[tuple[str, int]] = []
        last = await self._link.last(self._stream, append.subject)
        end, seen = 0 if last is None else last.position, append.after
        while len(found) < len(append.ids) and seen < end:
            page = await self._link.page(self._stream, append.subject, seen, batch=len(append.ids))
            found += zip(page.ids, (message.position for message in page.messages), strict=True)
            seen = found[-1][1] if page.messages else end
        found = found[: len(append.ids)]
        if end < append.after or [known for known, _ in found] != append.ids[: len(found)]:
            raise SequenceConflict(
                f"{append.subject} ends at position {end}, expected {append.after}",
                where=append.subject,
                mend="read the subject again and repeat on top of what is there",
            )
        return len(found), found[-1][1] if found else append.after

    def _less(self, code: int | None) -> None:
        """Remember what the server does not take."""
        if code == BATCHES_OFF:
            self._atomic, self._asked_at = False, self._link.generation
        elif code == BATCH_TOO_LARGE:
            self.most = max(self.most // 2, 1)


class _Unproved:
    """Appends that were seen in the log after a batch got no answer: stored, if the batch is whole or something later is."""

    def __init__(self, settle: Settle) -> None:
        self._settle = settle
        self._seen: list[tuple[Append, int]] = []

    def add(self, append: Append, position: int) -> None:
        self._seen.append((append, position))

    def prove(self) -> None:
        """They are on disk."""
        seen, self._seen = self._seen, []
        for append, position in seen:
            self._settle(append, position)

    def fail(self, error: LogUnavailable) -> None:
        """It cannot be told."""
        seen, self._seen = self._seen, []
        for append, _ in seen:
            self._settle(append, _copy(error, append))


def too_large(subject: str) -> TooLarge:
    """A message that this server never takes."""
    return TooLarge(
        "a message is larger than the server takes", where=subject, mend="keep large content in files and log its digest"
    )


def _torn(append: Append) -> LogUnavailable:
    return LogUnavailable(
        f"another writer came between the messages of an append to {append.subject}; its beginning is stored",
        where=append.subject,
        mend="read the subject again; a stream with allow_atomic keeps an append in one piece",
    )


def _copy(error: LogUnavailable, append: Append) -> LogUnavailable:
    """The same error about another subject: an exception instance belongs to one waiter."""
    copy = LogUnavailable(error.message, where=append.subject, mend=error.mend)
    copy.__cause__ = error
    return copy


def _read(data: bytes, batch: str | None = None, count: int | None = None) -> int | dict[str, Any]:
    """The position in an acknowledgement, or its refusal; raises nats errors for one that is about something else."""
    answer = json.loads(data)
    refusal: dict[str, Any] | None = answer.get("error")
    if refusal is not None:
        return refusal
    if answer.get("duplicate"):
        return {"err_code": KNOWN_ID}
    if (answer.get("batch"), answer.get("count")) != (batch, count):
        raise NatsError("nats: the acknowledgement is not that of the batch")
    return int(answer["seq"])
