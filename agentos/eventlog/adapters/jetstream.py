"""The event log on JetStream, one account's: appends that are durable when they return, reads that skip and repeat nothing.

    client = await connect(server.url, key, name="runtime", reconnect=True)
    await ensure_streams(client, EVENT_STREAMS)
    log = JetStreamLog(client)

An append is one message, or an atomic batch, with the subject's expected last sequence on its first message. Whenever the
answer does not settle the matter (none came, or it says that the subject has moved) the subject itself is asked: the ids
behind the expected position tell whether it was our own append that moved it. A server that fails within the commit of a
batch (seen when its store is full) may keep its beginning only; repeating the append adds the rest.

Reads are batched direct gets, the tail of `follow` is a standing pull; both check that no position is missing and begin
again behind the last one seen.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.nuid import NUID

from agentos.abi.errors import LogUnavailable, SequenceConflict, TooLarge
from agentos.eventlog.adapters.stream_reading import PAGE, Link, Page, get_last, get_page, tail
from agentos.eventlog.port import Message, Stored, ids_of
from agentos.eventlog.subject import stream_of, subjects_of

_KEEPS: Final[dict[str, Any]] = {
    "storage": "file",
    "retention": "limits",
    "discard": "new",  # should a limit ever be set, refuse what is new rather than drop what is old
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "max_msgs_per_subject": -1,
    "max_msg_size": -1,
    "deny_delete": True,
    "deny_purge": True,
    "allow_direct": True,
    "allow_atomic": True,
}
_ABSENT: Final[dict[str, Any]] = {  # other ways to write, rewrite, or lose what was written
    "allow_rollup_hdrs": False,
    "allow_msg_ttl": False,
    "mirror": None,
    "no_ack": False,
    "persist_mode": None,
    "republish": None,
    "sealed": False,
    "sources": None,
    "subject_transform": None,
}
_OPEN_BATCHES = 40  # per stream; the server refuses more than 50
_OTHER_CONFIG = 10058
_MISSING = frozenset({10059})
_FULL = frozenset({10023, 10028, 10047, 10077})  # resources of the account, memory, storage, store failed
_KNOWN_ID = 10201
_MOVED = frozenset({10071, 10164, _KNOWN_ID})  # wrong last sequence, the same in a batch, an id that is known


class JetStreamLog:
    """The `EventLog` of the account that `client` is a user of.

    A lost connection or answer is waited for and retried within `patience` seconds, then LogUnavailable is raised. `client`
    must reconnect for that (`connect(…, reconnect=True)`).
    """

    def __init__(self, client: Client, *, patience: float = 10.0) -> None:
        self._client = client
        self._link = Link(client, patience)
        self._batches: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_OPEN_BATCHES))
        self._nuid = NUID()

    async def append(self, subject: str, messages: Sequence[Message], *, after: int) -> int:
        """See `EventLog.append`. LogUnavailable leaves open whether it is stored: repeat it, or read the subject again."""
        ids, stream, rest = ids_of(messages), stream_of(subject), list(messages)
        tries = self._link.tries(subject)
        while True:
            seconds = await tries.next()
            try:
                answer = await self._publish(stream, subject, rest, after, seconds)
            except MaxPayloadError as error:
                raise TooLarge(
                    "a message is larger than the server takes",
                    where=subject,
                    mend="keep large content in files and log its digest",
                ) from error
            except NatsError as error:
                # Lost on the way there or on the way back: what the subject holds decides.
                await tries.lost(error)
                known = False
            else:
                refusal = answer.get("error")
                if refusal is None and not answer.get("duplicate"):
                    return int(answer["seq"])
                if refusal is not None and refusal.get("err_code") not in _MOVED:
                    raise _refused(subject, refusal)
                known = refusal is None or refusal.get("err_code") == _KNOWN_ID
            done, after = await self._settle(subject, ids, after)
            ids, rest = ids[done:], rest[done:]
            if not rest:
                return after
            if known and not done:
                raise SequenceConflict("an id of this append is stored elsewhere in the stream", where=subject)

    async def read(self, subject: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        """See `EventLog.read`."""
        last = await self.last(subject)
        end = 0 if last is None else last.position
        while after < end:
            page = (await self._page(stream_of(subject), subject, after)).until(end)
            for stored in page.messages:
                yield stored
            after = page.messages[-1].position if page.messages else end

    async def last(self, subject: str) -> Stored | None:
        """See `EventLog.last`."""
        stream, tries = stream_of(subject), self._link.tries(subject)
        while True:
            seconds = await tries.next()
            try:
                return await get_last(self._client, stream, subject, seconds)
            except NatsError as error:
                await tries.lost(error)

    async def scan(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        """See `EventLog.scan`."""
        end = await self.end(stream)
        while after < end:
            page = (await self._page(stream, None, after)).until(end)
            for stored in page.messages:
                yield stored
            after = page.messages[-1].position if page.messages else end

    async def follow(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored, None]:
        """See `EventLog.follow`. Close it (`contextlib.aclosing`) when it is left before it is cancelled."""
        while True:
            async with aclosing(self.scan(stream, after=after)) as past:
                async for stored in past:
                    after = stored.position
                    yield stored
            async with aclosing(tail(self._link, stream, after)) as coming:
                async for stored in coming:
                    after = stored.position
                    yield stored

    async def end(self, stream: str) -> int:
        """See `EventLog.end`."""
        answer = await self._link.api(f"STREAM.INFO.{stream}", {})
        if "error" in answer:
            raise _refused(stream, answer["error"])
        return int(answer["state"]["last_seq"])

    async def _publish(
        self, stream: str, subject: str, messages: Sequence[Message], after: int, seconds: float
    ) -> dict[str, Any]:
        """Send an append; the server's answer. Raises nats errors."""
        expected = {"Nats-Expected-Last-Subject-Sequence": str(after)}
        if len(messages) == 1:
            headers = {"Nats-Msg-Id": messages[0].id, **expected}
            answer = await self._client.request(subject, messages[0].data, timeout=seconds, headers=headers)
        else:
            async with self._batches[stream]:
                batch = self._nuid.next().decode("ascii")
                for number, message in enumerate(messages[:-1], start=1):
                    headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number), "Nats-Msg-Id": message.id}
                    await self._client.publish(subject, message.data, headers=headers | expected if number == 1 else headers)
                headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(len(messages)), "Nats-Batch-Commit": "1"}
                headers["Nats-Msg-Id"] = messages[-1].id
                answer = await self._client.request(subject, messages[-1].data, timeout=seconds, headers=headers)
        body: dict[str, Any] = json.loads(answer.data)
        return body

    async def _settle(self, subject: str, ids: list[str], after: int) -> tuple[int, int]:
        """How many of `ids` are stored behind `after`, and the position of the last of them (`after` for none).

        Raises SequenceConflict if something else stands where they are to go.
        """
        last = await self.last(subject)
        end = 0 if last is None else last.position
        found: list[tuple[str, int]] = []
        seen = after
        while len(found) < len(ids) and seen < end:
            page = await self._page(stream_of(subject), subject, seen, batch=len(ids))
            found += zip(page.ids, (stored.position for stored in page.messages), strict=True)
            seen = found[-1][1] if page.messages else end
        found = found[: len(ids)]
        if end < after or [known for known, _ in found] != ids[: len(found)]:
            raise SequenceConflict(
                f"{subject} ends at position {end}, expected {after}",
                where=subject,
                mend="read the subject again and repeat on top of what is there",
            )
        return len(found), found[-1][1] if found else after

    async def _page(self, stream: str, subject: str | None, after: int, *, batch: int = PAGE) -> Page:
        tries = self._link.tries(subject or stream)
        while True:
            seconds = await tries.next()
            try:
                return await get_page(self._client, stream, subject, after, seconds, batch=batch)
            except NatsError as error:
                await tries.lost(error)


