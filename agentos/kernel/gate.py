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
from agentos.abi.errors import Conflict, DriverError, OutcomeUnknown
from agentos.abi.syscall import MODEL_CALL, Result, Syscall, ToolEffect
from agentos.drivers.port import CallContext, Driver, ModelProvider, ModelRequest, ModelUnavailable, ToolSpec
from agentos.kernel.journal import Journal
from agentos.kernel.port import Configuration, Timer
from agentos.kernel.workspace import Workspaces
from agentos.projections import context
from agentos.projections.question import question
from agentos.projections.session import Call, Step

SYSTEM: Final = "system/kernel"

MAX_ARGS: Final = 1024 * 1024
"""Largest arguments of one call in canonical bytes; more is refused before policy sees it."""

UNREADABLE: Final = "agentos.unreadable"
"""Key under which arguments that have no canonical form (an integer beyond 2^53, …) are kept as text; such a call is refused."""

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
        if UNREADABLE in syscall.args:
            unreadable = "the arguments cannot be recorded: whole numbers beyond 2^53 are to be written as text"
            return await self._refuse(journal, configuration, syscall, unreadable)
        tool = configuration.tools.get(syscall.tool)
        if tool is None:
            return await self._refuse(journal, configuration, syscall, _unknown_tool(syscall.tool, configuration))
        problem = configuration.checks[tool.name](syscall.args)
        if problem is not None:
            return await self._refuse(journal, configuration, syscall, problem)
        try:
            arguments = canonical(syscall.args)
        except NotCanonical as error:
            return await self._refuse(journal, configuration, syscall, f"arguments: {error}")
        if len(arguments) > MAX_ARGS:
            problem = f"arguments are {len(arguments)} bytes, at most {MAX_ARGS} are taken"
            return await self._refuse(journal, configuration, syscall, problem)
        args_digest = digest(arguments)
        if known is not None and (known.tool, known.args_digest) != (syscall.tool, args_digest):
            raise Conflict(f"call {syscall.call} is already another call")
        request = _Request(syscall, tool.effect, args_digest, not _repeatable(tool), self._tool_act(journal, tool, syscall))
        return await self._decide_and_act(journal, configuration, request)

    async def perform_model(self, journal: Journal, configuration: Configuration) -> Call:
        """Take the next model call of the session through the gate; its result's `data` is the reply."""
        agent = configuration.agents[journal.state.agent]
        number = sum(1 for call in journal.state.calls.values() if call.tool == MODEL_CALL) + 1
        # The view is a pure function of the log, so the head of the chain names the whole input of the model.
        args = {"model": agent.model, "input_digest": journal.head.hash}
        syscall = Syscall(f"model-{number}", MODEL_CALL, args)
        act = self._model_act(journal, configuration)
        request = _Request(syscall, ToolEffect.EXTERNAL, digest_of(args), once=False, act=act)
        return await self._decide_and_act(journal, configuration, request)

    async def settle(self, journal: Journal, configuration: Configuration) -> None:
        """After a crash: settle calls that were allowed and have no outcome.

        A repeatable one stays open and is performed again when the harness asks; of any other the outcome is unknown, and is
        recorded as that.
        """
        for call in tuple(journal.state.calls.values()):
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
                data = {"rules": list(decision.rules), "reasons": list(decision.reasons)}
                await self._record(journal, configuration, ev.SESSION_HALTED, data)
            case Verdict.DENY:
                pass
        return journal.state.calls[syscall.call]

    async def _act(self, journal: Journal, configuration: Configuration, request: _Request) -> None:
        call, tool = request.syscall.call, request.syscall.tool
        started = self._timer.monotonic_us()

        def outcome(**fields: Json) -> dict[str, Json]:
            return {"call": call, "tool": tool, "duration_us": self._timer.monotonic_us() - started, **fields}

        async def lost() -> None:
            if request.once:
                await self._record(journal, configuration, ev.SYSCALL_UNKNOWN, {"call": call, "tool": tool})
            else:
                data = outcome(error={"code": "cancelled", "message": "stopped before it had finished"})
                await self._record(journal, configuration, ev.SYSCALL_FAILED, data)

        try:
            result = await request.act()
            data = outcome(result=result.to_dict())
            canonical(data)
        except asyncio.CancelledError:
            await lost()
            raise
        except OutcomeUnknown as error:
            if request.once:
                await self._record(journal, configuration, ev.SYSCALL_UNKNOWN, {"call": call, "tool": tool})
            else:
                await self._record(journal, configuration, ev.SYSCALL_FAILED, outcome(error=_error(error)))
        except DriverError as error:
            data = outcome(error=_error(error))
            await self._record(journal, configuration, ev.SYSCALL_FAILED, data)
        except NotCanonical as error:
            message = f"the tool acted, but its result cannot be recorded: {error}"
            data = outcome(error={"code": "result", "message": message, "retryable": False})
            await self._record(journal, configuration, ev.SYSCALL_FAILED, data)
        else:
            await self._record(journal, configuration, ev.SYSCALL_FINISHED, data)

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
            _check_ids(journal, reply.content)
            body = {
                "content": [_recordable(block) for block in reply.content],
                "stop_reason": reply.stop_reason,
                "input_tokens": reply.input_tokens,
                "output_tokens": reply.output_tokens,
            }
            return Result(content="", data=body)

        return ask

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
        repeated = known.tool == syscall.tool and known.args_digest in {"", digest_of(syscall.args)}
    except NotCanonical:
        repeated = known.step is Step.REFUSED
    if not repeated:
        raise Conflict(f"call {syscall.call} is already another call ({known.tool})")
    return known


