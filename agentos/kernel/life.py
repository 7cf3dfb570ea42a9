"""What people do to a session beside answering it: keep it from going on, let it go on, tell it what came of a lost call.

Each of these is an event with the person's name and reason; none of them acts on the world.
"""

from __future__ import annotations

from agentos.abi import event as ev
from agentos.abi.canonical import Json, NotCanonical, canonical
from agentos.abi.errors import Conflict, NotFound, UsageError
from agentos.abi.syscall import MODEL_CALL, NET_REQUEST, PSEUDO
from agentos.drivers.port import Outcome
from agentos.kernel.gate import MAX_OUTCOME, Gate
from agentos.kernel.port import Configuration, ConfigurationSource
from agentos.kernel.reconcile import told_result
from agentos.kernel.sessions import Sessions
from agentos.projections.session import Call, SessionState, Step


class Life:
    """Pauses, resumes and reconciles sessions."""

    def __init__(self, sessions: Sessions, source: ConfigurationSource, gate: Gate) -> None:
        self._sessions = sessions
        self._source = source
        self._gate = gate

    async def pause(self, tenant: str, session: str, *, reason: str, actor: str) -> SessionState:
        """Keep a session from making another syscall, from now until it is resumed, over restarts too.

        A call that is under way is finished first; a question to people stays open, and its answer is heard when the session
        goes on. Raises NotFound, Conflict when it is over or paused already.
        """
        async with self._sessions.journal(tenant, session) as journal:
            paused = journal.state.paused
            if paused is not None and not journal.state.over:
                raise Conflict(f"session {session} is paused already, by {paused['by']}: {paused['reason']}")
            configuration = self._source.current(tenant)
            return await journal.record(
                ev.SESSION_PAUSED,
                {"reason": reason},
                actor=actor,
                revision=configuration.revision,
                policy=configuration.policy_digest,
            )

    async def resume(self, tenant: str, session: str, *, reason: str, actor: str) -> SessionState:
        """Let a paused session go on. Raises NotFound, Conflict when it is not paused."""
        async with self._sessions.journal(tenant, session) as journal:
            state = journal.state
            if state.paused is None or state.over:
                raise Conflict(f"session {session} is not paused: it is {state.state}")
            configuration = self._source.current(tenant)
            await journal.record(
                ev.SESSION_RESUMED,
                {"reason": reason},
                actor=actor,
                revision=configuration.revision,
                policy=configuration.policy_digest,
            )
            if not self._sessions.runs(tenant, session):
                # The runtime may have stopped within its last call, and nobody has looked at it since.
                await self._gate.settle(journal, configuration)
            self._sessions.wake(journal)
            return journal.state

    async def reconcile(
        self, tenant: str, session: str, call: str, *, outcome: Outcome, reason: str, actor: str, result: str | None = None
    ) -> SessionState:
        """Say what came of a call whose outcome is unknown; from then on the model is told that.

        `result` is what the tool gave back, for `finished` only (default: no text). Raises NotFound for a call that the session
        does not know, Conflict for one that is not unknown and for a session that is over, UsageError for a result that cannot
        be recorded.
        """
        if outcome is not Outcome.FINISHED and result is not None:
            raise UsageError(f"a call that is {outcome} has no result", mend="say it in the reason")
        async with self._sessions.journal(tenant, session) as journal:
            state = journal.state
            known = _unknown(state, call)
            configuration = self._source.current(tenant)
            data: dict[str, Json] = {"call": call, "tool": known.tool, "outcome": str(outcome), "reason": reason}
            if outcome is Outcome.FINISHED:
                data["result"] = _result(state, known, configuration, result or "")
            return await journal.record(
                ev.SYSCALL_RECONCILED,
                data,
                actor=actor,
                revision=configuration.revision,
                policy=configuration.policy_digest,
            )


def _unknown(state: SessionState, name: str) -> Call:
    """The call that is to be settled. Raises NotFound or Conflict."""
    call = state.calls.get(name)
    if call is None:
        lost = [one.call for one in state.calls.values() if one.step is Step.UNKNOWN and one.tool not in PSEUDO]
        raise NotFound(
            f"session {state.id} has no call {name[:128]}",
            mend=f"calls whose outcome is unknown: {', '.join(lost[:10]) or 'none'}",
        )
    if call.step is not Step.UNKNOWN:
        raise Conflict(f"call {name} is {call.step}: only one whose outcome is unknown is reconciled")
    if call.tool == NET_REQUEST:
        raise Conflict(f"{name} is a request that left for another call: settle that one")
    if call.tool == MODEL_CALL:
        raise Conflict(f"{name} is a call of the model: it is made again by itself, and there is nothing to find out")
    return call


def _result(state: SessionState, call: Call, configuration: Configuration, text: str) -> dict[str, Json]:
    """The result as a person tells it. Raises UsageError for one that cannot be recorded."""
    try:
        result = told_result(state, call, configuration, text)
        size = len(canonical(result))
    except NotCanonical as error:
        raise UsageError(f"the result cannot be recorded: {error}") from error
    if size > MAX_OUTCOME:
        raise UsageError(f"the result is {size} bytes, at most {MAX_OUTCOME} are kept")
    return result
