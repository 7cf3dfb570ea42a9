"""A proof file: one event, byte for byte, and what shows that a signed checkpoint covers it. Checked without a runtime.

A JSON object (`schemas/v1/event-proof.json`): `event` (base64 of the record: the header, which is the leaf, and the payload if it
is disclosed; of an open event its stored bytes), `stream`, `leaf` (from 0), `path` (RFC 9162
inclusion path, base64), `checkpoint` (the signed note) and `rotations` (notes, where the signing key was ever replaced).
`docs/audit.md` says how to check one by hand. Light: an auditor's machine needs this, the ABI and `cryptography`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json, NotCanonical, parse_strict
from agentos.abi.errors import EvidenceError
from agentos.abi.event import Event, rfc3339
from agentos.abi.record import decode, header_of
from agentos.audit.checkpoint import Checkpoint, open_checkpoint
from agentos.audit.headers import wrong_attributes
from agentos.audit.leaf import leaf_of
from agentos.audit.merkle import check_inclusion
from agentos.audit.rotation import chain_of
from agentos.audit.trust import load_trust

FORMAT: Final = "agentos-proof/v2"

FORMAT_V1: Final = "agentos-proof/v1"
"""The format of events that were stored whole: still read."""

MAX_PROOF: Final = 64 * 1024 * 1024
"""Largest proof file read, in bytes."""

CHECKS: Final = {
    "format": "the file is a proof of one event",
    "checkpoint": "the checkpoint is signed by the trusted key",
    "inclusion": "the event is a leaf under a root that the checkpoint names",
    "event": "the bytes are an event of the tenant whose log it is",
    "payload": "the payload is the one that the header names, and the header is true of it",
}
"""The checks by name, in order, and what each says when it holds."""

_FIELDS: Final = frozenset({"format", "event", "stream", "leaf", "path", "checkpoint", "rotations"})


@dataclass(frozen=True, slots=True)
class Proven:
    """The outcome: each check (None: not made), what is wrong, and the event if it could be read.

    A check is not made when an earlier one failed; `payload` is not made for a header alone either.
    """

    checks: tuple[tuple[str, bool | None, str], ...]
    fault: str | None
    event: Event | None
    checkpoint: Checkpoint | None

    @property
    def ok(self) -> bool:
        """Whether every check held that can be made: for a header alone, all but that of its payload."""
        return all(held is True or (name == "payload" and held is None and self.withheld) for name, held, _ in self.checks)

    @property
    def withheld(self) -> bool:
        """Whether the proof holds the header of the event alone."""
        return self.event is not None and self.event.withheld

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape that `agentos audit verify-proof -o json` prints."""
        event, point = self.event, self.checkpoint
        shown: Json = None
        if event is not None:
            shown = {"session": event.subject, "seq": event.seq, "id": event.id, "type": event.type, "actor": event.actor}
            shown |= {"time": rfc3339(event.time_ms), "tenant": event.tenant, "withheld": self.withheld}
        stated: Json = None
        if point is not None:
            stated = {"origin": point.origin, "number": point.number, "time": rfc3339(point.time_ms)}
        checks = [{"name": name, "ok": held, "says": says} for name, held, says in self.checks]
        return {"ok": self.ok, "checks": checks, "fault": self.fault, "event": shown, "checkpoint": stated}


def make_proof(
    data: bytes, *, stream: str, leaf: int, path: Sequence[bytes], note: str, rotations: Sequence[str]
) -> dict[str, Json]:
    """The proof as JSON. `data` is a record, a header alone, or an open event; `note` the signed checkpoint."""
    return {
        "format": FORMAT,
        "event": base64.b64encode(data).decode("ascii"),
        "stream": stream,
        "leaf": leaf,
        "path": [base64.b64encode(step).decode("ascii") for step in path],
        "checkpoint": note,
        "rotations": list(rotations),
    }