def _error(error: DriverError) -> dict[str, Json]:
    """A driver's error for the log and the model: what, where, how to mend it, and whether asking again can help."""
    where, mend = f"{error.where}: " if error.where else "", f"; {error.mend}" if error.mend else ""
    body: dict[str, Json] = {"code": error.code, "message": f"{where}{error.message}{mend}", "retryable": error.retryable}
    if isinstance(error, ModelUnavailable) and error.retry_after is not None:
        body["retry_after_ms"] = int(error.retry_after * 1000)
    return body


def _repeatable(tool: ToolSpec) -> bool:
    return tool.idempotent or tool.effect is ToolEffect.READ


def _offer(tool: ToolSpec) -> dict[str, Json]:
    """A tool as the model is told of it."""
    return {"name": tool.name, "description": tool.description, "input_schema": dict(tool.input_schema)}


def _unknown_tool(name: str, configuration: Configuration) -> str:
    near = difflib.get_close_matches(name, configuration.tools, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"no tool is called {name[:128]!r}{hint}"


def _recordable(block: Mapping[str, Json]) -> dict[str, Json]:
    """A block of a reply as it is recorded: verbatim, unless its arguments have no canonical form."""
    if block.get("type") == "tool_use":
        try:
            canonical(block["input"])
        except NotCanonical:
            return {**block, "input": {UNREADABLE: json.dumps(block["input"], ensure_ascii=True)[:4096]}}
    return dict(block)


def _check_ids(journal: Journal, content: object) -> None:
    """Refuse a reply that reuses the id of an earlier call: its result would be mistaken for the new one's."""
    seen: set[str] = set()
    if not isinstance(content, (list, tuple)):
        raise DriverError("the model's reply has no list of content blocks")
    for block in content:
        if not isinstance(block, Mapping) or block.get("type") != "tool_use":
            continue
        call = block.get("id")
        if not isinstance(call, str) or not call or len(call) > 128 or call in seen or call in journal.state.calls:
            raise DriverError(f"the model's reply repeats or lacks a call id: {call!r}")
        if not isinstance(block.get("name"), str) or not isinstance(block.get("input"), dict):
            raise DriverError(f"the model's call {call} has no name or no arguments object")
        seen.add(call)
