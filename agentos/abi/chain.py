"""The hash chain of a session: each event names the SHA-256 of the one before.

What is hashed is the stored bytes of the header (`abi.record`), never a re-serialisation, so that any reader in any language can
check, also one who is not shown the payload.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import NotCanonical, digest
from agentos.abi.errors import ChainBroken
from agentos.abi.exact import read_exact
from agentos.abi.record import opened, split

GENESIS: Final = "sha256:" + "0" * 64
"""`prev` of the first event of every chain."""


@dataclass(frozen=True, slots=True)
class Head:
    """The tip of a chain: how many events it has and the hash of the last one."""

    seq: int
    hash: str

    @classmethod
    def empty(cls) -> Head:
        return cls(0, GENESIS)


def follow(head: Head, data: bytes, *, subject: str) -> tuple[Head, dict[str, object]]:
    """Check that `data` (a record, or an open event) is the event after `head` on `subject`; return the new head and the event.

    The event is decoded, its payload as `data`; a withheld one has `p` instead.
    Raises ChainBroken, naming what is wrong: not canonical, wrong subject, gap, repeated or reordered event, a `prev` that does
    not match, or a payload that is not the header's.
    """
    where = f"{subject}#{head.seq + 1}"
    header, opening = split(data)
    try:
        event = read_exact(header)
        if not isinstance(event, dict):
            raise ChainBroken("the stored bytes are not a canonical JSON object", where=where)
    except NotCanonical as error:
        raise ChainBroken(f"the stored bytes are not canonical JSON: {error}", where=where) from error
    if event.get("subject") != subject:
        raise ChainBroken(f"the event belongs to {event.get('subject')!r}", where=where)
    seq = event.get("seq")
    if type(seq) is not int or seq != head.seq + 1:
        raise ChainBroken(f"expected event {head.seq + 1}, found {seq}: one was dropped, added or moved", where=where)
    if event.get("prev") != head.hash:
        raise ChainBroken("`prev` is not the hash of the event before: one of them was edited", where=where)
    try:
        return Head(seq, digest(header)), opened(event, opening)
    except ValueError as error:
        raise ChainBroken(str(error), where=where) from error


def verify(subject: str, events: Iterable[bytes]) -> Head:
    """Check a whole chain from its first event; return its head. Raises ChainBroken."""
    head = Head.empty()
    for data in events:
        head, _ = follow(head, data, subject=subject)
    return head
