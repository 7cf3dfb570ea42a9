"""The event log as the rest of AgentOS sees it: append to a subject, read a subject, follow a stream."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

MAX_BATCH: Final = 1000
"""Messages of one append at most (NATS: of one atomic batch)."""

_ID: Final = re.compile(r"[!-~]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Message:
    """What is appended: `id` makes a repeated append safe, `data` is stored byte for byte."""

    id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """What was appended: `position` is the place in the stream, growing, opaque, starting at 1."""

    subject: str
    position: int
    data: bytes


class EventLog(Protocol):
    """The append-only log of one account (a tenant, or the registry). A stream holds many subjects in one order.

    A stream is made when something is first appended to it; before that it is empty to whoever reads it.
    Every method raises LogUnavailable when the log cannot be reached or cannot store (a full disk among the reasons).
    """

    async def append(self, subject: str, messages: Sequence[Message], *, after: int) -> int:
        """Store `messages` durably, all or none, as the next ones of `subject`; return the position of the last.

        `after` is the position of the subject's last message, 0 for a subject that must be empty.
        Safe to repeat: the same ids after the same position return the first answer, nothing is stored twice; should a
        server that failed in the middle have kept only the first ones, the rest is added.
        Raises SequenceConflict if the subject has moved past `after`; nothing is stored then. Raises ValueError for what
        `ids_of` refuses and for a subject of no stream, TooLarge for a message that this log can never take.
        """

    def read(self, subject: str, *, after: int = 0) -> AsyncGenerator[Stored]:
        """The messages of `subject` behind position `after`, in order, up to the end at the time of the call."""

    async def last(self, subject: str) -> Stored | None:
        """The last message of `subject`, None if it has none."""

    def scan(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored]:
        """All messages of `stream` behind position `after`, in stream order, up to the end at the time of the call."""

    def follow(self, stream: str, *, after: int = 0) -> AsyncGenerator[Stored]:
        """As `scan`, but waits for more at the end and never ends by itself; cancel to stop. Nothing is skipped or repeated.

        Raises LogUnavailable for a stream that is gone.
        """

    async def end(self, stream: str) -> int:
        """The position of the last message of `stream`, 0 if it is empty or not there."""

    async def ends(self) -> dict[str, int]:
        """The event streams that exist and the end of each: those of sessions by name, so by period, the audit chain's last."""

    async def streams(self) -> tuple[str, ...]:
        """The names of `ends`."""

    async def new_streams(self, known: Collection[str]) -> tuple[str, ...]:
        """Wait until there are event streams that are not among `known`, and name them, in the order of `ends`.

        At once for a stream that came into being through this log or was seen by its `ends`; within half a minute for one that
        another process made.
        """


def ids_of(messages: Sequence[Message]) -> list[str]:
    """The ids of an append's messages, in order.

    Raises ValueError for no messages, more than MAX_BATCH, an id that stands twice, or one that is not printable ASCII.
    """
    ids = [message.id for message in messages]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError("an append needs at least one message, and every message an id of its own")
    if len(ids) > MAX_BATCH:
        raise ValueError(f"an append takes at most {MAX_BATCH} messages, not {len(ids)}")
    for text in ids:
        if _ID.fullmatch(text) is None:
            raise ValueError(f"{text!r} cannot be the id of a message")
    return ids
