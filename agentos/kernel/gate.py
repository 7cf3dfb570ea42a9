"""The one gate. Every syscall of every session passes through `Gate.perform`; no other path to an effect exists.

Order: find what the log already says of this call → validate the arguments → decide by policy → record the decision (for an
`allow`, that record is the durable intent) → act through a driver → record the outcome. A denial, a question to a person and
a halt are recorded in the same way and act on nothing. Model calls pass as the tool `model-call`.
"""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json, NotCanonical, canonical, digest, digest_of
from agentos.abi.decision import Verdict, deny
from agentos.abi.errors import Conflict, DriverError, OutcomeUnknown, TooLarge
from agentos.abi.syscall import MODEL_CALL, Result, Syscall, ToolEffect
from agentos.drivers.port import CallContext, Driver, ModelProvider, ModelRequest, ModelUnavailable, ToolSpec
from agentos.kernel.journal import Journal
from agentos.kernel.port import Configuration, Timer
from agentos.kernel.reply import MODEL_IDS, UNREADABLE, check_reply, recordable
from agentos.kernel.workspace import Workspaces
from agentos.projections import context
from agentos.projections.question import question
from agentos.projections.session import Call, State, Step

SYSTEM: Final = "system/kernel"

MAX_ARGS: Final = 1024 * 1024
"""Largest arguments of one call in canonical bytes; more is refused before policy sees it."""

MAX_OUTCOME: Final = 2 * 1024 * 1024
"""Largest result of one call, and largest reply of a model, in canonical bytes: it must fit an event of the log, and a frame of
the ABI, whose escapes may make three bytes of one."""

MAX_WORDS: Final = 4096
"""Most characters of an error that a driver reports."""

