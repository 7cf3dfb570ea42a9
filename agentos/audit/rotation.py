"""A change of the signing key: a note that the old key and the new one both signed, and whom one trusts because of it.

Whoever trusts one key of a chain of rotations can follow it both ways: forward, as the old key vouches for the new one, and back,
as the new one vouches for what it replaced. Each key counts only for what says it was made between its two rotations.

    agentos key rotation v1
    old wXyz…                       base64 of the 32 raw bytes
    new b3Fa…
    time 2026-11-21T08:30:00.125Z

Pure, and light: an auditor's machine reads this too.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from agentos.abi.errors import EvidenceError
from agentos.abi.event import parse_rfc3339, rfc3339
from agentos.audit.keys import SigningKey
from agentos.audit.layout import key_id
from agentos.audit.note import Verifier, parse_note, sign_note

TITLE: Final = "agentos key rotation v1"
"""The first line: no other note of ours begins so."""

NAME: Final = "agentos/rotation"
"""The name under which both keys sign."""

_TEXT: Final = re.compile(rf"{TITLE}\nold (\S+)\nnew (\S+)\ntime (\S+)\n", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rotation:
    """From `time_ms` on, `new` (32 raw bytes) signs what `old` signed before. `note` is the proof."""

    old: bytes
    new: bytes
    time_ms: int
    note: str


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key that counts for what was made from `from_ms` (None: from the beginning) until `until_ms` (None: still)."""

    public: bytes
    from_ms: int | None = None
    until_ms: int | None = None

    @property
    def id(self) -> str:
        """`sha256:<hex>` of the raw public key."""
        return key_id(self.public)

    def counts_at(self, time_ms: int) -> bool:
        """Whether the key was in use then."""
        return (self.from_ms is None or self.from_ms <= time_ms) and (self.until_ms is None or time_ms <= self.until_ms)


def make_rotation(old: SigningKey, new: SigningKey, time_ms: int) -> Rotation:
    """The rotation from `old` to `new`."""
    first, second = (base64.b64encode(key.public).decode("ascii") for key in (old, new))
    text = f"{TITLE}\nold {first}\nnew {second}\ntime {rfc3339(time_ms)}\n"
    return Rotation(old.public, new.public, time_ms, sign_note(text, NAME, old, new))


def parse_rotation(note: str) -> Rotation:
    """Read a rotation and check both signatures. Raises EvidenceError."""
    taken = parse_note(note)
    found = _TEXT.fullmatch(taken.text)
    if found is None:
        raise EvidenceError("this note is no rotation of a key")
    try:
        old, new = (base64.b64decode(found[at], validate=True) for at in (1, 2))
        time_ms = parse_rfc3339(found[3])
    except (binascii.Error, ValueError) as error:
        raise EvidenceError(f"the rotation cannot be read: {error}") from error
    verifiers = (Verifier(NAME, old), Verifier(NAME, new))
    if set(taken.signers(verifiers)) != set(verifiers):
        raise EvidenceError("the rotation is not signed by both keys")
    return Rotation(old, new, time_ms, note)


def chain_of(notes: Sequence[str]) -> tuple[Rotation, ...]:
    """The rotations in `notes`, oldest first, each of the key that the one before put in use. Raises EvidenceError."""
    chain = tuple(parse_rotation(note) for note in notes)
    for before, after in pairwise(chain):
        if before.new != after.old or before.time_ms > after.time_ms:
            raise EvidenceError("the rotations are no chain: one was dropped, added or moved")
    publics = [rotation.new for rotation in chain]
    if len(set(publics)) < len(publics) or (chain and chain[0].old in publics):
        raise EvidenceError("the rotations come back to a key that was replaced")
    return chain


def trusted_keys(public: bytes, chain: Sequence[Rotation]) -> tuple[TrustedKey, ...]:
    """The keys that count for somebody who trusts `public`: all of the chain it stands in, else itself alone. Oldest first."""
    keys = keys_of(chain)
    return keys if any(key.public == public for key in keys) else (TrustedKey(public),)


def keys_of(chain: Sequence[Rotation]) -> tuple[TrustedKey, ...]:
    """The keys of a chain with the times between which each was in use; nothing for an empty chain."""
    if not chain:
        return ()
    publics = [chain[0].old, *(rotation.new for rotation in chain)]
    times = [None, *(rotation.time_ms for rotation in chain), None]
    return tuple(TrustedKey(public, times[at], times[at + 1]) for at, public in enumerate(publics))
