"""Ends of sessions: how one ended, as others are told; and ending one from outside of its turn."""

from __future__ import annotations

from typing import Final

from agentos.abi import event as ev
from agentos.abi.errors import ChainBroken, NotFound
from agentos.abi.record import header_of
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import session_subject
from agentos.kernel.freeze import not_begun
from agentos.kernel.gate import SYSTEM
from agentos.kernel.journal import Journal
from agentos.kernel.port import ConfigurationSource
from agentos.projections.decoded import read_header
from agentos.projections.session import Step

GONE: Final = "gone"
"""What stands for the outcome of a session that is not in the log."""


async def outcome_of(log: EventLog, session: str) -> str | None:
    """How a session ended: finished, failed, cancelled, halted; GONE for one that does not exist, None for one that has not.

    By the header of its last event alone: that is known when its payload is erased, too. Raises ChainBroken where that event
    cannot be read, LogUnavailable.
    """
    stored = await log.last(session_subject(session))
    if stored is None:
        return GONE
    try:
        header = read_header(header_of(stored.data))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ChainBroken(f"the last event of session {session} cannot be read: {error!r}", where=session) from error
    return ev.end_told(header.type, header.told) if header.subject == session else None


async def lose_open_calls(journal: Journal, source: ConfigurationSource) -> None:
    """Of every call that was allowed and has no outcome, say that nobody knows what came of it: it may have acted.

    Of one that a freeze had held back it is known that it has not.
    """
    revision, policy = in_force(journal, source)
    for call in tuple(journal.state.calls.values()):
        if call.call in journal.state.held:
            held = not_begun(call.call, call.tool)
            await journal.record(ev.SYSCALL_FAILED, held, actor=SYSTEM, revision=revision, policy=policy)
        elif call.step is Step.ALLOWED:
            lost = {"call": call.call, "tool": call.tool}
            await journal.record(ev.SYSCALL_UNKNOWN, lost, actor=SYSTEM, revision=revision, policy=policy)


def in_force(journal: Journal, source: ConfigurationSource) -> tuple[int, str | None]:
    """Revision and policy digest of the session's tenant as it is now."""
    try:
        configuration = source.current(journal.tenant)
    except NotFound:
        # A session outlives the declaration of its tenant, and can still be ended.
        return journal.state.config_revision, None
    return configuration.revision, configuration.policy_digest
