"""One append, and how appends look on the wire: a publish with headers, or the frames of an atomic batch (NATS ADR-50).

    Nats-Msg-Id                            on every message: a repetition is recognised
    Nats-Expected-Last-Subject-Sequence    on the first message of each subject, and on none of its later ones
    Nats-Batch-Id, Nats-Batch-Sequence     on every message of a batch, counted from 1
    Nats-Batch-Commit: 1                   on the last one, which alone is answered

Pure, except that an append carries the future its caller waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentos.eventlog.port import Message

HEADER_ROOM: Final = 512
"""Bytes of all headers of a message at most, its id not counted (a subject and a batch id are far shorter than this)."""


@dataclass(slots=True, eq=False)
class Append:
    """Messages to be stored together behind position `after` of `subject`; `since` is when they were handed in (loop time)."""

    subject: str
    messages: Sequence[Message]
    ids: list[str]
    after: int
    since: float
    done: asyncio.Future[int]
    size: int
    """Bytes on the wire, about."""
    over: bool = False
    """Whether its caller has been told how it ended, or has left."""

    def stored(self, count: int, last: int) -> None:
        """The first `count` messages are in the log already, the last of them at `last`: the rest remains to be appended."""
        self.messages, self.ids, self.after = self.messages[count:], self.ids[count:], last


@dataclass(frozen=True, slots=True)
class Commit:
    """The last message of a batch, sent as a request."""

    subject: str
    data: bytes
    headers: dict[str, str]


def single_headers(message: Message, after: int) -> dict[str, str]:
    """The headers of a message that is published by itself."""
    return {"Nats-Msg-Id": message.id, "Nats-Expected-Last-Subject-Sequence": str(after)}


def batch_frames(batch: str, appends: Sequence[Append]) -> tuple[list[bytes], Commit]:
    """Pieces of the protocol for all messages of `appends` but the last, and that last one.

    `batch` is the id of the batch, fresh each time. Subjects and ids have been checked (`stream_of`, `ids_of`): neither holds
    a blank or a line end.
    """
    pieces: list[bytes] = []
    number, before = 0, appends[-1]
    for append in appends:
        expected = f"\r\nNats-Expected-Last-Subject-Sequence: {append.after}\r\n\r\n"
        messages = append.messages if append is not before else append.messages[:-1]
        for message in messages:
            number += 1
            head = f"NATS/1.0\r\nNats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number}\r\nNats-Msg-Id: {message.id}{expected}"
            expected = "\r\n\r\n"
            command = f"HPUB {append.subject} {len(head)} {len(head) + len(message.data)}\r\n{head}"
            pieces += (command.encode("ascii"), message.data, b"\r\n")
    headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number + 1), "Nats-Batch-Commit": "1"}
    headers["Nats-Msg-Id"] = before.messages[-1].id
    if len(before.messages) == 1:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(before.after)
    return pieces, Commit(before.subject, before.messages[-1].data, headers)
