"""An evidence pack that left the runtime: the audit chain remembers what was in it, so that nobody has to be believed later.

An event `agentos.audit.exported` of the audit chain says

    pack       sha256:…   the pack, byte for byte
    sessions   how many are in it, each whole, and `events` how many events
    ends       sha256:…   over the sessions and where each ended: by name, a line each, `SESSION sha256:…` of its last header
    withheld   how many payloads were kept back

The ends are one digest, not a list: a pack may hold thousands of sessions. Who names the sessions again and has the log gets the
same digest for as long as none of them has grown. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentos.abi.canonical import Json, digest
from agentos.abi.event import AUDIT_EXPORTED
from agentos.abi.record import header_of


@dataclass(frozen=True, slots=True)
class Exported:
    """What one pack held when it was made. `pack` and `ends` are digests, `sha256:<hex>`."""

    pack: str
    sessions: int
    events: int
    ends: str
    withheld: int

    def entry(self) -> tuple[str, dict[str, Json]]:
        """The event to be: its type and its payload."""
        return AUDIT_EXPORTED, {
            "pack": self.pack,
            "sessions": self.sessions,
            "events": self.events,
            "ends": self.ends,
            "withheld": self.withheld,
        }


def exported(pack: bytes, sessions: Mapping[str, Sequence[bytes]], withheld: int) -> Exported:
    """What is to be remembered of `pack`, which holds these sessions (id → all records, in order)."""
    last = {session: records[-1] for session, records in sessions.items()}
    events = sum(len(records) for records in sessions.values())
    return Exported(digest(pack), len(sessions), events, ends_of(last), withheld)


def read_exported(data: Mapping[str, Json]) -> Exported:
    """The payload of an event `agentos.audit.exported`. Raises KeyError, TypeError."""
    texts, counts = [data[name] for name in ("pack", "ends")], [data[name] for name in ("sessions", "events", "withheld")]
    if not all(isinstance(text, str) for text in texts) or not all(type(count) is int for count in counts):
        raise TypeError("an exported pack has digests and counts")
    return Exported(data["pack"], data["sessions"], data["events"], data["ends"], data["withheld"])


def ends_of(last: Mapping[str, bytes]) -> str:
    """The digest over where sessions end; `last` is the last record of each, or its header."""
    return digest("".join(f"{session} {digest(header_of(last[session]))}\n" for session in sorted(last)).encode("ascii"))