def with_payload(proof: dict[str, Json], record: bytes) -> dict[str, Json]:
    """A proof of a header with the payload of `record` beside it. Raises ValueError where the two do not belong together."""
    if header_of(record) != base64.b64decode(proof["event"], validate=True):
        raise ValueError("the record has another header")
    decode(record)
    return proof | {"event": base64.b64encode(record).decode("ascii")}


def is_withheld(proof: dict[str, Json]) -> bool:
    """Whether a proof holds the header of its event alone."""
    return Event.from_bytes(base64.b64decode(proof["event"], validate=True)).withheld


def verify_proof(data: bytes, trust: bytes) -> Proven:
    """Check the proof in `data` against `trust`: a public key (PEM) or a verifier key (a note's), from outside the proof.

    Raises EvidenceError only for a `trust` that is no such key; for any `data` whatever there is an outcome.
    """
    trusted = load_trust(trust)
    held: dict[str, bool] = {}
    event: Event | None = None
    point: Checkpoint | None = None
    fault: str | None = None
    at = "format"
    try:
        body = _read(data)
        stored = base64.b64decode(body["event"], validate=True)
        path = [base64.b64decode(step, validate=True) for step in body["path"]]
        held[at], at = True, "checkpoint"
        point = open_checkpoint(body["checkpoint"], trusted.keys(chain_of(body["rotations"])))
        trusted.require(point.origin)
        held[at], at = True, "inclusion"
        _included(stored, body["stream"], body["leaf"], path, point)
        held[at], at = True, "event"
        event = Event.from_bytes(header_of(stored))
        _belongs(event, point)
        held[at], at = True, "payload"
        event = _disclosed(stored, event)
        if not event.withheld:
            held[at] = True
    except (EvidenceError, NotCanonical, binascii.Error, KeyError, ValueError, TypeError) as error:
        held[at] = False
        fault = error.message if isinstance(error, EvidenceError) else f"{at}: {type(error).__name__}: {error}"
    checks = tuple((name, held.get(name), says) for name, says in CHECKS.items())
    return Proven(checks, fault, event, point)


def _included(stored: bytes, stream: str, leaf: int, path: Sequence[bytes], point: Checkpoint) -> None:
    tree = point.tree(stream)
    if not check_inclusion(leaf_of(stream, stored), leaf, tree.size, path, tree.root):
        raise EvidenceError(
            f"the path does not lead from the event as leaf {leaf} to the root of {stream} "
            f"({tree.size} leaves) in checkpoint {point.number}"
        )


def _disclosed(record: bytes, header: Event) -> Event:
    """The event with its payload, where that is there; of it the header must be true."""
    event = Event.from_bytes(record)
    # An open event has no payload apart, and its attributes say nothing of it.
    wrong = wrong_attributes(event) if header.withheld and not event.withheld else []
    if wrong:
        raise EvidenceError(f"the header is not true of its payload: {', '.join(wrong)}")
    return event


def _belongs(event: Event, point: Checkpoint) -> None:
    tenant = point.origin.rsplit("/", 1)[1]
    if event.tenant != ("*" if tenant == "REG" else tenant):
        raise EvidenceError(f"the event belongs to tenant {event.tenant!r}, the checkpoint to {point.origin}")


def _read(data: bytes) -> dict[str, Json]:
    if len(data) > MAX_PROOF:
        raise EvidenceError(f"a proof has at most {MAX_PROOF} bytes")
    body = parse_strict(data)
    if not isinstance(body, dict) or set(body) != _FIELDS or body["format"] not in {FORMAT, FORMAT_V1}:
        raise EvidenceError(f"this is no proof of an event: expected an object of format {FORMAT}")
    texts = [body["event"], body["stream"], body["checkpoint"]]
    lists = [body["path"], body["rotations"]]
    if not all(type(text) is str for text in texts) or type(body["leaf"]) is not int:
        raise EvidenceError("a field of the proof is of another type")
    if not all(isinstance(items, list) and all(type(item) is str for item in items) for items in lists):
        raise EvidenceError("the path and the rotations of a proof are lists of texts")
    return body
