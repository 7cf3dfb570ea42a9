"""What people wrote and models said, event by event: the pure half of the text model.

Each event that has words becomes one `Text`: `body` is what a row of the index is completed with, bounded; `words` is what is
searched. It is told from the event alone. What the words come to (which arguments a call has in the end, whose yes it rests on)
is worked out by `agentos.projections.worded` when a row is read, for the index knows which events count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.syscall import MODEL_CALL
from agentos.projections.cells import bounded, clip, error, text, texts
from agentos.projections.decoded import Header

MAX_WORDS: Final = 8192
"""Most characters of one event that are searched; the log has it whole."""

Data = Mapping[str, Json]
Told = tuple[str, dict[str, Json], Iterator[str]]
"""What kind of text it is, the body, the pieces to search."""


@dataclass(frozen=True, slots=True)
class Text:
    """The words of one event."""

    session: str
    seq: int
    time_ms: int
    call: str | None
    tool: str | None
    """The name that the model gave to the tool of a refused call; None for all else."""
    kind: str
    """goal, call, refused, result, said, failed, answer, note, end."""
    body: dict[str, Json]
    words: str


def text_of(event: Header, data: Data) -> Text | None:
    """The words of an event with that payload; None for one without any. Raises KeyError, TypeError or ValueError."""
    teller = _TELLERS.get(event.type)
    if teller is None:
        return None
    kind, body, pieces = teller(event, data)
    call, tool = data.get("call"), data.get("tool") if kind == "refused" else None
    named = call if isinstance(call, str) else None, tool if isinstance(tool, str) else None
    return Text(event.subject, event.seq, event.time_ms, *named, kind, body, _joined(pieces))


def _goal(event: Header, data: Data) -> Told:
    goal = text(data, "goal")
    return "goal", {"goal": clip(goal)}, iter((goal,))


def _decided(event: Header, data: Data) -> Told:
    decision, args = data["decision"], data["args"]
    reasons = texts(decision["reasons"])
    body = {
        "args": bounded(args),
        "args_digest": text(data, "args_digest"),
        "reasons": [clip(reason) for reason in reasons],
        "observed": decision.get("observed", []),
        "approvals": [_answer(one, granted=True) for one in data.get("approvals", ())],
        "obligations": decision.get("obligations", []),
        "proposed_digest": data.get("proposed", data["args_digest"]),
        "rewritten": data.get("rewritten"),
    }
    return "call", body, _pieces([args, reasons])


def _refused(event: Header, data: Data) -> Told:
    why = error(data["error"])
    body = {"tool": text(data, "tool"), "args": bounded(data.get("args_text")), "error": why}
    return "refused", body, _pieces([data["tool"], data.get("args_text"), why])


def _finished(event: Header, data: Data) -> Told:
    result = data["result"]
    content = text(result, "content")
    body = {"error": clip(content) if result["is_error"] else None}
    if data["tool"] != MODEL_CALL:
        return "result", body, iter((content,))
    blocks = result["data"]["content"]
    if not all(isinstance(block, dict) for block in blocks):
        raise TypeError("a block that is no object")
    said = [block["text"] for block in blocks if block.get("type") == "text"]
    return "said", body, _pieces([content, said])


def _failed(event: Header, data: Data) -> Told:
    why = error(data["error"])
    return "failed", {"error": why}, iter((why,))


def _reconciled(event: Header, data: Data) -> Told:
    outcome, reason = text(data, "outcome"), text(data, "reason")
    why = None if outcome == "finished" else clip(f"{outcome}: {event.actor}: {reason}")
    return "answer", {"error": why}, _pieces([reason, data.get("result")])


def _answered(event: Header, data: Data) -> Told:
    answer = _answer({**data, "by": event.actor}, granted=event.type == ev.APPROVAL_GRANTED)
    return "answer", {"answer": answer}, iter((answer["reason"],))


def _expired(event: Header, data: Data) -> Told:
    why = "expired: nobody approved it in time"
    return "note", {"error": why}, iter(())


def _note(event: Header, data: Data) -> Told:
    return "note", {}, iter((text(data, "reason"),))


def _result(event: Header, data: Data) -> Told:
    result = text(data, "result")
    return "end", {"result": clip(result), "error": None}, iter((result,))


def _ended(event: Header, data: Data) -> Told:
    why = error(data["error"])
    return "end", {"result": None, "error": why}, iter((why,))


def _cancelled(event: Header, data: Data) -> Told:
    reason = text(data, "reason")
    return "end", {"result": None, "error": clip(reason)}, iter((reason,))


def _halted(event: Header, data: Data) -> Told:
    why = "; ".join(texts(data["reasons"]))
    return "end", {"result": None, "error": clip(why)}, iter((why,))


def _answer(body: Json, *, granted: bool) -> dict[str, Json]:
    """One answer as the rows show it, from an answer's event or a decision's `approvals`."""
    answer: dict[str, Json] = {"call": text(body, "call"), "by": text(body, "by"), "reason": clip(text(body, "reason"))}
    return answer | {"granted": granted, "scope": text(body, "scope") if granted else None}


def _pieces(value: Json) -> Iterator[str]:
    """Every text in `value`, each argument behind its name."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, (str, int)):
                yield f"{key}: {item}"
            else:
                yield key
                yield from _pieces(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _pieces(item)
    elif type(value) in {int, float}:
        yield str(value)


def _joined(pieces: Iterator[str]) -> str:
    """The pieces, one a line, up to MAX_WORDS characters, without control characters: those mark the hits of a search."""
    kept, room = [], MAX_WORDS
    for piece in pieces:
        if room <= 0:
            break
        kept.append(piece[:room])
        room -= len(piece) + 1
    return "\n".join(kept).translate(_CONTROLS)


_CONTROLS: Final = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), " ")

_TELLERS: Final[dict[str, Callable[[Header, Data], Told]]] = {
    ev.SESSION_CREATED: _goal,
    ev.SESSION_PAUSED: _note,
    ev.SESSION_RESUMED: _note,
    ev.SESSION_FINISHED: _result,
    ev.SESSION_FAILED: _ended,
    ev.SESSION_CANCELLED: _cancelled,
    ev.SESSION_HALTED: _halted,
    ev.SYSCALL_DECIDED: _decided,
    ev.SYSCALL_REFUSED: _refused,
    ev.SYSCALL_FINISHED: _finished,
    ev.SYSCALL_FAILED: _failed,
    ev.SYSCALL_RECONCILED: _reconciled,
    ev.APPROVAL_GRANTED: _answered,
    ev.APPROVAL_DENIED: _answered,
    ev.APPROVAL_EXPIRED: _expired,
}

WITH_TEXT: Final = frozenset(_TELLERS)
"""Types of events that have words."""
