"""Stored bytes become events, quickly: the reader in C is taken where it writes the same bytes again.

Offline verification is stricter (`agentos.abi.exact`); what is read here goes into read models, or beside checks of its own.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Final

import orjson

from agentos.abi.canonical import Json, NotCanonical, canonical, digest, parse_strict
from agentos.abi.event import Event
from agentos.abi.record import opened, split

_EDITED: Final = "the payload is not the one that the header names: it was edited"


class PayloadBroken(ValueError):
    """The header is sound, what stands beside it is not its payload."""


def decode(record: bytes) -> Event:
    """Decode a record or an open event, its payload where it may be seen. Raises ValueError, KeyError or TypeError."""
    header, opening = split(record)
    return Event.from_dict(opened(_exact(header), opening))


def decode_header(header: bytes) -> Event:
    """Decode a header: the payload of its event counts as withheld. An open event is decoded whole. Raises as `decode`."""
    return Event.from_dict(opened(_exact(header), None))


def decode_kind(record: bytes, wanted: Container[str]) -> Event:
    """As `decode`, but a payload of another type than `wanted` is checked and then left aside, as if it were withheld.

    Raises ValueError, KeyError or TypeError where the header is no event, PayloadBroken where only the payload is wrong.
    """
    header, opening = split(record)
    body = opened(_exact(header), None)
    event = Event.from_dict(body)
    if opening is None:
        return event
    commitment = body.get("p")
    if not isinstance(commitment, str) or "data" in body:
        raise PayloadBroken("a payload stands beside an event that names none")
    if event.type not in wanted:
        if digest(opening) != commitment:
            raise PayloadBroken(_EDITED)
        return event
    return replace(event, data=_payload(opening, commitment), withheld=False)


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
