"""One session, folded from its events: where it stands, what it has called, what it may still spend.

`fold(state, event) -> state` is pure: the kernel and every reader come to the same state from the same log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.event import Event
from agentos.abi.syscall import MODEL_CALL


class State(StrEnum):
    """Where a session stands. The last four are final."""

    RUNNING = "running"
    WAITING = "waiting"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    HALTED = "halted"


class Step(StrEnum):
    """Where one syscall stands. `allowed` without an outcome means: it may have been acted on."""

    REFUSED = "refused"
    DENIED = "denied"
    ASKED = "asked"
    APPROVED = "approved"
    REJECTED = "rejected"
    ALLOWED = "allowed"
    FINISHED = "finished"
    FAILED = "failed"
    UNKNOWN = "unknown"


OPEN: Final = frozenset({Step.ASKED, Step.APPROVED, Step.ALLOWED})
"""Steps after which the call still needs something: a person, or an outcome."""


@dataclass(frozen=True, slots=True)
class Call:
    """One syscall of the session as the log knows it. `decision`, `result`, `error` have the shapes of the events."""

    call: str
    tool: str
    args: Mapping[str, Json]
    args_digest: str
    step: Step
    turn: int
    decision: Mapping[str, Json] | None = None
    result: Mapping[str, Json] | None = None
    error: Mapping[str, Json] | None = None
    approval: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class SessionState:
    """The whole session. `seq` is the number of events folded; `calls` keeps the order of first appearance."""

    id: str = ""
    tenant: str = ""
    state: State = State.RUNNING
    agent: str = ""
    goal: str = ""
    inputs: tuple[Mapping[str, Json], ...] = ()
    actor: str = ""
    config_revision: int = 0
    seq: int = 0
    epoch: int = 0
    turn: int = 0
    calls: Mapping[str, Call] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    waiting_for: str | None = None
    result: str | None = None
    error: Mapping[str, Json] | None = None

    @property
    def over(self) -> bool:
        """Whether the session has ended for good."""
        return self.state not in {State.RUNNING, State.WAITING}


def fold_all(events: Iterable[Event]) -> SessionState:
    """Fold a session from its first event."""
    state = SessionState()
    for event in events:
        state = fold(state, event)
    return state


def fold(state: SessionState, event: Event) -> SessionState:
    """The state after `event`. An event of a type this version does not know changes nothing but `seq`."""
    state = replace(state, seq=event.seq, config_revision=event.config_revision)
    data = event.data
    match event.type:
        case ev.SESSION_CREATED:
            return replace(
                state,
                id=event.subject,
                tenant=event.tenant,
                agent=data["agent"],
                goal=data["goal"],
                inputs=tuple(data.get("inputs", ())),
                actor=event.actor,
            )
        case ev.SESSION_OWNED:
            return replace(state, epoch=data["epoch"])
        case ev.SESSION_WAITING:
            return replace(state, state=State.WAITING, waiting_for=data["call"])
        case ev.SESSION_FINISHED:
            return replace(state, state=State.FINISHED, result=data["result"])
        case ev.SESSION_FAILED:
            return replace(state, state=State.FAILED, error=data["error"])
        case ev.SESSION_CANCELLED:
            return replace(state, state=State.CANCELLED, error={"code": "cancelled", "message": data["reason"]})
        case ev.SESSION_HALTED:
            reason = "; ".join(data["reasons"])
            return replace(state, state=State.HALTED, error={"code": "halted", "message": reason})
        case ev.SYSCALL_REFUSED:
            return _with(
                state,
                Call(data["call"], data["tool"], {}, "", Step.REFUSED, state.turn, error=data["error"]),
            )
        case ev.SYSCALL_DECIDED:
            return _decided(state, data)
        case ev.SYSCALL_FINISHED:
            return _finished(state, data)
        case ev.SYSCALL_FAILED:
            return _step(state, data["call"], Step.FAILED, error=data["error"])
        case ev.SYSCALL_UNKNOWN:
            message = "the runtime stopped while the tool was acting: whether it took effect is unknown"
            return _step(state, data["call"], Step.UNKNOWN, error={"code": "unknown", "message": message})
        case ev.APPROVAL_GRANTED:
            approval = {"by": event.actor, "reason": data["reason"]}
            return _running(_step(state, data["call"], Step.APPROVED, approval=approval))
        case ev.APPROVAL_DENIED:
            error = {"code": "rejected", "message": f"{event.actor} said no: {data['reason']}"}
            return _running(_step(state, data["call"], Step.REJECTED, error=error))
        case _:
            return state


_STEP_AFTER: Final = {"allow": Step.ALLOWED, "ask": Step.ASKED, "deny": Step.DENIED, "halt": Step.DENIED}


def _decided(state: SessionState, data: Mapping[str, Json]) -> SessionState:
    step = _STEP_AFTER[data["decision"]["effect"]]
    earlier = state.calls.get(data["call"])
    call = Call(
        call=data["call"],
        tool=data["tool"],
        args=data["args"],
        args_digest=data["args_digest"],
        step=step,
        turn=data["turn"],
        decision=data["decision"],
        approval=earlier.approval if earlier else None,
    )
    counted = step is Step.ALLOWED and call.tool != MODEL_CALL
    return replace(_with(state, call), turn=data["turn"], tool_calls=state.tool_calls + counted)


def _finished(state: SessionState, data: Mapping[str, Json]) -> SessionState:
    result = data["result"]
    state = _step(state, data["call"], Step.FINISHED, result=result)
    if data["tool"] == MODEL_CALL:
        usage = result["data"]
        return replace(
            state,
            input_tokens=state.input_tokens + usage["input_tokens"],
            output_tokens=state.output_tokens + usage["output_tokens"],
        )
    return replace(state, labels=state.labels | set(result.get("labels", ())))


def _step(
    state: SessionState,
    call: str,
    step: Step,
    *,
    result: Mapping[str, Json] | None = None,
    error: Mapping[str, Json] | None = None,
    approval: Mapping[str, Json] | None = None,
) -> SessionState:
    known = state.calls[call]
    changed = replace(known, step=step, result=result, error=error, approval=approval or known.approval)
    return _with(state, changed)


def _with(state: SessionState, call: Call) -> SessionState:
    return replace(state, calls={**state.calls, call.call: call})


def _running(state: SessionState) -> SessionState:
    return replace(state, state=State.RUNNING, waiting_for=None)