async def ensure_streams(client: Client, names: Iterable[str], *, patience: float = 10.0) -> None:
    """Make the streams that are missing; check that those that exist keep what they are given.

    Raises LogUnavailable when one cannot be made, or could lose, change or hide messages (the field and its value are said).
    """
    link = Link(client, patience)
    await asyncio.gather(*(_ensure_stream(link, name) for name in names))


async def _ensure_stream(link: Link, name: str) -> None:
    wanted = {"name": name, "subjects": [subjects_of(name)], **_KEEPS}
    answer = await link.api(f"STREAM.CREATE.{name}", wanted)
    if answer.get("error", {}).get("err_code") == _OTHER_CONFIG:
        answer = await link.api(f"STREAM.INFO.{name}", {})
    if "error" in answer:
        raise _refused(name, answer["error"])
    found = answer["config"]
    wrong = [
        f"{field} is {json.dumps(found.get(field))}, expected {json.dumps(value)}"
        for field, value in (wanted | _ABSENT).items()
        if (found.get(field) or None) != (value or None)
    ]
    if wrong:
        raise LogUnavailable(
            f"stream {name} is not fit for the event log: {'; '.join(wrong)}",
            where=name,
            mend="use an account of its own for AgentOS, or correct the stream's configuration",
        )


def _refused(where: str, refusal: dict[str, Any]) -> LogUnavailable:
    """What a refusal of the JetStream API means."""
    code, said = refusal.get("err_code"), str(refusal.get("description", "no reason given"))
    if code in _FULL or "no space left" in said:
        return LogUnavailable(
            f"the event log has no space left: {said}",
            where=where,
            mend="free space on its disk or raise the limit of the server",
        )
    if code in _MISSING:
        return LogUnavailable(
            f"the event log has no such stream: {said}", where=where, mend="start the runtime, it makes its streams"
        )
    return LogUnavailable(f"the event log refuses: {said} ({code})", where=where, mend="look into the log of the nats-server")
