"""What a fork inherits: the state of another session as it stood after one of its events, without what was that session's alone.

`session.created` of a fork carries `forked`: `{session, seq, head, state, workspace, files, left, carried?, reason?}`. `state` is
the canonical state document of the other session after event `seq`, exactly: whoever has both logs can check it. What of it does
not go over is dropped here, in the fold, so that nothing that a log says can make it count:

- Yeses of people, to a call or for the session, were given to that session. Calls that were asked about or approved, and not
  made, are forgotten: the model's reply still proposes them, and they are decided anew.
- A call that policy halted the session over is forgotten in the same way: policy decides again whether it halts.
- A call that was allowed and had no outcome yet may have acted, or may act still. It is never made again: its outcome is unknown.
- That it waited, was paused, or is over says nothing of the fork.

What was spent (calls, tokens, turns) and the labels stay, and for whom it acts, so that a fork is no way around a budget, a label
or the grants of those who delegated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.decision import Verdict
from agentos.projections.grown import Grown
from agentos.projections.session_state import Call, ObligedCall, Step, counts
from agentos.projections.state_document import read_state

LOST: Final = "the session was forked while the call was under way: whether it took effect is unknown"

_CALL: Final = tuple(field.name for field in fields(Call))


def inherited(forked: Mapping[str, Json]) -> dict[str, Json]:
    """The fields of the fork's state that come from `forked`. Raises KeyError, TypeError or ValueError for another shape."""
    before, carried = read_state(forked["state"]), forked.get("carried", {})
    kept = {call.call: _kept(call, carried.get(call.call, ())) for call in before.calls.values() if not _forgotten(call)}
    return {
        "calls": Grown(kept),
        **counts(kept.values()),
        "labels": before.labels,
        "turn": before.turn,
        "delegated": before.delegated,
        "signals": before.signals,
        "tool_calls": before.tool_calls,
        "input_tokens": before.input_tokens,
        "output_tokens": before.output_tokens,
    }


def origin(forked: Mapping[str, Json]) -> dict[str, Json]:
    """Where a fork comes from, for people: `forked` with the number of files for the files, without the state."""
    told = {key: forked[key] for key in ("session", "seq", "head", "workspace", "left")} | {"files": len(forked["files"])}
    return told | ({"reason": forked["reason"]} if "reason" in forked else {})


def carried_over(calls: Iterable[Call]) -> dict[str, list[Json]]:
    """What `forked.carried` has to say: obligations, by the call, that bind it and stand in no state document."""
    return {
        call.call: list(call.carried) for call in calls if _unsettled(call) and isinstance(call, ObligedCall) and call.carried
    }


def _forgotten(call: Call) -> bool:
    halted = call.decision is not None and call.decision["effect"] == Verdict.HALT
    return halted or call.step in {Step.ASKED, Step.APPROVED}


def _unsettled(call: Call) -> bool:
    return call.step in {Step.ALLOWED, Step.UNKNOWN}


def _kept(call: Call, carried: Iterable[Mapping[str, Json]]) -> Call:
    """A call as the fork knows it. Of one whose outcome a person may still tell, the obligations bind; its notices are given."""
    if not _unsettled(call):
        return call
    error = {"code": "unknown", "message": LOST} if call.step is Step.ALLOWED else call.error
    own = {name: getattr(call, name) for name in _CALL} | {"step": Step.UNKNOWN, "error": error}
    bound = (*(call.decision or {}).get("obligations", ()), *carried)
    if not bound:
        return Call(**own)
    notified = Counter(str(one["rule"]) for one in bound if one["kind"] == "notify")
    return ObligedCall(**own, carried=tuple(carried), notified=dict(notified))
