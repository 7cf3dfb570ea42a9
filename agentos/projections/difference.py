"""What differs between two sessions: the first event, the tool calls, the labels, the spend.

What two runs never have in common is left out: ids of sessions, calls and events, times, durations, places in the chain. Calls
are known by their order, and matched by tool and arguments; of a run and its repetition nothing is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.event import Event
from agentos.abi.syscall import MODEL_CALL, PSEUDO
from agentos.projections.context import outcome
from agentos.projections.session import OPEN, Call, SessionState, fold_all

_OWN: Final = frozenset(
    {"admitted", "decided", "duration_us", "epoch", "expires", "now", "overdrawn", "policy", "reserved", "spent"}
)
"""Fields of payloads that are of one run alone."""


def difference(one: Sequence[Event], other: Sequence[Event]) -> dict[str, Json]:
    """What differs: `{same, a, b, first, calls, labels}`.

    `a` and `b` are `{session, agent, goal, state, events, model_calls, tool_calls, tokens}`; `first` is null or `{seq, a, b}`
    with each event's `{type, data}` (null behind the end) as far as they are compared; `calls` are
    `{change: added|removed|changed, differs: [args|decision|outcome], a, b}` with each call's
    `{call, tool, args, decision, rules, outcome, told}`.
    """
    a, b = fold_all(one), fold_all(other)
    first = _first(_beside(one, other), _beside(other, one))
    calls = list(_calls(_tools(a), _tools(b)))
    labels = {"removed": sorted(a.labels - b.labels), "added": sorted(b.labels - a.labels)}
    return {
        "same": first is None and not calls and a.labels == b.labels,
        "a": _summary(a),
        "b": _summary(b),
        "first": first,
        "calls": calls,
        "labels": labels,
    }


def _summary(state: SessionState) -> dict[str, Json]:
    return {
        "session": state.id,
        "agent": state.agent,
        "goal": state.goal,
        "state": str(state.state),
        "events": state.seq,
        "model_calls": sum(1 for call in state.calls.values() if call.tool == MODEL_CALL),
        "tool_calls": state.tool_calls,
        "tokens": state.input_tokens + state.output_tokens,
    }


def _first(one: Sequence[Event], other: Sequence[Event]) -> dict[str, Json] | None:
    ours, theirs = _essences(one), _essences(other)
    for place in range(max(len(ours), len(theirs))):
        a = ours[place] if place < len(ours) else None
        b = theirs[place] if place < len(theirs) else None
        if a != b:
            return {"seq": place + 1, "a": a, "b": b}
    return None


def _beside(events: Sequence[Event], other: Sequence[Event]) -> Sequence[Event]:
    """The events of a session; of a fork of `other` (or of the same session as it) those that it was forked behind come first."""
    source = events[0].data.get("forked")
    if source is None or source["session"] != other[0].subject or source["seq"] > len(other):
        return events
    own = {key: events[0].data[key] for key in ("agent", "goal")}
    began = replace(other[0], data={**other[0].data, **own})
    return [began, *other[1 : source["seq"]], *events[1:]]


def _essences(events: Sequence[Event]) -> list[dict[str, Json]]:
    """Each event without what is of its run alone; calls by their order."""
    names: dict[str, str] = {}
    found: list[dict[str, Json]] = []
    for event in events:
        data = {key: value for key, value in event.data.items() if key not in _OWN}
        if data.get("tool") == MODEL_CALL and "args" in data:
            # What the model was shown is named by a digest of the chain, which no two sessions share.
            data = {**data, "args": {"model": data["args"].get("model")}, "args_digest": ""}
        if isinstance(data.get("call"), str) and data.get("tool") != MODEL_CALL:
            names.setdefault(data["call"], f"call-{len(names) + 1}")
        content = data["result"]["data"]["content"] if data.get("tool") == MODEL_CALL and "result" in data else ()
        for block in content:
            if block.get("type") == "tool_use":
                names.setdefault(block["id"], f"call-{len(names) + 1}")
        found.append({"type": event.type.removeprefix("agentos."), "data": _named(data, names)})
    return found


def _named(value: Json, names: dict[str, str]) -> Json:
    """`value` with every text that is the id of a call replaced by its place in the order."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, dict):
        return {key: _named(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return value


def _tools(state: SessionState) -> list[Call]:
    return [call for call in state.calls.values() if call.tool not in PSEUDO]


def _calls(ours: Sequence[Call], theirs: Sequence[Call]) -> Iterator[dict[str, Json]]:
    matcher = SequenceMatcher(None, [_key(call) for call in ours], [_key(call) for call in theirs], autojunk=False)
    for what, a, a_end, b, b_end in matcher.get_opcodes():
        left, right = list(ours[a:a_end]), list(theirs[b:b_end])
        if what == "equal":
            pairs = zip(left, right, strict=True)
        else:
            # Calls in the same place with the same tool are one call with other arguments.
            same = 0
            while same < min(len(left), len(right)) and left[same].tool == right[same].tool:
                same += 1
            pairs = zip(left[:same], right[:same], strict=True)
            left, right = left[same:], right[same:]
        for one, other in pairs:
            differs = _differs(one, other)
            if differs:
                yield {"change": "changed", "differs": differs, "a": _told(one), "b": _told(other)}
        if what != "equal":
            yield from ({"change": "removed", "differs": [], "a": _told(call), "b": None} for call in left)
            yield from ({"change": "added", "differs": [], "a": None, "b": _told(call)} for call in right)


def _key(call: Call) -> tuple[str, str]:
    return call.tool, call.proposed or call.args_digest


def _differs(one: Call, other: Call) -> list[str]:
    a, b = _told(one), _told(other)
    parts = {"args": ("args",), "decision": ("decision", "rules"), "outcome": ("outcome", "told")}
    return [name for name, keys in parts.items() if any(a[key] != b[key] for key in keys)]


def _told(call: Call) -> dict[str, Json]:
    return {
        "call": call.call,
        "tool": call.tool,
        "args": dict(call.args),
        "decision": call.decision["effect"] if call.decision is not None else None,
        "rules": list(call.decision["rules"]) if call.decision is not None else [],
        "outcome": str(call.step),
        "told": None if call.step in OPEN else outcome(call)[0],
    }
