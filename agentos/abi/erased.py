"""What the audit chain says was erased: the sessions that an event `agentos.audit.erased` names."""

from __future__ import annotations

from agentos.abi.event import AUDIT_ERASED, Event


def erased_by(event: Event) -> tuple[str, ...]:
    """The sessions whose payloads `event` says were destroyed; none for one of another type.

    Raises ValueError for an erasure of another shape.
    """
    if event.type != AUDIT_ERASED:
        return ()
    sessions = event.data.get("sessions")
    if not isinstance(sessions, list) or not all(isinstance(name, str) for name in sessions):
        raise ValueError(f"{event.type} #{event.seq} names no sessions")
    return tuple(sessions)
