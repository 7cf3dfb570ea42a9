"""Stored bytes become events, quickly: the reader in C is taken where it writes the same bytes again.

Offline verification is stricter (`agentos.abi.exact`); what is read here goes into read models, or beside checks of its own.
An index of a million events is made of a million headers, so those that are as the kernel writes them are read without making an
`Event` of each; whatever is odd about one is left to `Event.from_dict` to judge.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Final, NamedTuple

import orjson

from agentos.abi.attributes import attributes_of, session_attributes
from agentos.abi.canonical import Json, NotCanonical, canonical, digest, parse_strict
from agentos.abi.event import SESSION_CREATED, Event, parse_rfc3339
from agentos.abi.record import opened, split

_EDITED: Final = "the payload is not the one that the header names: it was edited"


class PayloadBroken(ValueError):
    """The header is sound, what stands beside it is not its payload."""


class Header(NamedTuple):
    """What the header of an event says. A tuple, because that is made fastest."""

    type: str
    tenant: str
    subject: str
    seq: int
    prev: str
    time_ms: int
    actor: str
    config_revision: int
    policy_digest: str | None
    told: Mapping[str, str | int]
    """The attributes of the payload and of the session by name, and others; for an open event what its header would say."""


def read_header(header: bytes) -> Header:
    """Read a header, or a whole open event. Raises ValueError, KeyError or TypeError for one that is none."""
    body = _exact(header)
    return _regular(body) or _told_by(Event.from_dict(opened(body, None)))


def _regular(body: Json) -> Header | None:
    """The header of a record, if all of it is as `Event` wants it; None where that has to be looked at more closely."""
    try:
        kind, source, subject, prev, time, actor, _, _ = texts = _TEXTS(body)
        seq, revision, policy = body["seq"], body["configrevision"], body.get("policydigest")
        if not (_SIMPLE.issuperset(map(type, body.values())) and _TEXT.issuperset(map(type, texts))):
            return None
        if type(seq) is not int or type(revision) is not int or type(policy) is int or source[:8] != "agentos/" or "data" in body:
            return None
        return Header(kind, source[8:], subject, seq, prev, _time_ms(time), actor, revision, policy, body)
    except (KeyError, TypeError, ValueError):
        return None


_TEXTS: Final = itemgetter("type", "source", "subject", "prev", "time", "actor", "id", "p")

_SIMPLE: Final = frozenset({str, int})

_TEXT: Final = frozenset({str})


def _time_ms(text: str) -> int:
    """Milliseconds since the epoch, of a time that is written as we do. Raises ValueError."""
    if len(text) != 24 or text[19] != "." or text[23] != "Z" or not (text.isascii() and text[20:23].isdigit()):
        raise ValueError("a time of another form")
    return _second_ms(text[:19]) + int(text[20:23])


@lru_cache(maxsize=64)
def _second_ms(text: str) -> int:
    """The milliseconds of a second; events come many in one."""
    return parse_rfc3339(f"{text}Z")


def _told_by(event: Event) -> Header:
    told = event.attributes
    if not event.withheld:
        told = attributes_of(event.type, event.data)
        if event.type == SESSION_CREATED:
            told = told | session_attributes(event.actor, event.data)
    return Header(
        event.type,
        event.tenant,
        event.subject,
        event.seq,
        event.prev,
        event.time_ms,
        event.actor,
        event.config_revision,
        event.policy_digest,
        told,
    )


def decode_header(header: bytes) -> Event:
    """Decode a header: the payload of its event counts as withheld. An open event is decoded whole.

    Raises ValueError, KeyError or TypeError for one that is none.
    """
    return Event.from_dict(opened(_exact(header), None))


def read_kind(record: bytes, wanted: Container[str]) -> tuple[Header, Mapping[str, Json] | None]:
    """Read a record or an open event: its header, and its payload where it can be seen and its type is among `wanted`.

    A payload of another type is checked and left aside. Raises ValueError, KeyError or TypeError where the header is no event,
    PayloadBroken where only the payload is wrong.
    """
    head, opening = split(record)
    body = _exact(head)
    header = _regular(body)
    if header is None:
        event = Event.from_dict(opened(body, None))
        header = _told_by(event)
        if opening is None:
            return header, None if event.withheld else event.data
    if opening is None:
        return header, None
    commitment = body.get("p")
    if not isinstance(commitment, str) or "data" in body:
        raise PayloadBroken("a payload stands beside an event that names none")
    if header.type in wanted:
        return header, _payload(opening, commitment)
    if digest(opening) != commitment:
        raise PayloadBroken(_EDITED)
    return header, None


def _payload(opening: bytes, commitment: str) -> dict[str, Json]:
    if digest(opening) != commitment:
        raise PayloadBroken(_EDITED)
    try:
        body = _exact(opening)
    except NotCanonical as error:
        raise PayloadBroken(f"the payload is not canonical JSON: {error}") from error
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict):
        raise PayloadBroken("the payload is not an object with `data`")
    return data


def _exact(data: bytes) -> Json:
    try:
        body = orjson.loads(data)
        exact = orjson.dumps(body, option=orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER) == data
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        exact = False
    if not exact:
        body = parse_strict(data)
        if canonical(body) != data:
            raise NotCanonical("the stored bytes are not canonical JSON")
    return body
