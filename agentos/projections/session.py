"""One session, folded from its events: where it stands, what it has called, what it may still spend.

`fold(state, event) -> state` is pure: the kernel and every reader come to the same state from the same log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.event import Event
from agentos.abi.syscall import MODEL_CALL


class State(StrEnum):
    """Where a session stands. The last four are final."""

    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
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
    proposed: str = ""
    """Digest of the arguments as proposed; obligations may have rewritten them into those of `args_digest`."""
    effect: str = "external"
    """What the tool does to the world, as policy was told."""
    decided: int = 0
    """`seq` of the last decision about the call."""
    decided_ms: int = 0
    """When it was made."""
    policy_digest: str | None = None
    """The policy that made it."""
    approvals: tuple[Mapping[str, Json], ...] = ()
    """Yeses to this very call, in the shape of `SessionState.approvals`."""


@dataclass(frozen=True, slots=True)
class ObligedCall(Call):
    """A call whose last decision obliges to something: also what the runtime needs to go on meeting that.

    Both are of use until the call is done, and stand in no state document.
    """

    carried: tuple[Mapping[str, Json], ...] = ()
    """Obligations of earlier decisions, about the arguments before they were rewritten, that still bind."""
    notified: Mapping[str, int] = field(default_factory=dict)
    """How many notices of the last decision are recorded, by the rule that wants them."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """The whole session. `seq` is the number of events folded; `calls` keeps the order of first appearance.

    `config_revision` is the one its turns run under; what others record of it carries the revision in force then.

    `approvals` are yeses that cover later calls of the session too: `{call, tool, args_digest, by, reason, at, expires,
    policy_digest, scope, rules, max_uses, used}`; times are milliseconds since the epoch, `call` is the one that was asked for.
    """

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
    approvals: tuple[Mapping[str, Json], ...] = ()
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    waiting_for: str | None = None
    waiting: Mapping[str, Json] | None = None
    """The question that it waits with: `{call, args_digest, expires, needed, given}`."""
    paused: Mapping[str, Json] | None = None
    """`{by, reason, at}` while a person keeps it from going on; it may wait for an answer at the same time."""
    result: str | None = None
    error: Mapping[str, Json] | None = None

    @property
    def over(self) -> bool:
        """Whether the session has ended for good."""
        return self.state not in {State.RUNNING, State.WAITING, State.PAUSED}


def fold_all(events: Iterable[Event]) -> SessionState:
    """Fold a session from its first event."""
    state = SessionState()
    for event in events:
        state = fold(state, event)
    return state


def fold(state: SessionState, event: Event) -> SessionState:
    """The state after `event`. An event of a type this version does not know changes nothing but `seq`."""
    state = replace(state, seq=event.seq)
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
                config_revision=event.config_revision,
                labels=frozenset(data.get("labels", ())),
            )
        case ev.SESSION_REVISED:
            return replace(state, config_revision=data["to"])
        case ev.SESSION_OWNED:
            return replace(state, epoch=data["epoch"])
        case ev.SESSION_WAITING:
            return replace(state, state=State.WAITING, waiting_for=data["call"], waiting=data)
        case ev.SESSION_PAUSED | ev.SESSION_RESUMED:
            return _paused(state, event)
        case ev.SESSION_FINISHED | ev.SESSION_FAILED | ev.SESSION_CANCELLED | ev.SESSION_HALTED:
            return _ended(state, event)
        case ev.SYSCALL_REFUSED:
            return _with(
                state,
                Call(data["call"], data["tool"], {}, "", Step.REFUSED, state.turn, error=data["error"]),
            )
        case ev.SYSCALL_DECIDED:
            return _decided(state, event)
        case ev.SYSCALL_FINISHED:
            return _finished(state, data)
        case ev.SYSCALL_FAILED | ev.SYSCALL_UNKNOWN:
            return _failed(state, event)
        case ev.SYSCALL_RECONCILED:
            return _reconciled(state, event)
        case ev.POLICY_NOTIFIED:
            return _notified(state, data)
        case ev.APPROVAL_GRANTED:
            return _running(_approved(state, event))
        case ev.APPROVAL_DENIED | ev.APPROVAL_EXPIRED:
            return _running(_step(state, data["call"], Step.REJECTED, error=_no(event)))
        case _:
            return state


def _paused(state: SessionState, event: Event) -> SessionState:
    """Kept from going on by a person, or no longer. A session that waits goes on waiting."""
    if event.type == ev.SESSION_RESUMED:
        return replace(state, paused=None, state=State.RUNNING if state.state is State.PAUSED else state.state)
    paused = {"by": event.actor, "reason": event.data["reason"], "at": event.time_ms}
    return replace(state, paused=paused, state=State.PAUSED if state.state is State.RUNNING else state.state)


def _ended(state: SessionState, event: Event) -> SessionState:
    data = event.data
    match event.type:
        case ev.SESSION_FINISHED:
            return replace(state, state=State.FINISHED, result=data["result"])
        case ev.SESSION_FAILED:
            return replace(state, state=State.FAILED, error=data["error"])
        case ev.SESSION_CANCELLED:
            return replace(state, state=State.CANCELLED, error={"code": "cancelled", "message": data["reason"]})
        case _:
            return replace(state, state=State.HALTED, error={"code": "halted", "message": "; ".join(data["reasons"])})


_STEP_AFTER: Final = {"allow": Step.ALLOWED, "ask": Step.ASKED, "deny": Step.DENIED, "halt": Step.DENIED}


def _decided(state: SessionState, event: Event) -> SessionState:
    data = event.data
    step = _STEP_AFTER[data["decision"]["effect"]]
    earlier = state.calls.get(data["call"])
    carried = tuple(data.get("carried", ()))
    bound = (*data["decision"].get("obligations", ()), *carried)
    call = (partial(ObligedCall, carried=carried) if bound else Call)(
        call=data["call"],
        tool=data["tool"],
        args=data["args"],
        args_digest=data["args_digest"],
        step=step,
        turn=data["turn"],
        decision=data["decision"],
        proposed=data["proposed"] if "proposed" in data else data["args_digest"],
        effect=data["effect"],
        decided=event.seq,
        decided_ms=event.time_ms,
        policy_digest=event.policy_digest,
        approvals=earlier.approvals if earlier else (),
    )
    labels = {label for one in bound if one["kind"] == "label" for label in one["labels"]}
    counted = step is Step.ALLOWED and call.tool != MODEL_CALL
    return replace(
        _with(state, call),
        turn=data["turn"],
        tool_calls=state.tool_calls + counted,
        labels=state.labels | labels,
        approvals=_spent(state.approvals, data) if step is Step.ALLOWED else state.approvals,
    )


def _notified(state: SessionState, data: Mapping[str, Json]) -> SessionState:
    call, rule = state.calls[data["call"]], data["rule"]
    if not isinstance(call, ObligedCall):
        return state
    return _with(state, replace(call, notified={**call.notified, rule: call.notified.get(rule, 0) + 1}))


def _approved(state: SessionState, event: Event) -> SessionState:
    """A yes: to this call alone, or (`scope: session`) to later ones like it too."""
    data = event.data
    call = state.calls[data["call"]]
    approval: dict[str, Json] = {
        "call": call.call,
        "tool": call.tool,
        "args_digest": call.args_digest,
        "by": event.actor,
        "reason": data["reason"],
        "at": event.time_ms,
        "expires": data["expires"],
        "policy_digest": data["policy_digest"],
        "scope": data["scope"],
        "rules": list(call.decision["rules"]) if call.decision is not None else [],
        "max_uses": data.get("max_uses", 1),
        "used": 0,
    }
    state = _with(state, replace(call, step=Step.APPROVED, approvals=(*call.approvals, approval)))
    return replace(state, approvals=(*state.approvals, approval)) if data["scope"] == "session" else state


def _no(event: Event) -> dict[str, Json]:
    if event.type == ev.APPROVAL_EXPIRED:
        return {"code": "expired", "message": "nobody approved it in time"}
    return {"code": "rejected", "message": f"{event.actor} said no: {event.data['reason']}"}


def _spent(approvals: tuple[Mapping[str, Json], ...], data: Mapping[str, Json]) -> tuple[Mapping[str, Json], ...]:
    """`approvals` once a call has gone out on some of them (`data.approvals` names those)."""
    relied = {(one["call"], one["by"]) for one in data.get("approvals", ())}
    if not relied:
        return approvals
    return tuple({**one, "used": one["used"] + 1} if (one["call"], one["by"]) in relied else one for one in approvals)


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
    # What a declassification took off is gone before this call's own labels come.
    return replace(state, labels=(state.labels - set(data.get("declassified", ()))) | set(result.get("labels", ())))


def _failed(state: SessionState, event: Event) -> SessionState:
    """No result came of it. What was said instead is the tool's word too, and carries the labels of one."""
    data = event.data
    state = replace(state, labels=state.labels | set(data.get("labels", ())))
    if event.type == ev.SYSCALL_FAILED:
        return _step(state, data["call"], Step.FAILED, error=data["error"])
    message = "the runtime stopped while the tool was acting: whether it took effect is unknown"
    return _step(state, data["call"], Step.UNKNOWN, error={"code": "unknown", "message": message})


def _reconciled(state: SessionState, event: Event) -> SessionState:
    """What a person found out about a call of which nobody knew the outcome; the model sees that instead."""
    data = event.data
    if data["outcome"] == "finished":
        return _finished(state, data)
    word = "it failed" if data["outcome"] == "failed" else "it did not take effect"
    error = {"code": data["outcome"], "message": f"{word}, as {event.actor} found out: {data['reason']}"}
    return _step(state, data["call"], Step.FAILED, error=error)


def _step(
    state: SessionState,
    call: str,
    step: Step,
    *,
    result: Mapping[str, Json] | None = None,
    error: Mapping[str, Json] | None = None,
) -> SessionState:
    return _with(state, replace(state.calls[call], step=step, result=result, error=error))


def _with(state: SessionState, call: Call) -> SessionState:
    return replace(state, calls={**state.calls, call.call: call})


def _running(state: SessionState) -> SessionState:
    goes_on = State.RUNNING if state.paused is None else State.PAUSED
    return replace(state, state=goes_on, waiting_for=None, waiting=None)
