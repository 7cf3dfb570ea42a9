"""One session, folded from its events: where it stands, what it has called, what it may still spend.

`fold(state, event) -> state` is pure: the kernel and every reader come to the same state from the same log. A step costs the same
however long the session is: the new state shares its calls with the one before (`projections.grown`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from functools import partial
from operator import attrgetter
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.event import Event
from agentos.abi.syscall import MODEL_CALL, PSEUDO
from agentos.projections.forked import inherited
from agentos.projections.session_state import BARRED, OPEN, Call, ObligedCall, SessionState, State, Step, is_lost

__all__ = ["BARRED", "OPEN", "Call", "ObligedCall", "SessionState", "State", "Step", "fold", "fold_all"]

Changes = dict[str, Json]
"""Fields of `SessionState` that an event changes, with their new values."""

_NONE: Final[Changes] = {}

_PLACES: Final = {field.name: place for place, field in enumerate(fields(SessionState))}
_SEQ: Final = _PLACES["seq"]
_values: Final = attrgetter(*_PLACES)


def fold_all(events: Iterable[Event]) -> SessionState:
    """Fold a session from its first event."""
    state = SessionState()
    for event in events:
        state = fold(state, event)
    return state


def fold(state: SessionState, event: Event) -> SessionState:
    """The state after `event`. An event of a type this version does not know changes nothing but `seq`."""
    changes = _changes(state, event)
    values = list(_values(state))
    for name, value in changes.items():
        values[_PLACES[name]] = value
    values[_SEQ] = event.seq
    # What `dataclasses.replace` does, in a third of the time: a resume folds a session from its first event.
    return SessionState(*values)


def _changes(state: SessionState, event: Event) -> Changes:
    data = event.data
    match event.type:
        case ev.SYSCALL_DECIDED:
            return _decided(state, event)
        case ev.SYSCALL_FINISHED:
            return _finished(state, data)
        case ev.SYSCALL_FAILED | ev.SYSCALL_UNKNOWN:
            return _failed(state, event)
        case ev.SYSCALL_REFUSED:
            refused = Call(data["call"], data["tool"], {}, "", Step.REFUSED, state.turn, error=data["error"])
            return _with(state, refused)
        case ev.SYSCALL_RECONCILED:
            return _reconciled(state, event)
        case ev.POLICY_NOTIFIED:
            return _notified(state, data)
        case ev.SESSION_CREATED:
            return _created(event)
        case ev.SESSION_REVISED:
            return {"config_revision": data["to"]}
        case ev.SESSION_OWNED:
            return {"epoch": data["epoch"]}
        case ev.SESSION_WAITING:
            return {"state": State.WAITING, "waiting_for": data["call"], "waiting": data}
        case ev.SESSION_PAUSED | ev.SESSION_RESUMED | ev.SESSION_BEGUN | ev.SESSION_SIGNALLED | ev.SESSION_FROZEN:
            return _from_outside(state, event)
        case ev.SESSION_FINISHED | ev.SESSION_FAILED | ev.SESSION_CANCELLED | ev.SESSION_HALTED:
            return _ended(event)
        case ev.APPROVAL_GRANTED | ev.APPROVAL_DENIED | ev.APPROVAL_EXPIRED:
            return _running(state) | _answered(state, event)
        case ev.HARNESS_STOPPED:
            return {"stopped": _stopped(event)}
        case _:
            return _NONE


def _answered(state: SessionState, event: Event) -> Changes:
    """A person's yes or no, or nobody's in time."""
    if event.type == ev.APPROVAL_GRANTED:
        return _approved(state, event)
    return _step(state, event.data["call"], Step.REJECTED, error=_no(event))


def _created(event: Event) -> Changes:
    """A session begins: with nothing behind it, or with what a session that it was forked from had behind it."""
    data = event.data
    begun: Changes = {
        "id": event.subject,
        "tenant": event.tenant,
        "agent": data["agent"],
        "goal": data["goal"],
        "inputs": tuple(data.get("inputs", ())),
        "actor": event.actor,
        "config_revision": event.config_revision,
        "labels": frozenset(data.get("labels", ())),
        "priority": data.get("priority", ""),
        "deadline_ms": data.get("deadline_ms"),
        "deferred": data.get("deferred"),
        "delegated": data.get("delegated"),
        "firing": data.get("firing"),
        "standing": data.get("standing"),
        "served": data.get("served"),
        "state": State.DEFERRED if "deferred" in data else State.RUNNING,
    }
    if "forked" not in data:
        return begun
    before = inherited(data["forked"])
    return before | begun | {"labels": before["labels"] | begun["labels"], "delegated": before["delegated"]}


def _signal(event: Event) -> dict[str, Json]:
    data = event.data
    sent = {"id": data["id"]} if "id" in data else {}
    return {"name": data["name"], "data": data.get("data", ""), "by": event.actor, "at": event.time_ms, "seq": event.seq, **sent}


def _from_outside(state: SessionState, event: Event) -> Changes:
    """Kept from going on by a person, or no longer; told something; or no longer deferred. Who waits goes on waiting."""
    if event.type == ev.SESSION_SIGNALLED:
        return {"signals": (*state.signals, _signal(event)), "labels": state.labels | set(event.data.get("labels", ()))}
    if event.type == ev.SESSION_FROZEN:
        return {"frozen": (*state.frozen, event.data["freeze"]), "held": state.held | set(event.data.get("held", ()))}
    if event.type == ev.SESSION_BEGUN:
        return {"deferred": None, "state": State.RUNNING if state.state is State.DEFERRED else state.state}
    if event.type == ev.SESSION_RESUMED:
        goes_on = State.RUNNING if state.deferred is None else State.DEFERRED
        return {"paused": None, "state": goes_on if state.state is State.PAUSED else state.state}
    paused = {"by": event.actor, "reason": event.data["reason"], "at": event.time_ms}
    return {"paused": paused, "state": State.PAUSED if state.state in {State.RUNNING, State.DEFERRED} else state.state}


def _ended(event: Event) -> Changes:
    data = event.data
    match event.type:
        case ev.SESSION_FINISHED:
            return {"state": State.FINISHED, "result": data["result"]}
        case ev.SESSION_FAILED:
            return {"state": State.FAILED, "error": data["error"]}
        case ev.SESSION_CANCELLED:
            return {"state": State.CANCELLED, "error": {"code": "cancelled", "message": data["reason"]}}
        case _:
            return {"state": State.HALTED, "error": {"code": "halted", "message": "; ".join(data["reasons"])}}


def _stopped(event: Event) -> dict[str, Json]:
    """How the session's harness was stopped. That says nothing of where the session stands: its end is an event of its own."""
    data = event.data
    told = {"reason": data["reason"], "message": data["message"], "at": event.time_ms, "seq": event.seq}
    return told | {name: data[name] for name in ("code", "after") if name in data}


