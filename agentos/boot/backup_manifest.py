"""What a backup says of itself: `manifest.json`, format `agentos-backup/v1`, as values. Pure.

It names every stream of every account: its archive's size and digest, the positions that the server told when it made it, the
Merkle root up to there, and how the stream is configured. `parse` takes only what `to_bytes` writes. Fields: `docs/backup.md`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import Json, NotCanonical, canonical, parse_strict
from agentos.abi.errors import EvidenceError
from agentos.abi.event import parse_rfc3339
from agentos.abi.ids import FLEET, is_name
from agentos.eventlog.subject import CHECKPOINT_STREAM, REGISTRY_STREAM, subjects_of

FORMAT: Final = "agentos-backup/v1"
MANIFEST: Final = "manifest.json"

MEND: Final = "take another copy of the backup; this one was cut, changed, or is no backup"

_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One stream of a backup: `size` bytes of archive with digest `sha256`, and what the server said of it when it made them.

    `messages`, `first`, `last` are of that moment; the archive may hold some more that came meanwhile. `root` is the Merkle root
    over the messages up to `last` (hex), None for a stream that no checkpoint names.
    """

    name: str
    size: int
    sha256: str
    messages: int
    first: int
    last: int
    root: str | None
    config: Mapping[str, Json] = field(hash=False)
    state: Mapping[str, Json] = field(hash=False)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One account: its tenant (`*`: the fleet, with the registry), a checkpoint of just before, its streams as taken."""

    tenant: str
    note: str
    streams: tuple[StreamEntry, ...]

    @property
    def name(self) -> str:
        """What the log is called in its checkpoints: the tenant, or `REG`."""
        return REGISTRY_STREAM if self.tenant == FLEET else self.tenant

    def member(self, stream: str) -> str:
        """Where the archive of `stream` lies."""
        return f"{'fleet' if self.tenant == FLEET else f'tenants/{self.tenant}'}/{stream}.s2"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself. `logs` in the order in which they were taken, the fleet's last."""

    created_at: str
    version: str
    by: str
    key: str
    rotations: tuple[str, ...]
    logs: tuple[LogEntry, ...]

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants whose logs it holds."""
        return tuple(log.tenant for log in self.logs if log.tenant != FLEET)

    def to_bytes(self) -> bytes:
        """The member manifest.json."""
        logs = [
            {
                "tenant": log.tenant,
                "checkpoint": log.note,
                "streams": [
                    {
                        "name": one.name,
                        "bytes": one.size,
                        "sha256": one.sha256,
                        "messages": one.messages,
                        "first": one.first,
                        "last": one.last,
                        "root": one.root,
                        "config": dict(one.config),
                        "state": dict(one.state),
                    }
                    for one in log.streams
                ],
            }
            for log in self.logs
        ]
        return canonical(
            {
                "format": FORMAT,
                "created_at": self.created_at,
                "version": self.version,
                "by": self.by,
                "key": self.key,
                "rotations": list(self.rotations),
                "logs": logs,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read a manifest. Raises EvidenceError for what is none, or names what no backup of ours has."""
        try:
            made = _manifest(parse_strict(data))
            exact = made.to_bytes() == data
        except (NotCanonical, KeyError, TypeError, ValueError, EvidenceError) as error:
            raise EvidenceError(f"the manifest cannot be read: {error}", where=MANIFEST, mend=MEND) from error
        if not exact:
            raise EvidenceError("the manifest is not written as AgentOS writes it", where=MANIFEST, mend=MEND)
        return made


def _manifest(body: Json) -> Manifest:
    _fields(body, "format created_at version by key rotations logs")
    if body["format"] != FORMAT:
        raise EvidenceError(f"the format is {body['format']!r}, this version reads {FORMAT}")
    parse_rfc3339(_text(body["created_at"]))
    made = Manifest(
        created_at=body["created_at"],
        version=_text(body["version"]),
        by=_text(body["by"]),
        key=_text(body["key"]),
        rotations=tuple(_text(note) for note in _list(body["rotations"])),
        logs=tuple(_log(one) for one in _list(body["logs"])),
    )
    tenants = [log.tenant for log in made.logs]
    if tenants[-1:] != [FLEET] or len(set(tenants)) < len(tenants):
        raise EvidenceError("the logs are not each tenant's once, and the fleet's last")
    return made


def _log(body: Json) -> LogEntry:
    _fields(body, "tenant checkpoint streams")
    tenant = _text(body["tenant"])
    if tenant != FLEET and not is_name(tenant):
        raise EvidenceError(f"{tenant!r} is no tenant")
    streams = tuple(_stream(one) for one in _list(body["streams"]))
    for one in streams:
        if (one.name == REGISTRY_STREAM) != (tenant == FLEET) and one.name != CHECKPOINT_STREAM:
            raise EvidenceError(f"stream {one.name} is none of {tenant}")
    return LogEntry(tenant, _text(body["checkpoint"]), streams)


def _stream(body: Json) -> StreamEntry:
    _fields(body, "name bytes sha256 messages first last root config state")
    name = _text(body["name"])
    subjects = subjects_of(name)
    config = body["config"]
    if config["name"] != name or config["subjects"] != [subjects]:
        raise EvidenceError(f"stream {name} is configured as another one")
    root = body["root"]
    if _SHA256.fullmatch(_text(body["sha256"])) is None or (root is not None and _SHA256.fullmatch(_text(root)) is None):
        raise EvidenceError(f"stream {name} has no digest")
    return StreamEntry(
        name,
        size=_number(body["bytes"]),
        sha256=body["sha256"],
        messages=_number(body["messages"]),
        first=_number(body["first"]),
        last=_number(body["last"]),
        root=body["root"],
        config=config,
        state=dict(body["state"]),
    )


def _fields(body: Json, names: str) -> None:
    if not isinstance(body, dict) or body.keys() != set(names.split()):
        raise EvidenceError(f"expected an object with {names}")


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise EvidenceError(f"expected a text, found {type(value).__name__}")
    return value


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise EvidenceError(f"expected a list, found {type(value).__name__}")
    return value


def _number(value: Json) -> int:
    if type(value) is not int or value < 0:
        raise EvidenceError(f"expected a count, found {value!r}")
    return value
