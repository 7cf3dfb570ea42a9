"""Ending a session from outside of its turn: what was under way has to be accounted for first."""

from __future__ import annotations

from agentos.abi import event as ev
from agentos.abi.errors import NotFound
from agentos.kernel.freeze import not_begun
from agentos.kernel.gate import SYSTEM
from agentos.kernel.journal import Journal
from agentos.kernel.port import ConfigurationSource
from agentos.projections.session import Step


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