_STEP_AFTER: Final = {"allow": Step.ALLOWED, "ask": Step.ASKED, "deny": Step.DENIED, "halt": Step.DENIED}


def _decided(state: SessionState, event: Event) -> Changes:
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
    changes = _with(state, call)
    changes["turn"] = data["turn"]
    if call.call in state.held:
        changes["held"] = state.held - {call.call}
    labels = {label for one in bound if one["kind"] == "label" for label in one["labels"]}
    if not labels <= state.labels:
        changes["labels"] = state.labels | labels
    if step is Step.ALLOWED:
        if earlier is not None and earlier.step is Step.ALLOWED:
            changes["since"] = {earlier.call: earlier.decided_ms, **state.since}
        changes["tool_calls"] = state.tool_calls + (call.tool not in PSEUDO)
        changes["approvals"] = _spent(state.approvals, data)
        if "children" in data:
            changes["delegations"] = {**state.delegations, call.call: list(data["children"])}
    return changes


def _notified(state: SessionState, data: Mapping[str, Json]) -> Changes:
    call, rule = state.calls[data["call"]], data["rule"]
    if not isinstance(call, ObligedCall):
        return _NONE
    return _with(state, replace(call, notified={**call.notified, rule: call.notified.get(rule, 0) + 1}))


def _approved(state: SessionState, event: Event) -> Changes:
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
    changes = _with(state, replace(call, step=Step.APPROVED, approvals=(*call.approvals, approval)))
    return changes | {"approvals": (*state.approvals, approval)} if data["scope"] == "session" else changes


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


def _finished(state: SessionState, data: Mapping[str, Json]) -> Changes:
    result = data["result"]
    changes = _step(state, data["call"], Step.FINISHED, result=result)
    if data["tool"] == MODEL_CALL:
        usage = result["data"]
        changes["input_tokens"] = state.input_tokens + usage["input_tokens"]
        changes["output_tokens"] = state.output_tokens + usage["output_tokens"]
        return changes
    if "consumed" in data:
        changes["signals"] = _consumed(state.signals, data["consumed"], data["call"])
    # What a declassification took off is gone before this call's own labels come.
    changes["labels"] = (state.labels - set(data.get("declassified", ()))) | set(result.get("labels", ()))
    return changes


def _consumed(signals: tuple[Mapping[str, Json], ...], number: int, call: str) -> tuple[Mapping[str, Json], ...]:
    """`signals` once `call` has got the one with this number (from 1) for which it had waited."""
    return tuple({**one, "consumed": call} if at == number else one for at, one in enumerate(signals, 1))


def _failed(state: SessionState, event: Event) -> Changes:
    """No result came of it. What was said instead is the tool's word too, and carries the labels of one."""
    data = event.data
    if event.type == ev.SYSCALL_FAILED:
        changes = _step(state, data["call"], Step.FAILED, error=data["error"])
    else:
        message = "the runtime stopped while the tool was acting: whether it took effect is unknown"
        changes = _step(state, data["call"], Step.UNKNOWN, error={"code": "unknown", "message": message})
    changes["labels"] = state.labels | set(data.get("labels", ()))
    return changes


def _reconciled(state: SessionState, event: Event) -> Changes:
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
) -> Changes:
    return _with(state, replace(state.calls[call], step=step, result=result, error=error))


def _with(state: SessionState, call: Call) -> Changes:
    earlier = state.calls.get(call.call)
    model, barred = int(call.tool == MODEL_CALL), int(call.step in BARRED)
    if earlier is not None:
        model, barred = model - (earlier.tool == MODEL_CALL), barred - (earlier.step in BARRED)
    changes: Changes = {"calls": state.calls.put(call.call, call)}
    if model:
        changes["model_calls"] = state.model_calls + model
    if barred:
        changes["barred"] = state.barred + barred
    if call.call in state.since and call.step not in OPEN:
        changes["since"] = {name: at for name, at in state.since.items() if name != call.call}
    if is_lost(call) != (call.call in state.lost):
        changes["lost"] = state.lost ^ {call.call}
    return changes


def _running(state: SessionState) -> Changes:
    return {"state": State.RUNNING if state.paused is None else State.PAUSED, "waiting_for": None, "waiting": None}
