"""The envelope of a delegation: what travels from the session that delegates to whoever begins its child.

It holds no words, only references: which call of which session, at which index, under which id the child is to begin, and the
hash of the event that decided it. Goal, inputs and arguments stay in the parent's log, sealed; the receiver reads them there, so
that whoever could read the queue learns nothing of them, and whoever could write to it could have nothing begun that was not
decided.

    subject     task.<public NKey of the sender>.<child>     the sender is part of the subject: the message has no field for it
    body        canonical JSON of the envelope
    header      AgentOS-Signature: Ed25519 by the sender's key over `signed(subject, body)`, in base64
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Final

from agentos.abi.canonical import Json, canonical
from agentos.abi.exact import read_exact
from agentos.abi.ids import is_name

VERSION: Final = 1

SIGNATURE: Final = "AgentOS-Signature"
"""The header that carries the signature."""

MAX_ENVELOPE: Final = 2048
"""Bytes of an envelope at most."""

LONGEST_MS: Final = 8 * 86_400_000
"""How long an envelope may count: longer than any delegation may be waited for."""

_PURPOSE: Final = b"agentos delegation 1\n"
"""Set before what is signed: a signature that the key made for something else is none of an envelope."""

_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_CALL: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_SENDER: Final = re.compile(r"U[A-Z2-7]{55}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Envelope:
    """One child of one delegation. Times are milliseconds since the epoch, UTC."""

    tenant: str
    parent: str
    """The session that delegates."""
    call: str
    """Its call of a delegate tool."""
    index: int
    """Which of the call's children this is: 0, 1, 2 …"""
    child: str
    """The id under which the child begins; the decided event names it at `index`."""
    decided: int
    """`seq` of the event that allowed the call, in the parent's log."""
    head: str
    """Hash of the stored header of that event: what the chain holds once it is its head."""
    issued_ms: int
    expires_ms: int
    """From then on it begins nothing: the end of the time that the parent waits."""

    def to_bytes(self) -> bytes:
        """Canonical JSON. Raises canonical.NotCanonical."""
        return canonical({"v": VERSION, **asdict(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """Read one. Raises ValueError, in words that repeat nothing of it, for whatever is not exactly an envelope."""
        if len(data) > MAX_ENVELOPE:
            raise ValueError(f"an envelope has at most {MAX_ENVELOPE} bytes")
        body = read_exact(data)
        if not isinstance(body, dict) or body.keys() != _FIELDS:
            raise ValueError("an envelope has other fields")
        if type(body["v"]) is not int or body["v"] != VERSION:
            raise ValueError("an envelope of a version that is not known here")
        if not all(fits(body[name]) for name, fits in _RULES.items()):
            raise ValueError("a field of an envelope is not of its kind")
        if not 0 < body["expires_ms"] - body["issued_ms"] <= LONGEST_MS:
            raise ValueError("an envelope counts for a time, and not for longer than it may")
        del body["v"]
        return cls(**body)


def task_subject(sender: str, child: str) -> str:
    """`task.<sender>.<child>` for the sender's public NKey and the child's id."""
    return f"task.{sender}.{child}"


def read_task_subject(subject: str) -> tuple[str, str]:
    """Sender and child of `task_subject`. Raises ValueError."""
    tokens = subject.split(".")
    if len(tokens) != 3 or tokens[0] != "task" or _SENDER.fullmatch(tokens[1]) is None or not is_name(tokens[2]):
        raise ValueError("not the subject of a delegation")
    return tokens[1], tokens[2]


def signed(subject: str, body: bytes) -> bytes:
    """What the sender signs: the purpose, the subject with the sender in it, the bytes."""
    return _PURPOSE + subject.encode("utf-8") + b"\n" + body


def _is_id(value: Json) -> bool:
    return isinstance(value, str) and is_name(value)


def _is_call(value: Json) -> bool:
    return isinstance(value, str) and _CALL.fullmatch(value) is not None


def _is_count(value: Json) -> bool:
    return type(value) is int and value >= 0


def _is_place(value: Json) -> bool:
    return type(value) is int and value > 0


def _is_hash(value: Json) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


_RULES: Final = {
    "tenant": _is_id,
    "parent": _is_id,
    "call": _is_call,
    "index": _is_count,
    "child": _is_id,
    "decided": _is_place,
    "head": _is_hash,
    "issued_ms": _is_count,
    "expires_ms": _is_place,
}
_FIELDS: Final = frozenset({"v", *_RULES})
