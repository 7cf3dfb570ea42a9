"""The manifest of a pack, read strictly: the other members, the head of every chain, the payloads that are not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.chain import GENESIS, Head
from agentos.abi.event import parse_rfc3339
from agentos.abi.ids import is_name
from agentos.audit import layout

REASONS: Final = ("withheld", "erased", "lost")
"""Why a payload is not there: the exporter kept it back, it was erased on a recorded basis, or nobody knows."""

AUDIT_SUBJECT: Final = "audit"
"""What the events of the audit chain say that their subject is."""


@dataclass(frozen=True, slots=True)
class Manifest:
    format: str
    tenant: str
    exporter: str
    exported_at: str
    key: str
    sessions: Mapping[str, Head]
    absent: Mapping[str, Mapping[str, int]]
    """session → reason → payloads that are not there."""
    audit: Head
    registry: Mapping[str, tuple[str, Head]]
    """chain → (subject, head), for `revisions` and `principals`."""
    members: tuple[tuple[str, str, int], ...]
    """(name, digest, size)."""

    @property
    def covered(self) -> bool:
        """Whether checkpoints are in the pack."""
        return self.format != layout.FORMAT_V1

    @property
    def records(self) -> bool:
        """Whether its sessions are records, whose payloads may be absent."""
        return self.format == layout.FORMAT


def read_manifest(body: Json) -> Manifest:
    """The manifest of its decoded form. Raises KeyError, ValueError, TypeError or AttributeError for another shape."""
    keys = {"format", "tenant", "exported_at", "exporter", "key", "scope", "sessions", "registry", "members"}
    formats = (layout.FORMAT, layout.FORMAT_V2, layout.FORMAT_V1)
    if not isinstance(body, dict) or body.get("format") not in formats:
        raise ValueError(f"expected an object of format {', '.join(formats)}")
    records = body["format"] == layout.FORMAT
    keys |= {"audit"} if records else set()
    if set(body) != keys:
        raise ValueError(f"expected the fields {', '.join(sorted(keys))}")
    sessions: dict[str, Head] = {}
    absent: dict[str, dict[str, int]] = {}
    for item in _objects(body["sessions"], {"session", "seq", "hash", *(REASONS if records else ())}):
        name, head = _string(item["session"]), _head(item)
        if not is_name(name) or name in sessions or head.seq < 1:
            raise ValueError(f"session {name!r} is listed twice, empty or no name")
        sessions[name] = head
        absent[name] = {reason: _count(item[reason]) for reason in REASONS if records}
    if list(sessions) != sorted(sessions):
        raise ValueError("sessions are not in the order of their names")
    (scope,) = _objects([body["scope"]], {"sessions", "since", *(["withhold"] if records else ())})
    for text in scope["withhold"] if records else ():
        _string(text)
    if scope["sessions"] is not None and scope["sessions"] != list(sessions):
        raise ValueError("the sessions are not those that the scope names")
    for moment in (body["exported_at"], *(() if scope["since"] is None else (scope["since"],))):
        parse_rfc3339(_string(moment))
    registry: dict[str, tuple[str, Head]] = {}
    for name in ("revisions", "principals"):
        (item,) = _objects([body["registry"][name]], {"subject", "seq", "hash"})
        registry[name] = (_string(item["subject"]), _head(item))
    members = tuple(
        (_string(item["name"]), _string(item["sha256"]), _count(item["size"]))
        for item in _objects(body["members"], {"name", "sha256", "size"})
    )
    if len({name for name, _, _ in members}) != len(members):
        raise ValueError("a member is listed twice")
    return Manifest(
        format=body["format"],
        tenant=_string(body["tenant"]),
        exporter=_string(body["exporter"]),
        exported_at=_string(body["exported_at"]),
        key=_string(body["key"]),
        sessions=sessions,
        absent=absent,
        audit=_audit_head(body["audit"]) if records else Head.empty(),
        registry=registry,
        members=members,
    )


def _audit_head(value: Json) -> Head:
    (item,) = _objects([value], {"subject", "seq", "hash"})
    head = _head(item)
    if item["subject"] != (AUDIT_SUBJECT if head.seq else ""):
        raise ValueError("the audit chain is of another subject")
    return head


def _objects(value: Json, keys: set[str]) -> list[dict[str, Json]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) and set(item) == keys for item in value):
        raise ValueError(f"expected a list of objects with the fields {', '.join(sorted(keys))}")
    return value


def _string(value: Json) -> str:
    if type(value) is not str:
        raise ValueError(f"expected text, found {type(value).__name__}")
    return value


def _count(value: Json) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a count, found {value!r}")
    return value


def _head(item: Mapping[str, Json]) -> Head:
    head = Head(_count(item["seq"]), _string(item["hash"]))
    if (head.seq == 0) != (head.hash == GENESIS):
        raise ValueError("an empty chain has the hash of no event, and only an empty one")
    return head
