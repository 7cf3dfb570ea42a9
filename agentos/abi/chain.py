"""The hash chain of a session: each stored event names the SHA-256 of the one before.

What is hashed is the stored bytes, never a re-serialisation, so that any reader in any language can check.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import NotCanonical, canonical, digest, parse_strict
from agentos.abi.errors import ChainBroken

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
    """Check that `data` is the event after `head` on `subject`; return the new head and the decoded event.

    Raises ChainBroken, naming what is wrong: not canonical, wrong subject, gap, repeated or reordered event,
    or a `prev` that does not match.
    """
    where = f"{subject}#{head.seq + 1}"
    try:
        event = parse_strict(data)
        if not isinstance(event, dict) or canonical(event) != data:
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
    return Head(seq, digest(data)), event


def verify(subject: str, events: Iterable[bytes]) -> Head:
    """Check a whole chain from its first event; return its head. Raises ChainBroken."""
    head = Head.empty()
    for data in events:
        head, _ = follow(head, data, subject=subject)
    return head
