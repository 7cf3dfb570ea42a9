"""The verbs with which people steer a session: pause, resume, signal, reconcile, fork."""

from __future__ import annotations

from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.abi.ids import is_name
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.control.session_verbs import MAX_DUE_MS, describe, take_session
from agentos.drivers.port import Outcome
from agentos.drivers.signals import LONGEST_DATA, LONGEST_NAME
from agentos.kernel.fork import Forks
from agentos.kernel.life import Life
from agentos.kernel.opening import MAX_GOAL
from agentos.kernel.signals import SignalDesk

MAX_RESULT: Final = 1024 * 1024
"""Longest result that a person tells, in characters."""


class SessionLifeVerbs:
    """session.pause|resume|signal|reconcile|fork."""

    def __init__(self, life: Life, forks: Forks, signals: SignalDesk) -> None:
        self._life = life
        self._forks = forks
        self._signals = signals

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {
            "session.pause": self.pause,
            "session.resume": self.resume,
            "session.signal": self.signal,
            "session.reconcile": self.reconcile,
            "session.fork": self.fork,
        }

    async def pause(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Keep a session from going on: {session, reason} → the session."""
        session, reason = _who_and_why(params)
        return describe(await self._life.pause(caller.tenant, session, reason=reason, actor=caller.actor))

    async def resume(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Let a paused session go on: {session, reason} → the session."""
        session, reason = _who_and_why(params)
        return describe(await self._life.resume(caller.tenant, session, reason=reason, actor=caller.actor))

    async def signal(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Tell a session something: {session, name, data?} → the session. Its model sees it at its next turn."""
        take = Params(params)
        session, name = take_session(take), take.text("name", longest=LONGEST_NAME)
        data = take.text_or_none("data", longest=LONGEST_DATA)
        take.end()
        if not is_name(name):
            raise UsageError(f"{name!r} is no name of a signal", mend="small letters, digits and -, such as go or stop")
        return describe(await self._signals.signal(caller.tenant, session, name, data or "", actor=caller.actor))

    async def reconcile(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Settle a call of unknown outcome: {session, call, outcome: finished|failed|not-run, reason, result?} → the session."""
        take = Params(params)
        session, call, reason = take_session(take), take.text("call", longest=128), take.text("reason")
        word, result = take.text("outcome"), take.text_or_none("result", longest=MAX_RESULT)
        take.end()
        if word not in set(Outcome):
            raise UsageError(f"parameter outcome: expected one of {', '.join(Outcome)}")
        state = await self._life.reconcile(
            caller.tenant, session, call, outcome=Outcome(word), reason=reason, actor=caller.actor, result=result
        )
        return describe(state)

    async def fork(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Go on from a point of a session in a new one: {session, at (number or id), agent?, goal?, reason?, priority?,
        due_in_ms?} → that."""
        take = Params(params)
        session, at = take_session(take), take.text("at", longest=128)
        agent, goal = take.text_or_none("agent"), take.text_or_none("goal", longest=MAX_GOAL)
        reason, priority = take.text_or_none("reason"), take.text_or_none("priority", longest=63)
        due = take.number("due_in_ms", default=0, highest=MAX_DUE_MS)
        take.end()
        fork = await self._forks.fork(
            caller.tenant,
            session,
            at,
            actor=caller.actor,
            agent=agent,
            goal=goal,
            reason=reason,
            priority=priority,
            due_in_ms=due or None,
        )
        return describe(fork.state) | {"forked": fork.origin}


def _who_and_why(params: dict[str, Json]) -> tuple[str, str]:
    take = Params(params)
    session, reason = take_session(take), take.text("reason")
    take.end()
    return session, reason
