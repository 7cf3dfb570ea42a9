"""A checkpoint: one signed text that names the root of every stream of a tenant, and of all checkpoints before it.

The checkpoints of a tenant are themselves a log: checkpoint `n` states the time and the size and root of each stream, and that
statement is leaf `n` - 1 of the checkpoint log. Its text is the body of https://c2sp.org/tlog-checkpoint for that log, the
statement being the extension lines:

    agentos/5d0c2f…/default                            origin: which log this is
    812                                                how many checkpoints there are, this one included
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=       root of the checkpoint log, this one included
    time 2026-11-21T08:30:00.125Z
    stream EV_0 4711 n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=
    stream EV_1 …

So one signature covers all streams, a witness that keeps only (size, root) sees whether any earlier checkpoint was changed or
dropped, and the note by itself is enough to check that an event is in a stream. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.errors import EvidenceError
from agentos.abi.event import parse_rfc3339, rfc3339
from agentos.audit.merkle import EMPTY, HASH_SIZE, leaf_hash
from agentos.audit.note import Verifier, parse_note
from agentos.audit.rotation import TrustedKey

ORIGIN: Final = re.compile(r"agentos/[0-9a-f]{16}/(?:[a-z][a-z0-9-]{0,62}|REG)", re.ASCII)
"""What a log is called: `agentos/`, 16 hex digits of the key that began it, `/`, the tenant (`REG`: the registry)."""

_STREAM: Final = re.compile(r"stream ([A-Z][A-Z0-9_]{0,62}) (0|[1-9][0-9]{0,15}) (\S+)", re.ASCII)
_SIZE: Final = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tree:
    """How many leaves, and the root above them."""

    size: int
    root: bytes


NOTHING: Final = Tree(0, EMPTY)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint, decoded. `number` counts from 1; `root` is the checkpoint log's once this one is its last leaf."""

    origin: str
    number: int
    root: bytes
    time_ms: int
    streams: Mapping[str, Tree] = field(hash=False)

    def statement(self) -> bytes:
        """The extension lines, which are this checkpoint's leaf of the checkpoint log."""
        return statement(self.time_ms, self.streams)

    def leaf(self) -> bytes:
        """The leaf's hash."""
        return leaf_hash(self.statement())

    def text(self) -> str:
        """What is signed."""
        head = f"{self.origin}\n{self.number}\n{base64.b64encode(self.root).decode('ascii')}\n"
        return head + self.statement().decode("ascii")

    def tree(self, stream: str) -> Tree:
        """The stream's size and root; nothing for a stream that is not named."""
        return self.streams.get(stream, NOTHING)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a checkpoint in the one way in which it is written. Raises EvidenceError."""
        lines = text.split("\n")
        if len(lines) < 5 or lines.pop() != "" or ORIGIN.fullmatch(lines[0]) is None or _SIZE.fullmatch(lines[1]) is None:
            raise EvidenceError("this is no checkpoint of AgentOS: expected an origin, a number, a root, a time and streams")
        streams: dict[str, Tree] = {}
        for line in lines[4:]:
            found = _STREAM.fullmatch(line)
            if found is None or found[1] in streams:
                raise EvidenceError(f"a line of the checkpoint names no stream, or one twice: {line[:120]!r}")
            streams[found[1]] = Tree(int(found[2]), _hash(found[3]))
        try:
            time_ms = parse_rfc3339(lines[3].removeprefix("time "))
        except ValueError as error:
            raise EvidenceError(f"the checkpoint's time cannot be read: {error}") from error
        made = cls(lines[0], int(lines[1]), _hash(lines[2]), time_ms, streams)
        if made.text() != text:
            raise EvidenceError("the checkpoint is not written as AgentOS writes it")
        return made


def statement(time_ms: int, streams: Mapping[str, Tree]) -> bytes:
    """The extension lines of a checkpoint: its time, and each stream in the order of the names."""
    lines = [f"time {rfc3339(time_ms)}\n"]
    for name in sorted(streams):
        tree = streams[name]
        lines.append(f"stream {name} {tree.size} {base64.b64encode(tree.root).decode('ascii')}\n")
    return "".join(lines).encode("ascii")


def open_checkpoint(note: str | bytes, keys: Sequence[TrustedKey]) -> Checkpoint:
    """The checkpoint in `note`, signed by one of `keys` while that key was in use. Raises EvidenceError."""
    taken = parse_note(note)
    found = Checkpoint.parse(taken.text)
    verifiers = {Verifier(found.origin, key.public): key for key in keys}
    signers = [verifiers[verifier] for verifier in taken.signers(tuple(verifiers))]
    if not signers:
        raise EvidenceError(f"checkpoint {found.number} of {found.origin} is not signed by a trusted key")
    if not any(key.counts_at(found.time_ms) for key in signers):
        raise EvidenceError(f"checkpoint {found.number} is signed by key {signers[0].id}, which was not in use at its time")
    return found


def follows(before: Checkpoint | None, checkpoint: Checkpoint, root: bytes, origin: str) -> None:
    """Whether `checkpoint` may follow `before` in the log `origin` whose own root is then `root`. Raises EvidenceError."""
    number = 1 if before is None else before.number + 1
    if checkpoint.origin != origin:
        raise EvidenceError(f"is of the log {checkpoint.origin}, this is {origin}")
    if checkpoint.number != number:
        raise EvidenceError(f"says that it is checkpoint {checkpoint.number}: one was dropped, added or moved")
    if checkpoint.root != root:
        raise EvidenceError("does not lead on from the checkpoints before it: one of them was changed")
    if before is None:
        return
    if checkpoint.time_ms < before.time_ms:
        raise EvidenceError("was made before the one before it")
    for name, tree in before.streams.items():
        now = checkpoint.tree(name)
        if now.size < tree.size or (now.size == tree.size and now.root != tree.root):
            raise EvidenceError(f"takes events of {name} back: {now.size} after {tree.size}")


def origin_of(name: str, first: TrustedKey) -> str:
    """The origin of the log `name` of the runtime whose first key is `first`."""
    return f"agentos/{first.id.removeprefix('sha256:')[:16]}/{name}"


def _hash(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EvidenceError(f"{text[:80]!r} is no hash") from error
    if len(raw) != HASH_SIZE:
        raise EvidenceError(f"a hash has {HASH_SIZE} bytes, {text[:80]!r} has {len(raw)}")
    return raw