Act = Callable[[], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class _Request:
    """A validated call on its way to policy."""

    syscall: Syscall
    effect: ToolEffect
    args_digest: str
    once: bool
    """Whether acting twice could do harm: then a lost outcome is reported as unknown, never retried."""
    act: Act


class Gate:
    """Performs syscalls of sessions. Holds no state of its own: what it knows of a session is the session's journal."""

    def __init__(self, drivers: Driver, models: ModelProvider, workspaces: Workspaces, timer: Timer) -> None:
        self._drivers = drivers
        self._models = models
        self._workspaces = workspaces
        self._timer = timer

    async def perform(self, journal: Journal, configuration: Configuration, syscall: Syscall) -> Call:
        """Take one tool call through the gate; return where it stands then.

        `Step.ASKED` means that the session now waits for a person; a `halt` has ended the session.
        Raises Conflict if the id is taken by a different call, LogUnavailable if an event could not be made durable
        (nothing has been acted on without a durable intent).
        """
        known = journal.state.calls.get(syscall.call)
        if known is not None and known.step not in {Step.APPROVED, Step.ALLOWED}:
            return _same(known, syscall)
        if known is not None and known.tool != syscall.tool:
            raise _taken(known)
        if UNREADABLE in syscall.args:
            unreadable = "the arguments cannot be recorded: whole numbers beyond 2^53 are to be written as text"
            return await self._refuse(journal, configuration, syscall, unreadable)
        tool = configuration.tools.get(syscall.tool)
        if tool is None:
            return await self._refuse(journal, configuration, syscall, _unknown_tool(syscall.tool, configuration))
        try:
            arguments = canonical(syscall.args)
        except NotCanonical as error:
            return await self._refuse(journal, configuration, syscall, f"arguments: {error}")
        args_digest = digest(arguments)
        if known is not None and known.args_digest != args_digest:
            raise _taken(known)
        # The size first: what checking costs grows with it.
        problem = f"arguments are {len(arguments)} bytes, at most {MAX_ARGS} are taken" if len(arguments) > MAX_ARGS else None
        problem = problem or configuration.checks[tool.name](syscall.args)
        if problem is not None:
            return await self._refuse(journal, configuration, syscall, problem)
        request = _Request(syscall, tool.effect, args_digest, not _repeatable(tool), self._tool_act(journal, tool, syscall))
        return await self._decide_and_act(journal, configuration, request)

    async def perform_model(self, journal: Journal, configuration: Configuration) -> Call:
        """Take the next model call of the session through the gate; its result's `data` is the reply."""
        agent = configuration.agents[journal.state.agent]
        number = sum(1 for call in journal.state.calls.values() if call.tool == MODEL_CALL) + 1
        # The view is a pure function of the log, so the head of the chain names the whole input of the model.
        args = {"model": agent.model, "input_digest": journal.head.hash}
        syscall = Syscall(f"{MODEL_IDS}{number}", MODEL_CALL, args)
        act = self._model_act(journal, configuration)
        request = _Request(syscall, ToolEffect.EXTERNAL, digest_of(args), once=False, act=act)
        return await self._decide_and_act(journal, configuration, request)

    async def settle(self, journal: Journal, configuration: Configuration) -> None:
        """After a crash: finish what a decision began.

        An allowed call without an outcome stays open if it is repeatable, and is performed again when the harness asks; of any
        other the outcome is unknown, and is recorded as that. A question that was decided and not asked is asked, and a halt that
        was decided halts.
        """
        for call in tuple(journal.state.calls.values()):
            if call.decision is not None and call.decision["effect"] == Verdict.HALT:
                await self._halt(journal, configuration, call.decision)
                return
            if call.step is Step.ASKED and journal.state.state is State.RUNNING:
                await self._record(journal, configuration, ev.SESSION_WAITING, {"call": call.call})
            if call.step is not Step.ALLOWED:
                continue
            tool = configuration.tools.get(call.tool)
            if call.tool == MODEL_CALL or tool is None or not _repeatable(tool):
                data = {"call": call.call, "tool": call.tool}
                await self._record(journal, configuration, ev.SYSCALL_UNKNOWN, data)

    async def _decide_and_act(self, journal: Journal, configuration: Configuration, request: _Request) -> Call:
        syscall, state = request.syscall, journal.state
        agent = configuration.agents.get(state.agent)
        data: dict[str, Json] = {
            "call": syscall.call,
            "tool": syscall.tool,
            "effect": str(request.effect),
            "args": syscall.args,
            "args_digest": request.args_digest,
            # With these two the question to policy can be made again from the log alone.
            "agent": {"name": state.agent, "labels": dict(agent.labels) if agent is not None else {}},
            "now": self._timer.now_ms(),
            "turn": state.turn + (syscall.tool == MODEL_CALL),
        }
        if agent is None:
            decision = deny("kernel.agent-gone", f"agent {state.agent} is not declared in revision {configuration.revision}")
        else:
            asked = question(state, agent=data["agent"], call=data, revision=configuration.revision, now_ms=data["now"])
            decision = await configuration.decider.decide_syscall(asked)
        data["decision"] = decision.to_dict()
        known = state.calls.get(syscall.call)
        if known is not None and known.approval is not None:
            data["approval"] = dict(known.approval)
        await self._record(journal, configuration, ev.SYSCALL_DECIDED, data, actor=f"agent/{journal.state.agent}")
        match decision.effect:
            case Verdict.ALLOW:
                await self._act(journal, configuration, request)
            case Verdict.ASK:
                await self._record(journal, configuration, ev.SESSION_WAITING, {"call": syscall.call})
            case Verdict.HALT:
                await self._halt(journal, configuration, data["decision"])
            case Verdict.DENY:
                pass
        return journal.state.calls[syscall.call]

    async def _act(self, journal: Journal, configuration: Configuration, request: _Request) -> None:
        call, tool = request.syscall.call, request.syscall.tool
        started = self._timer.monotonic_us()

        def outcome(**fields: Json) -> dict[str, Json]:
            return {"call": call, "tool": tool, "duration_us": self._timer.monotonic_us() - started, **fields}

        async def failed(error: dict[str, Json]) -> None:
            await self._record(journal, configuration, ev.SYSCALL_FAILED, outcome(error=error))

        async def lost(error: dict[str, Json]) -> None:
            if request.once:
                await self._record(journal, configuration, ev.SYSCALL_UNKNOWN, {"call": call, "tool": tool})
            else:
                await failed(error)

        try:
            result = await request.act()
            data = outcome(result=result.to_dict())
            size = len(canonical({"data": data}))  # as deep as it will stand in the event
        except asyncio.CancelledError:
            await lost({"code": "cancelled", "message": "stopped before it had finished"})
            raise
        except OutcomeUnknown as error:
            await lost(_error(error))
        except DriverError as error:
            await failed(_error(error))
        except NotCanonical as error:
            await failed(_unfit(str(error)))
        except Exception:
            # A driver that breaks its contract: what it did is as unknown as after a crash. The session fails of it, visibly.
            await lost({"code": "internal", "message": "the driver failed in an unexpected way"})
            raise
        else:
            if size > MAX_OUTCOME:
                await failed(_unfit(f"it is {size} bytes, at most {MAX_OUTCOME} are kept"))
                return
            try:
                await self._record(journal, configuration, ev.SYSCALL_FINISHED, data)
            except TooLarge as error:
                await failed(_unfit(error.message))

    def _tool_act(self, journal: Journal, tool: ToolSpec, syscall: Syscall) -> Act:
        folder = self._workspaces.path(journal.tenant, journal.session)
        place = CallContext(journal.tenant, journal.session, syscall.call, folder)
        return lambda: self._drivers.call(tool, syscall.args, place)

    def _model_act(self, journal: Journal, configuration: Configuration) -> Act:
        agent = configuration.agents[journal.state.agent]

        async def ask() -> Result:
            request = ModelRequest(
                system=agent.instructions,
                messages=context.messages(journal.state),
                tools=[_offer(configuration.tools[name]) for name in agent.tools],
            )
            reply = await self._models.complete(configuration.models[agent.model], request)
            check_reply(reply, taken=journal.state.calls)
            body = {
                "content": [recordable(block) for block in reply.content],
                "stop_reason": reply.stop_reason,
                "input_tokens": reply.input_tokens,
                "output_tokens": reply.output_tokens,
            }
            return Result(content="", data=body)

        return ask

    async def _halt(self, journal: Journal, configuration: Configuration, decision: Mapping[str, Json]) -> None:
        data = {"rules": decision["rules"], "reasons": decision["reasons"]}
        await self._record(journal, configuration, ev.SESSION_HALTED, data)

    async def _refuse(self, journal: Journal, configuration: Configuration, syscall: Syscall, message: str) -> Call:
        text = json.dumps(syscall.args, ensure_ascii=True, default=str)[:4096]
        data: dict[str, Json] = {
            "call": syscall.call,
            "tool": syscall.tool[:128],
            "args_text": text,
            "error": {"code": "refused", "message": message},
        }
        await self._record(journal, configuration, ev.SYSCALL_REFUSED, data, actor=f"agent/{journal.state.agent}")
        return journal.state.calls[syscall.call]

    async def _record(
        self,
        journal: Journal,
        configuration: Configuration,
        kind: str,
        data: dict[str, Json],
        actor: str = SYSTEM,
    ) -> None:
        await journal.record(kind, data, actor=actor, revision=configuration.revision, policy=configuration.policy_digest)


def _same(known: Call, syscall: Syscall) -> Call:
    """The recorded call, if `syscall` repeats it: a completed call is answered from the log, never performed again."""
    try:
        repeated = known.tool == syscall.tool[:128] and known.args_digest in {"", digest_of(syscall.args)}
    except NotCanonical:
        repeated = known.step is Step.REFUSED
    if not repeated:
        raise _taken(known)
    return known


def _taken(known: Call) -> Conflict:
    return Conflict(f"call {known.call} is already another call ({known.tool})")


def _error(error: DriverError) -> dict[str, Json]:
    """A driver's error for the log and the model: what, where, how to mend it, and whether asking again can help."""
    where, mend = f"{error.where}: " if error.where else "", f"; {error.mend}" if error.mend else ""
    words = f"{where}{error.message}{mend}".encode("utf-8", "replace").decode("utf-8")
    message = words if len(words) <= MAX_WORDS else words[:MAX_WORDS] + "…"
    body: dict[str, Json] = {"code": error.code, "message": message, "retryable": error.retryable}
    if isinstance(error, ModelUnavailable) and error.retry_after is not None:
        body["retry_after_ms"] = int(error.retry_after * 1000)
    return body


def _unfit(why: str) -> dict[str, Json]:
    return {"code": "result", "message": f"the call was performed, but its result cannot be recorded: {why}", "retryable": False}


def _repeatable(tool: ToolSpec) -> bool:
    return tool.idempotent or tool.effect is ToolEffect.READ


def _offer(tool: ToolSpec) -> dict[str, Json]:
    """A tool as the model is told of it."""
    return {"name": tool.name, "description": tool.description, "input_schema": dict(tool.input_schema)}


def _unknown_tool(name: str, configuration: Configuration) -> str:
    near = difflib.get_close_matches(name[:128], configuration.tools, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"no tool is called {name[:128]!r}{hint}"
