"""The verbs with which a client outside drives a session: a client of MCP behind `agentos mcp serve`.

Such a client is a harness like any other: it proposes, policy decides, people are asked, and the log has it all. Its words reach
nothing but these verbs. Who is not meant (an agent that does not list the principal, a session of somebody else's, of another
tenant, of no client) is answered as if there were none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from agentos.abi.canonical import Json, NotCanonical, canonical
from agentos.abi.errors import ChainBroken, Conflict, NotFound, PayloadErased, UsageError
from agentos.abi.ids import Clock
from agentos.abi.syscall import Syscall
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.control.session_verbs import MAX_WAIT_MS, Held, nothing, take_session
from agentos.kernel.gate import MAX_ARGS
from agentos.kernel.port import AgentSpec, Configuration
from agentos.kernel.repeated import same
from agentos.kernel.reply import is_call_id, is_counted
from agentos.kernel.served import PREFIX, Proposal, Window
from agentos.kernel.sessions import Sessions
from agentos.kernel.tools import digest_of_offer, offer, offered
from agentos.projections import context
from agentos.projections.session import OPEN, Call, SessionState, State

OPERATOR: Final = "operator"
"""The role whose principals may drive any agent of the tenant; others are named by the Agent."""

LONGEST_NAME: Final = 128
"""Characters of a client's name, and of its version, at most."""

LONGEST_RESULT: Final = 64 * 1024
"""Characters of what a client says of its session in the end."""

WAIT_MS: Final = 10_000
"""How long an answer is waited for, unless the client says otherwise."""


Stop = Callable[[str, str, str], bool]
"""Ends a call of a session of a tenant; whether there was one that can be stopped."""


