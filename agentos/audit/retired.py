"""A stream that was retired: dropped whole on purpose, after it was exported. What it was is told and signed once and for all.

An event `agentos.audit.retired` of the audit chain carries, beside whatever its writer says of it, these fields:

    stream   EV_202505_0
    size     how many events it had
    root     root of the tree over all of them, in hex
    packs    digests of the packs that it was exported to
    note     the same as a signed note, below

    agentos retired stream v1
    agentos/5d0c2f…/default                            the log
    time 2026-11-21T08:30:00.125Z
    stream EV_202505_0 4711 n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=
    pack sha256:…                                      one line for each

The note is what counts: whoever can write into the log and has not the signing key cannot make a stream that was deleted look as
if it had been retired, nor have one dropped that was not (`vouched`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import orjson

from agentos.abi.canonical import Json
from agentos.abi.errors import ChainBroken, EvidenceError
from agentos.abi.event import AUDIT_RETIRED, parse_rfc3339, rfc3339
from agentos.audit.checkpoint import Tree
from agentos.audit.keys import SigningKey
from agentos.audit.note import Verifier, parse_note, sign_note
from agentos.audit.rotation import TrustedKey
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import AUDIT_CHAIN

_MEND: Final = "find out who wrote that into the log: agentos audit verify"
_HEAD: Final = "agentos retired stream v1"
_PACK: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_STREAM: Final = re.compile(r"EV_[0-9]{1,6}(?:_[0-9]{1,3})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Retired:
    """What a retired stream was: its whole tree, the packs it was exported to, and when."""

    origin: str
    stream: str
    tree: Tree
    packs: tuple[str, ...]
    time_ms: int

    def text(self) -> str:
        """What is signed."""
        root = base64.b64encode(self.tree.root).decode("ascii")
        lines = [_HEAD, self.origin, f"time {rfc3339(self.time_ms)}", f"stream {self.stream} {self.tree.size} {root}"]
        return "".join(f"{line}\n" for line in [*lines, *(f"pack {pack}" for pack in self.packs)])

    def to_data(self, key: SigningKey) -> dict[str, Json]:
        """The fields of the event. Raises EvidenceError for a stream that holds no sessions and for what is no digest."""
        if _STREAM.fullmatch(self.stream) is None or not all(map(_PACK.fullmatch, self.packs)):
            raise EvidenceError(f"{self.stream} cannot be retired, or a pack of it is named by no digest", where=self.stream)
        return {
            "stream": self.stream,
            "size": self.tree.size,
            "root": self.tree.root.hex(),
            "packs": list(self.packs),
            "note": sign_note(self.text(), self.origin, key),
        }


async def named_retired(log: EventLog) -> AsyncIterator[str]:
    """The streams that the audit chain of `log` says were retired, whether or not somebody trusted has signed that."""
    async with aclosing(log.read(AUDIT_CHAIN)) as events:
        async for stored in events:
            try:
                event = orjson.loads(stored.data)
                if event["type"] == AUDIT_RETIRED:
                    yield str(event["data"]["stream"])
            except (orjson.JSONDecodeError, LookupError, TypeError):
                continue


async def vouched(log: EventLog, origin: str, keys: Sequence[TrustedKey]) -> dict[str, Retired]:
    """The streams that the audit chain of `log` says were retired, each as one of `keys` has signed it.

    Raises ChainBroken for an event that says so and is not signed, LogUnavailable.
    """
    found: dict[str, Retired] = {}
    async with aclosing(log.read(AUDIT_CHAIN)) as events:
        async for stored in events:
            try:
                one = read_retired(stored.data, origin, keys)
            except EvidenceError as error:
                said = f"what is said to have been retired is not dropped: {error.message}"
                raise ChainBroken(said, where=f"{AUDIT_CHAIN} position {stored.position}", mend=_MEND) from error
            if one is not None:
                found.setdefault(one.stream, one)
    return found


def read_retired(stored: bytes, origin: str, keys: Sequence[TrustedKey]) -> Retired | None:
    """What the stored event of the audit chain says, None if it is of another type.

    Raises EvidenceError for one that is not signed by one of `keys` while that key was in use, or contradicts its note.
    """
    try:
        event = orjson.loads(stored)
        if event["type"] != AUDIT_RETIRED:
            return None
        data = event["data"]
        note = parse_note(data["note"])
        times = [line.removeprefix("time ") for line in note.text.split("\n")[2:3]]
        tree = Tree(int(data["size"]), bytes.fromhex(data["root"]))
        found = Retired(origin, data["stream"], tree, tuple(data["packs"]), parse_rfc3339(times[0]))
        said = found.text()
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise EvidenceError(f"an event of the audit chain cannot be read: {type(error).__name__}: {error}") from error
    if said != note.text:
        raise EvidenceError(f"the note under the end of {found.stream} says something else")
    verifiers = {Verifier(origin, key.public): key for key in keys}
    signers = [verifiers[one] for one in note.signers(tuple(verifiers))]
    if not any(key.counts_at(found.time_ms) for key in signers):
        raise EvidenceError(f"nobody who is trusted has signed that {found.stream} was retired")
    return found
