"""What the audit chain says was erased: the sessions that an event `agentos.audit.erased` names."""

from __future__ import annotations

from typing import Final

from agentos.abi.event import Event

ERASED: Final = "agentos.audit.erased"


def erased_by(event: Event) -> tuple[str, ...]:
    """The sessions whose payloads `event` says were destroyed; none for an event of another type. Raises KeyError, ValueError."""
    if event.type != ERASED:
        return ()
    sessions = event.data["sessions"]
    if not isinstance(sessions, list) or not all(isinstance(name, str) for name in sessions):
        raise ValueError("sessions is not a list of ids")
    return tuple(sessions)