class GatewayVerbs:
    """gateway.open|tools|call|result|cancel|close."""

    def __init__(
        self, sessions: Sessions, current: Callable[[str], Configuration], clock: Clock, stop: Stop, frozen: Held = nothing
    ) -> None:
        """`stop` ends a call that acts, if that can be; `frozen` tells what holds work of an agent."""
        self._stop = stop
        self._frozen = frozen
        self._sessions = sessions
        self._current = current
        self._clock = clock

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {
            "gateway.open": self.open,
            "gateway.tools": self.tools,
            "gateway.call": self.call,
            "gateway.result": self.result,
            "gateway.cancel": self.cancel,
            "gateway.close": self.close,
        }

    async def open(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Begin a session that the caller drives: {agent, client: {name, version}, session?} → {session, agent, revision}.

        With `session`: go on with that one, which the caller has opened before.
        """
        take = Params(params)
        agent, told = take.text("agent", longest=63), Params(take.mapping("client"))
        session = take_session(take) if params.get("session") is not None else take.text_or_none("session")
        take.end()
        client: dict[str, Json] = {"name": _word(told, "name"), "version": _word(told, "version")}
        told.end()
        if _driven(self._current(caller.tenant), caller, agent) is None:
            raise NotFound(f"no agent {agent} is served to you", mend="ask for it: spec.gateway.principals of the Agent")
        if session is None:
            state = await self._sessions.create(
                caller.tenant,
                agent,
                f"Do what the MCP client {client['name']} {client['version']} asks for.",
                None,
                caller.actor,
                origin={"served": {"by": "mcp", "client": client}},
            )
        else:
            state = await self._mine(caller, session)
            if state.agent != agent:
                _none(session)
            if state.over:
                raise Conflict(f"session {session} is {state.state}", mend="open another one")
        self._window(state)
        return {"session": state.id, "agent": agent, "revision": self._current(caller.tenant).revision}

    async def tools(self, caller: Caller, params: dict[str, Json]) -> Json:
        """What may be called, in the order of the Agent: {session} → {revision, tools}.

        A tool is {name, description, input_schema, output_schema?, effect, idempotent, digest}.
        """
        take = Params(params)
        session = take_session(take)
        take.end()
        state = await self._mine(caller, session)
        configuration = self._current(caller.tenant)
        found: list[Json] = []
        for tool in offered(state, configuration):
            output = {} if tool.output_schema is None else {"output_schema": dict(tool.output_schema)}
            more = {"effect": str(tool.effect), "idempotent": tool.idempotent, "digest": digest_of_offer(tool)}
            found.append({**offer(tool), **output, **more})
        return {"revision": configuration.revision, "tools": found}

    async def call(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Propose a call: {session, tool, args, call?, digest?, wait_ms?} → where it stands, see `_told`.

        `call` is an id of the client's own (`step-1`); given again with the same tool and arguments it is the same call, and
        never made twice. `digest` is that of the tool as it was listed. Raises Conflict when the tool is another one by now, the
        id is taken, or too much is under way.
        """
        take = Params(params)
        session, tool = take_session(take), take.text("tool", longest=128)
        args = take.mapping("args", most=1000)
        call, digest = take.text_or_none("call", longest=64), take.text_or_none("digest", longest=128)
        wait_ms = take.number("wait_ms", default=WAIT_MS, highest=MAX_WAIT_MS)
        take.end()
        if call is not None and not (is_call_id(call) and is_counted(call)):
            raise UsageError(f"{call!r} names no call", mend="up to eight small letters, perhaps a dash, and a number: step-1")
        _check(args)
        await self._mine(caller, session)
        async with self._sessions.journal(caller.tenant, session) as journal:
            state = journal.state
            if state.over and (call is None or call not in state.calls):
                raise Conflict(f"session {session} is {state.state}", mend="open another one")
            window = self._window(state)
            call = call or _fresh(state, window)
            known, proposal = state.calls.get(call), window.find(call)
            syscall = Syscall(call, tool, args)
            if known is not None:
                same(known, syscall)
            elif proposal is not None and (proposal.params["tool"], proposal.params["args"]) != (tool, args):
                raise Conflict(f"call {call} is already another call ({proposal.params['tool']})")
            if proposal is None and (known is None or known.step in OPEN):
                body: dict[str, Json] = {"call": call, "tool": tool, "args": args}
                proposal = window.put(Proposal("tool.call", body if digest is None else {**body, "digest": digest}))
                await self._sessions.attend(journal)
        return await self._outcome(caller.tenant, session, call, wait_ms, proposal)

    async def result(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Where a call stands: {session, call, wait_ms?} → see `_told`.

        Waits as long as `wait_ms` says, for the person too who is asked already; another question is told at once.
        """
        take = Params(params)
        session, call = take_session(take), take.text("call", longest=64)
        wait_ms = take.number("wait_ms", default=0, highest=MAX_WAIT_MS)
        take.end()
        state = await self._mine(caller, session)
        window = self._window(state)
        proposal = window.find(call)
        if proposal is None and call not in state.calls:
            raise NotFound(f"session {session} has no call {call}")
        return await self._outcome(caller.tenant, session, call, wait_ms, proposal, seen=state.waiting_for)

    async def cancel(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Give a call up: {session, call, reason?} → {cancelled, …where it stands}.

        One that was not decided is taken back, and nothing of it is in the log; one that waits for a person is answered by a no
        of the caller's. One that acts is stopped where its driver can (`kernel.stopping`): its outcome is unknown then.
        """
        take = Params(params)
        session, call = take_session(take), take.text("call", longest=64)
        reason = take.text_or_none("reason", longest=1000) or "given up by the client"
        take.end()
        state = await self._mine(caller, session)
        window = self._window(state)
        known = state.calls.get(call)
        if known is None and window.withdraw(call):
            return {"cancelled": True, "call": call, "state": "cancelled"}
        if known is None and window.find(call) is None:
            raise NotFound(f"session {session} has no call {call}")
        cancelled = False
        if state.state is State.WAITING and state.waiting_for == call:
            try:
                state = await self._sessions.answer(
                    caller.tenant, session, granted=False, reason=reason, actor=caller.actor, roles=caller.roles, call=call
                )
                cancelled = True
            except Conflict:
                # Somebody has answered meanwhile.
                state = await self._sessions.state(caller.tenant, session)
        elif known is None or known.step in OPEN:
            cancelled = self._stop(caller.tenant, session, call)
        return {"cancelled": cancelled, **self._told(state, call)}

    async def close(self, caller: Caller, params: dict[str, Json]) -> Json:
        """End the session: {session, result?, wait_ms?} → {session, state}.

        It is finished once what is under way has its outcome; what waits for a person is waited for. No call is taken any more.
        """
        take = Params(params)
        session, result = take_session(take), take.text_or_none("result", longest=LONGEST_RESULT)
        wait_ms = take.number("wait_ms", default=WAIT_MS, highest=MAX_WAIT_MS)
        take.end()
        state = await self._mine(caller, session)
        if not state.over:
            proposal = await finish(self._sessions, caller.tenant, session, result or "closed by its client")
            await asyncio.wait((proposal.answered,), timeout=wait_ms / 1000)
            state = await self._sessions.state(caller.tenant, session)
        return {"session": session, "state": str(state.state)}

    async def _mine(self, caller: Caller, session: str) -> SessionState:
        """The session, if the caller drives it. Raises NotFound, the same for any other."""
        try:
            state = await self._sessions.state(caller.tenant, session)
        except (NotFound, PayloadErased, ChainBroken):
            _none(session)
        if state.served is None or state.actor != caller.actor:
            _none(session)
        if _driven(self._current(caller.tenant), caller, state.agent) is None:
            _none(session)
        return state

    def _window(self, state: SessionState) -> Window:
        """Where the client of a session proposes; it has asked for something."""
        window = self._sessions.windows.of(state) if not state.over else Window()
        window.used_ms = self._clock.now_ms()
        return window

    async def _outcome(
        self, tenant: str, session: str, call: str, wait_ms: int, proposal: Proposal | None, *, seen: str | None = None
    ) -> dict[str, Json]:
        """Where a call stands once it is done, or a person is asked (about another call than `seen`), or after `wait_ms`."""
        until = asyncio.get_running_loop().time() + wait_ms / 1000
        while True:
            state = await self._sessions.state(tenant, session)
            known = state.calls.get(call)
            if known is None and proposal is not None and proposal.answered.done():
                proposal.answered.result()
            left = until - asyncio.get_running_loop().time()
            done = state.over or (known is not None and known.step not in OPEN)
            if done or left <= 0 or (state.state is State.WAITING and state.waiting_for != seen):
                return self._told(state, call)
            await self._beyond(state, proposal, left)

    async def _beyond(self, state: SessionState, proposal: Proposal | None, seconds: float) -> None:
        """Return once the session has another event, the proposal its answer, or the time is over."""
        grown = asyncio.ensure_future(self._sessions.wait_beyond(state.tenant, state.id, state.seq))
        answered = () if proposal is None or proposal.answered.done() else (proposal.answered,)
        try:
            await asyncio.wait((grown, *answered), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            grown.cancel()

    def _told(self, state: SessionState, call: str) -> dict[str, Json]:
        """Where a call stands.

        `{call, state: done, step, content, is_error, structured?}`; `{call, state: waiting, question}`, where the question may be
        about another call, behind which this one waits; `{call, state: running, held?}`: `held` says who keeps the session from
        going on.
        """
        known = state.calls.get(call)
        if known is not None and known.step not in OPEN:
            text, is_error = context.outcome(known)
            done: dict[str, Json] = {
                "call": call,
                "state": "done",
                "step": str(known.step),
                "content": text,
                "is_error": is_error,
            }
            data = known.result.get("data") if known.result is not None else None
            return {**done, "structured": data} if isinstance(data, dict) else done
        if state.over:
            raise Conflict(f"session {state.id} is {state.state}, and call {call} was not made")
        asked = state.calls.get(state.waiting_for or "")
        if state.state is State.WAITING and asked is not None:
            return {"call": call, "state": "waiting", "question": _question(state, asked)}
        held = self._held(state)
        return {"call": call, "state": "running", **({"held": held} if held else {})}

    def _held(self, state: SessionState) -> str:
        """What keeps a session from going on, in words; empty: nothing."""
        if state.paused is not None:
            return f"paused by {state.paused['by']}"
        freeze = self._frozen(state.tenant, [state.agent])
        return "" if freeze is None else f"frozen by {freeze.actor}"


async def finish(sessions: Sessions, tenant: str, session: str, result: str) -> Proposal:
    """Have a served session finished, once what is under way has ended."""
    async with sessions.journal(tenant, session) as journal:
        window = sessions.windows.of(journal.state)
        proposal = next((one for one in window.open() if one.method == "finish"), None)
        if proposal is None:
            proposal = window.put(Proposal("finish", {"result": result}))
        if journal.state.over:
            sessions.windows.ended(tenant, session)
        else:
            await sessions.attend(journal)
        return proposal


def _driven(configuration: Configuration, caller: Caller, agent: str) -> AgentSpec | None:
    """The agent, if the caller may drive sessions of it."""
    spec = configuration.agents.get(agent)
    if spec is None or not (OPERATOR in caller.roles or caller.name in spec.gateway.principals):
        return None
    return spec


def _none(session: str) -> NoReturn:
    raise NotFound(f"no session {session} is served to you", mend="open one")


def _word(told: Params, key: str) -> str:
    word = told.text(key, longest=LONGEST_NAME)
    if not word.isprintable():
        raise UsageError(f"parameter client.{key}: expected text without control characters")
    return word


def _check(args: Mapping[str, Json]) -> None:
    """Raise UsageError for arguments that no event could hold."""
    try:
        size = len(canonical(dict(args)))
    except NotCanonical as error:
        raise UsageError(f"parameter args: {error}") from error
    if size > MAX_ARGS:
        raise UsageError(f"parameter args: {size} bytes, at most {MAX_ARGS} are taken")


def _fresh(state: SessionState, window: Window) -> str:
    """An id that nothing of the session has."""
    while True:
        window.counter += 1
        call = f"{PREFIX}{window.counter}"
        if call not in state.calls and window.find(call) is None:
            return call


def _question(state: SessionState, asked: Call) -> dict[str, Json]:
    """What an approver is to look at; `approval.approve` and `approval.deny` take `call` and `args_digest`, as `digest`."""
    waiting, decision = state.waiting or {}, asked.decision or {}
    return {
        "session": state.id,
        "agent": state.agent,
        "call": asked.call,
        "tool": asked.tool,
        "effect": asked.effect,
        "args": dict(asked.args),
        "args_digest": asked.args_digest,
        "rules": list(decision.get("rules", ())),
        "reasons": list(decision.get("reasons", ())),
        "expires_ms": waiting.get("expires"),
        "needed": waiting.get("needed"),
        "given": waiting.get("given"),
    }
