"""History as a backtest reads it: events of the log with the bulk left out, gathered by session, and every decision in them.

The runtime packs each event into a short row (what results, files and models said is left out: no question to policy holds it).
Whoever asked gathers the rows of a session until it is over, and `recall` makes each question again, byte for byte. A question
that cannot be made again, because something was erased or is missing, is `Undecidable` with the reason; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.event import Event, parse_rfc3339, rfc3339
from agentos.projections.question import Recorded, recorded

OWN_RULES: Final = ("policy.failed", "kernel.")
"""Rules of the runtime itself: policy gave no decision, or was not asked."""

ERASED: Final = "the payload was erased"
AFTER_ERASED: Final = "an earlier event of its session was erased or cannot be read"

_NEEDED: Final = frozenset({"args", "args_digest", "agent", "now"})
"""What the question holds of a `decided` event and erasing may take away."""


@dataclass(frozen=True, slots=True)
class Undecidable:
    """A recorded decision that cannot be made again, and why. `decision` is its id: `s-…#41` or `revision/12`."""

    decision: str
    session: str
    call: str
    time_ms: int
    reason: str

    def to_dict(self) -> dict[str, Json]:
        """JSON form."""
        return {
            "id": self.decision,
            "session": self.session,
            "call": self.call,
            "time": rfc3339(self.time_ms),
            "reason": self.reason,
        }


def decision_id(session: str, seq: int) -> str:
    """`s-…#41`: how a recorded decision is called, by its session and the number of its event."""
    return f"{session}#{seq}"


def pack(body: Mapping[str, Json]) -> list[Json]:
    """A stored event as a row `[type, subject, seq, time, actor, revision, policy digest or null, data]`, bulk left out.

    An event whose payload was erased has null for its data, and behind that the call and the tool that its header names.
    """
    kind, data = body["type"], body.get("data")
    row = [kind, body["subject"], body["seq"], body["time"], body["actor"], body["configrevision"], body.get("policydigest")]
    if data is None:
        return [*row, None, {name: body[name] for name in ("call", "tool") if name in body}]
    drop = _BULK.get(kind)
    return [*row, data if drop is None else drop(data)]


def unpack(row: Sequence[Json], tenant: str) -> Event:
    """The event of a row, without its id and its place in the chain."""
    kind, subject, seq, time, actor, revision, digest, data, *more = row
    told, withheld = (more[0] if more else {}), data is None
    return Event("", kind, tenant, subject, seq, "", parse_rfc3339(time), actor, revision, digest, data or {}, told, withheld)


def _without(*keys: str) -> Callable[[Json], Json]:
    """Texts that no question holds, emptied; what is absent stays absent."""
    return lambda data: {key: "" if key in keys else value for key, value in data.items()}


def _finished(data: Json) -> Json:
    """An outcome of which labels and tokens are left."""
    result = data.get("result")
    if not isinstance(result, dict):
        return data
    kept: dict[str, Json] = {key: value for key, value in result.items() if key not in {"content", "data"}}
    inner = result.get("data")
    if isinstance(inner, dict):
        kept["data"] = {key: inner[key] for key in ("input_tokens", "output_tokens") if key in inner}
    return {**data, "result": kept}


_BULK: Final[Mapping[str, Callable[[Json], Json]]] = {
    ev.SESSION_CREATED: _without("goal", "inputs"),
    ev.SESSION_FINISHED: _without("result"),
    ev.SYSCALL_REFUSED: _without("args_text"),
    ev.SYSCALL_FINISHED: _finished,
}


def recall(events: Sequence[Event]) -> Iterator[Recorded | Undecidable]:
    """Every decision of one session, from all of its events in order."""
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        yield from (_undecidable(event, "events of its session are missing") for event in events if _decided(event))
        return
    whole = next((at for at, event in enumerate(events) if event.withheld), len(events))
    yield from _recalled(events[:whole])
    for event in events[whole:]:
        if _decided(event):
            yield _undecidable(event, ERASED if event.withheld else AFTER_ERASED)


def _recalled(events: Sequence[Event]) -> Iterator[Recorded | Undecidable]:
    """Every decision among events of which each has its payload, or what is left of one."""
    erased = {event.seq for event in events if _decided(event) and _NEEDED - event.data.keys()}
    seen = 0
    try:
        for item in recorded(_filled(event) if event.seq in erased else event for event in events):
            seen = item.seq
            yield _judged(item, events[item.seq - 1], erased)
    except (KeyError, TypeError, ValueError, AttributeError):
        yield from (_undecidable(event, AFTER_ERASED) for event in events if _decided(event) and event.seq > seen)


def _judged(item: Recorded, event: Event, erased: Iterable[int]) -> Recorded | Undecidable:
    if item.seq in erased:
        gone = ", ".join(sorted(_NEEDED - event.data.keys()))
        return _undecidable(event, f"erased: {gone}")
    rules = item.policy_decision["rules"]
    own = [rule for rule in rules if rule.startswith(OWN_RULES)]
    if own:
        return _undecidable(event, f"the runtime decided it, policy gave no decision ({own[0]})")
    return item


def _decided(event: Event) -> bool:
    return event.type == ev.SYSCALL_DECIDED


def _filled(event: Event) -> Event:
    """An erased decision with holes filled, so that what comes after it in its session can still be told."""
    return replace(event, data={"args": {}, "args_digest": "", "agent": {}, "now": 0, **event.data})


def _undecidable(event: Event, reason: str) -> Undecidable:
    call = str((event.attributes if event.withheld else event.data).get("call", ""))
    return Undecidable(decision_id(event.subject, event.seq), event.subject, call, event.time_ms, reason)


class Gathering:
    """Events by session until each is over. Memory holds the sessions that are under way, not the history.

    A session whose beginning is not among the events is put aside: `began_before` names it.
    """

    def __init__(self) -> None:
        self._open: dict[str, list[Event]] = {}
        self.began_before: dict[str, None] = {}

    def take(self, event: Event) -> list[Event] | None:
        """Add an event; all of its session's events once that was the last."""
        session = event.subject
        if session in self.began_before:
            return None
        if event.seq == 1:
            self._open[session] = []
        events = self._open.get(session)
        if events is None and event.type == ev.HARNESS_STOPPED:
            return None  # behind the end, which it does not change
        if events is None:
            self.began_before[session] = None
            return None
        events.append(event)
        return self._open.pop(session) if event.type in ev.TERMINAL else None

    def rest(self) -> Iterator[list[Event]]:
        """The sessions that are not over."""
        while self._open:
            yield self._open.pop(next(iter(self._open)))
