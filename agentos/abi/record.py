"""Records: a session event as everybody above the event log sees it, its header and, where it may be seen, its payload.

    header TAB opening

The header is the CloudEvent without its data, in canonical JSON, with `p`: the SHA-256 of the opening. The opening is the payload
with a salt, `{"data": {...}, "salt": "<32 hex digits>"}`, in canonical JSON too. Only the header is hashed into the chain and the
trees. So a payload can be withheld from one reader or erased for all, and the chain still holds; and whoever is shown an opening
can check that it is the one. Without the salt a payload cannot be guessed from `p`.

Canonical JSON holds no raw TAB and no line feed: a TAB separates the two parts, and a line of a file is one event. What has no
TAB is a header alone; or, where it has `data` and no `p`, an *open* event, such as those of the registry: all of it is hashed.
"""

from __future__ import annotations

from typing import Final

from agentos.abi.canonical import Json, NotCanonical, canonical, digest, parse_strict
from agentos.abi.exact import read_exact

TAB: Final = b"\t"

SALT_BYTES: Final = 16


def header_of(record: bytes) -> bytes:
    """The part that is hashed. Of stored bytes too, whose second part is sealed."""
    return record.partition(TAB)[0]


def split(record: bytes) -> tuple[bytes, bytes | None]:
    """Header and opening; None for a record without one."""
    header, tab, opening = record.partition(TAB)
    return header, opening if tab else None


def join(header: bytes, opening: bytes | None) -> bytes:
    """The record of the two parts."""
    return header if opening is None else header + TAB + opening


def make_opening(data: dict[str, Json], salt: bytes) -> bytes:
    """The opening of a payload. Raises NotCanonical."""
    return canonical({"data": data, "salt": salt.hex()})


def read_opening(opening: bytes, commitment: str) -> dict[str, Json]:
    """The payload of an opening. Raises ValueError when it is not the one that `commitment` (a header's `p`) names."""
    if digest(opening) != commitment:
        raise ValueError("the payload is not the one that the header names: it was edited")
    try:
        body = read_exact(opening)
    except NotCanonical as error:
        raise ValueError(f"the payload is not canonical JSON: {error}") from error
    if not isinstance(body, dict) or body.keys() != {"data", "salt"} or not isinstance(body["data"], dict):
        raise ValueError("the payload is not a canonical object with `data` and `salt`")
    return body["data"]


def opened(body: Json, opening: bytes | None) -> dict[str, Json]:
    """The decoded header `body` with the payload of its opening as `data`. Raises ValueError where the two do not fit."""
    if not isinstance(body, dict):
        raise ValueError("an event is a JSON object")  # noqa: TRY004 - one class for whatever is foreign
    if opening is None:
        if "p" in body and "data" in body:
            raise ValueError("an event has `data` or `p`, not both")
        return body
    commitment = body.get("p")
    if not isinstance(commitment, str) or "data" in body:
        raise ValueError("a payload stands beside an event that names none")
    return body | {"data": read_opening(opening, commitment)}


def decode(record: bytes) -> dict[str, Json]:
    """A record or an open event in its JSON form: the attributes, and `data` where it may be seen. Raises ValueError."""
    header, opening = split(record)
    return opened(parse_strict(header), opening)
