"""The answers of people to the questions that sessions wait with: a yes, a no, and nobody's answer in time, which is a no."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from agentos.abi import event as ev
from agentos.abi.ids import Clock
from agentos.kernel.approvals import Scope, answer_to, asked_call, granted_yes, question_ends, terms
from agentos.kernel.gate import SYSTEM
from agentos.kernel.journal import Journal
from agentos.kernel.port import ConfigurationSource
from agentos.projections.session import SessionState, State


class Woken(Protocol):
    """The sessions that wait, as whoever answers needs them."""

    def journal(self, tenant: str, session: str) -> AbstractAsyncContextManager[Journal]:
        """Its one journal. Raises NotFound, Relieved, ChainBroken, PayloadErased, LogUnavailable."""

    def wake(self, journal: Journal) -> None:
        """Have it run as its state says."""


class Answers:
    """Answers questions."""

    def __init__(self, sessions: Woken, source: ConfigurationSource, clock: Clock) -> None:
        self._sessions = sessions
        self._source = source
        self._clock = clock

    async def answer(
        self,
        tenant: str,
        session: str,
        *,
        granted: bool,
        reason: str,
        actor: str,
        roles: Sequence[str] = (),
        call: str | None = None,
        digest: str | None = None,
        scope: Scope = Scope.ONCE,
        valid_ms: int | None = None,
        max_uses: int | None = None,
        rehearse: bool = False,
        meanwhile: Callable[[], Awaitable[None]] | None = None,
    ) -> SessionState:
        """A person's answer to the question that a session waits with; a yes and a no both wake it.

        `roles` are those of `actor`; `digest` is of the arguments that the person looked at. `scope`, `valid_ms` and `max_uses`
        say how far a yes goes (None: the default of the scope); a standing one is recorded as a yes to this call alone, the grant
        is for the caller to make. `meanwhile` runs between the record and the waking; `rehearse` does everything but record.

        Raises Conflict when the session does not wait (any more), waits for another call than `call` or with other arguments
        than `digest`, or when its question has expired; UsageError for more than the tenant allows; Denied when policy says
        that this yes does not count. That refusal is told to the person and not recorded: the session's log is what happened
        to the session, and nothing did; whoever may not approve could otherwise fill it.
        """
        async with self._sessions.journal(tenant, session) as journal:
            seen, now, configuration = journal.head.seq, self._clock.now_ms(), self._source.current(tenant)
            asked = asked_call(journal.state, call, digest, now)
            kind, data = ev.APPROVAL_DENIED, answer_to(asked) | {"reason": reason}
            if granted:
                yes = terms(configuration, asked, now, scope, valid_ms, max_uses)
                told = await granted_yes(configuration, journal.state, asked, yes, actor, roles, reason, now)
                kind, data = ev.APPROVAL_GRANTED, data | told
            if rehearse:
                return journal.state
            state = await journal.record_under(configuration, kind, data, actor, only_if_seq=seen)
            try:
                if meanwhile is not None:
                    await meanwhile()
            finally:
                self._sessions.wake(journal)
            return state

    async def expire(self, tenant: str, session: str) -> bool:
        """Answer the question that a session waits with by a no, if its time is over; return whether it was.

        An answer that comes at the same moment is either before it, and stands, or finds nothing that waits.
        """
        async with self._sessions.journal(tenant, session) as journal:
            state = journal.state
            asked = state.calls.get(state.waiting_for or "")
            if state.state is not State.WAITING or asked is None or self._clock.now_ms() < question_ends(state):
                return False
            configuration = self._source.current(tenant)
            await journal.record_under(configuration, ev.APPROVAL_EXPIRED, answer_to(asked), SYSTEM, only_if_seq=state.seq)
            self._sessions.wake(journal)
            return True
