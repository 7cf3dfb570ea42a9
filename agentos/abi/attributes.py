"""What a session event's header says of its payload: names, numbers and verdicts of the runtime's own, and nobody's words.

A header is disclosed when the payload is withheld, and stays when the payload is erased. So it carries who, what, under which
rules and what came of it; never a goal, an argument, a result, a reason, nor a digest of one (a short text can be guessed from
its digest). Attributes are text or whole numbers, as CloudEvents wants of extensions; several names stand in one text, joined by
commas.

    attributes_of("agentos.syscall.finished", {"call": "c1", "tool": "read", "duration_us": 93, "result": {...}})
    # {"call": "c1", "tool": "read", "durationus": 93, "outcome": "finished", "dataclasses": "pii"}

| attribute | of | meaning |
| --- | --- | --- |
| agent | all | the agent that the session runs |
| onbehalfof | all | who started the session |
| parent | all, if there is one | the session that this one was forked from or delegated by |
| traceparent | all | W3C trace context: one trace per session, one span per event |
| call, tool, tooleffect, turn | syscalls, approvals | which call; a refused one has no tool: its name is the model's own word |
| decision, rules, grants | decided, granted | the verdict, the rules that fired, the grants that it rests on |
| obligations | decided | the kinds of obligations that bind it |
| approvals, scope | decided, granted | whose yes it relies on; how far a yes goes |
| charged | decided | what rates and grants the call was charged to, as JSON: counters outlive what is erased |
| reserved | decided | what is held for the call until its outcome, and of whose budgets, as JSON: books outlive what is erased |
| class, waitedms | decided | as what an endpoint has let the call in, and after how many milliseconds |
| datadigest, engine | decided | the policy's data and the engine that decided |
| model | decided | the model that a model call goes to |
| decided, expires, needed, given | questions and answers | the event of the decision, until when (ms), people wanted and had |
| outcome, errorcode, durationus | outcomes | what came of the call, or of the session |
| errorcode, outcome | stopped | what the harness did; how the session had ended before |
| inputtokens, outputtokens | outcomes of model calls | what it used |
| spent | outcomes | what the call has used of its budgets, as JSON |
| dataclasses | created, outcomes | labels that it brings into the session |
| origin, trigger, firing | created | `delegated`, `trigger`, `standing` or `served`; which trigger began it, by which firing |
| children | decided | the sessions that a delegation begins |
| deferred | created | what has to hold before the session begins, as JSON: sessions by their ids, a time |
| freeze | frozen | the kill switch that holds it |
| epoch, revision | owned, revised | the take-over's number, the revision moved to |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json, NotCanonical, canonical
from agentos.abi.syscall import MODEL_CALL

Attributes = dict[str, str | int]

SESSION_LEVEL: Final = ("agent", "onbehalfof", "parent", "traceparent")
"""Attributes that every event of a session carries, told by its first one."""


def attributes_of(kind: str, data: Mapping[str, Json]) -> Attributes:
    """The attributes of an event of type `kind` with the payload `data`, the session's own (`SESSION_LEVEL`) left out.

    Pure, so that whoever is shown the payload can check the header against it. A payload of another shape than
    `agentos.abi.event` says gives the attributes that can be told; it raises nothing.
    """
    made = _MAKERS.get(kind)
    found: Attributes = {} if made is None else made(data)
    return {name: value for name, value in found.items() if value != ""}


def session_attributes(actor: str, data: Mapping[str, Json]) -> Attributes:
    """The session's own attributes, told by the actor and the payload of its first event; `traceparent` is each event's."""
    found = {"agent": data.get("agent"), "onbehalfof": actor, "parent": data.get("parent")}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def trace_of(session: str, event: str) -> str:
    """The `traceparent` of an event: version 00, the trace of the session, the span of the event, sampled.

    The trace id is taken from the session's id, the span id from the event's (32 hex digits), so every reader comes to the same.
    """
    return f"00-{session.encode('ascii').hex().rjust(32, '0')[-32:]}-{event[:16]}-01"


def names_of(attributes: Mapping[str, str | int], name: str) -> list[str]:
    """The names that an attribute joins, none where it is absent."""
    joined = attributes.get(name, "")
    return joined.split(",") if isinstance(joined, str) and joined else []


_ORIGINS: Final = (("delegated", "delegated"), ("trigger", "firing"), ("standing", "standing"), ("served", "served"))
"""Origins, and the fields of the payload that tell them."""


def _created(data: Mapping[str, Json]) -> Attributes:
    firing = _object(data, "firing")
    return {
        "dataclasses": _joined(data.get("labels")),
        "deferred": _deferred(data.get("deferred")),
        "origin": next((origin for origin, key in _ORIGINS if isinstance(data.get(key), dict)), ""),
        "trigger": _text(firing, "trigger"),
        "firing": _text(firing, "id"),
    }


def _owned(data: Mapping[str, Json]) -> Attributes:
    return _whole(data, epoch="epoch")


def _revised(data: Mapping[str, Json]) -> Attributes:
    return _whole(data, revision="to")


def _waiting(data: Mapping[str, Json]) -> Attributes:
    return {"call": _text(data, "call"), **_whole(data, expires="expires", needed="needed", given="given")}


def _ended(outcome: str) -> Callable[[Mapping[str, Json]], Attributes]:
    def made(data: Mapping[str, Json]) -> Attributes:
        return {"outcome": outcome, "rules": _joined(data.get("rules")), "errorcode": _code(data)}

    return made


def _frozen(data: Mapping[str, Json]) -> Attributes:
    return {"freeze": _text(data, "freeze")}


_MISDEEDS: Final = frozenset({"network", "home", "after-finish"})
_ENDS: Final = frozenset(kind.rpartition(".")[2] for kind in ev.TERMINAL)


def _stopped(data: Mapping[str, Json]) -> Attributes:
    # Elsewhere a reason is somebody's words.
    reason, after = _text(data, "reason"), _text(data, "after")
    return {"errorcode": reason if reason in _MISDEEDS else "", "outcome": after if after in _ENDS else ""}


def _signalled(data: Mapping[str, Json]) -> Attributes:
    return {"dataclasses": _joined(data.get("labels"))}


def _not_begun(data: Mapping[str, Json]) -> Attributes:
    return {"call": _text(data, "call"), "children": _text(data, "child"), "errorcode": _text(data, "code")}


def _refused(data: Mapping[str, Json]) -> Attributes:
    return {"call": _text(data, "call"), "outcome": "refused", "errorcode": _code(data)}


def _decided(data: Mapping[str, Json]) -> Attributes:
    decision, policy, args, admitted = (_object(data, name) for name in ("decision", "policy", "args", "admitted"))
    return {
        **_call(data),
        "tooleffect": _text(data, "effect"),
        **_whole(data, turn="turn"),
        "decision": _text(decision, "effect"),
        "rules": _joined(decision.get("rules")),
        "grants": _joined(decision.get("grants")),
        "obligations": _joined(_each(decision.get("obligations"), "kind")),
        "approvals": _joined(_each(data.get("approvals"), "by")),
        "charged": _charges(data.get("charged")),
        "children": _joined(data.get("children")),
        "reserved": _amounts(data.get("reserved")),
        "class": _text(admitted, "class"),
        **_whole(admitted, waitedms="waited_ms"),
        "datadigest": _text(policy, "data"),
        "engine": _text(policy, "engine"),
        "model": _text(args, "model") if data.get("tool") == MODEL_CALL else "",
    }


def _finished(data: Mapping[str, Json]) -> Attributes:
    result = _object(data, "result")
    found = {
        **_call(data),
        "outcome": "finished",
        **_whole(data, durationus="duration_us"),
        "spent": _amounts(data.get("spent")),
        "dataclasses": _joined(result.get("labels")),
    }
    if result.get("is_error") is True:
        found["errorcode"] = "tool"
    if data.get("tool") == MODEL_CALL:
        found |= _whole(_object(result, "data"), inputtokens="input_tokens", outputtokens="output_tokens")
    return found


def _failed(data: Mapping[str, Json]) -> Attributes:
    return {
        **_call(data),
        "outcome": "failed",
        "errorcode": _code(data),
        **_whole(data, durationus="duration_us"),
        "spent": _amounts(data.get("spent")),
        "dataclasses": _joined(data.get("labels")),
    }


def _unknown(data: Mapping[str, Json]) -> Attributes:
    spent = _amounts(data.get("spent"))
    return {**_call(data), "outcome": "unknown", "spent": spent, "dataclasses": _joined(data.get("labels"))}


def _reconciled(data: Mapping[str, Json]) -> Attributes:
    result = _object(data, "result")
    return {**_call(data), "outcome": _text(data, "outcome"), "dataclasses": _joined(result.get("labels"))}


def _policy(data: Mapping[str, Json]) -> Attributes:
    return {**_call(data), "engine": _text(data, "engine"), "rules": _text(data, "rule")}


def _granted(data: Mapping[str, Json]) -> Attributes:
    decision = _object(data, "decision")
    return {
        **_answered(data),
        "decision": "approved",
        "scope": _text(data, "scope"),
        "rules": _joined(decision.get("rules")),
        **_whole(data, expires="expires"),
    }


def _denied(data: Mapping[str, Json]) -> Attributes:
    return {**_answered(data), "decision": "denied"}


def _expired(data: Mapping[str, Json]) -> Attributes:
    return {**_answered(data), "decision": "expired"}


def _answered(data: Mapping[str, Json]) -> Attributes:
    return {"call": _text(data, "call"), **_whole(data, decided="decided")}


def _call(data: Mapping[str, Json]) -> Attributes:
    return {"call": _text(data, "call"), "tool": _text(data, "tool")}


def _code(data: Mapping[str, Json]) -> str:
    return _text(_object(data, "error"), "code")


def _text(data: Mapping[str, Json], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""


def _whole(data: Mapping[str, Json], **names: str) -> Attributes:
    """Attribute ← field, of those fields that are whole numbers."""
    return {name: value for name, key in names.items() if type(value := data.get(key)) is int}


def _object(data: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


_CHARGE: Final = ("kind", "name", "per", "limit", "seconds", "grant", "digest")


def _charges(value: Json) -> str:
    """What was charged, as canonical JSON: of each charge the names and numbers that a counter is found by."""
    items = value if isinstance(value, (list, tuple)) else ()
    kept = [{name: one[name] for name in _CHARGE if type(one.get(name)) in {str, int}} for one in items if isinstance(one, dict)]
    try:
        return canonical(kept).decode("utf-8") if kept else ""
    except NotCanonical:
        return ""


_RESERVED: Final = ("program", "day", "lineage", "tokens", "microdollars", "calls", "milliseconds", "bytes")


def _amounts(value: Json) -> str:
    """What was reserved or spent, as canonical JSON: amounts by unit, and of a reservation by whose accounts it is found."""
    body = value if isinstance(value, dict) else {}
    kept = {name: body[name] for name in _RESERVED if type(body.get(name)) in {str, int}}
    try:
        return canonical(kept).decode("utf-8") if kept else ""
    except NotCanonical:
        return ""


def _deferred(value: Json) -> str:
    """What a session waits for before it begins, as canonical JSON: when (ms), and the ids of sessions."""
    body = value if isinstance(value, dict) else {}
    kept: dict[str, Json] = {"not_before": body["not_before"]} if type(body.get("not_before")) is int else {}
    for name in ("after", "after_any"):
        told = body.get(name)
        if named := [one for one in told if isinstance(one, str)] if isinstance(told, (list, tuple)) else []:
            kept[name] = named
    try:
        return canonical(kept).decode("utf-8") if kept else ""
    except NotCanonical:
        return ""


def _each(items: Json, key: str) -> list[Json]:
    return [item.get(key) for item in items if isinstance(item, dict)] if isinstance(items, (list, tuple)) else []


def _joined(items: Json | Iterable[Json]) -> str:
    """The texts among `items`, each once, in order."""
    return ",".join(dict.fromkeys(item for item in items if isinstance(item, str))) if isinstance(items, (list, tuple)) else ""


_MAKERS: Final[dict[str, Callable[[Mapping[str, Json]], Attributes]]] = {
    ev.SESSION_CREATED: _created,
    ev.SESSION_OWNED: _owned,
    ev.SESSION_REVISED: _revised,
    ev.SESSION_WAITING: _waiting,
    ev.SESSION_FROZEN: _frozen,
    ev.SESSION_SIGNALLED: _signalled,
    ev.HARNESS_STOPPED: _stopped,
    ev.DELEGATION_REFUSED: _not_begun,
    ev.SESSION_FINISHED: _ended("finished"),
    ev.SESSION_FAILED: _ended("failed"),
    ev.SESSION_CANCELLED: _ended("cancelled"),
    ev.SESSION_HALTED: _ended("halted"),
    ev.SYSCALL_REFUSED: _refused,
    ev.SYSCALL_DECIDED: _decided,
    ev.SYSCALL_FINISHED: _finished,
    ev.SYSCALL_FAILED: _failed,
    ev.SYSCALL_UNKNOWN: _unknown,
    ev.SYSCALL_RECONCILED: _reconciled,
    ev.POLICY_FAILED: _policy,
    ev.POLICY_NOTIFIED: _policy,
    ev.APPROVAL_GRANTED: _granted,
    ev.APPROVAL_DENIED: _denied,
    ev.APPROVAL_EXPIRED: _expired,
}
