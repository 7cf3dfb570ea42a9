"""Events become rows: the pure half of the read model.

`take` is given each stored event of a stream in order. It decodes it, checks that it continues its session's chain, and folds
it into the rows it touches: one of `sessions`, at most one of `syscalls` and one of `approvals`. What cannot be folded becomes a
row of `faults`; the events behind it go on. Rows are loaded when first asked for and written once per batch, by the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import orjson

from agentos.abi import event as ev
from agentos.abi.canonical import Json, NotCanonical, canonical, digest, parse_strict
from agentos.abi.chain import GENESIS
from agentos.abi.event import Event
from agentos.abi.syscall import MODEL_CALL
from agentos.eventlog.port import Stored
from agentos.eventlog.subject import session_of
from agentos.projections.cells import bounded as _bounded
from agentos.projections.cells import clip as _clip
from agentos.projections.cells import dump as _dump
from agentos.projections.cells import error as _error
from agentos.projections.cells import text as _text
from agentos.projections.cells import texts as _texts

Row = dict[str, Json]
"""One row, by column name."""

OUTCOMES: Final = ("pending", "waiting", "withdrawn", "denied", "refused", "finished", "failed", "unknown")
"""`pending`: decided, no outcome yet. `waiting`: for a person. `withdrawn`: the session ended before the person answered."""


@dataclass(slots=True)
class Rows:
    """The rows that one batch touches. `load(table, key)` finds a row stored by an earlier batch; None where there is none."""

    load: Callable[[str, tuple[str, ...]], Row | None]
    sessions: dict[tuple[str, ...], Row] = field(default_factory=dict)
    syscalls: dict[tuple[str, ...], Row] = field(default_factory=dict)
    approvals: dict[tuple[str, ...], Row] = field(default_factory=dict)
    rules: set[tuple[str, int, str, str]] = field(default_factory=set)
    """(rule, started_ms, session, call): which rules fired for which call."""
    answers: set[tuple[str, int, str, str]] = field(default_factory=set)
    """(by, started_ms, session, call): who said yes or no to which call, or to another one whose yes it relies on."""
    faults: list[tuple[str, int, str, str, str]] = field(default_factory=list)
    """(stream, position, session, kind, error)."""

    def session(self, name: str) -> Row | None:
        return self._row("sessions", self.sessions, (name,))

    def syscall(self, session: str, call: str) -> Row | None:
        return self._row("syscalls", self.syscalls, (session, call))

    def approval(self, session: str, call: str) -> Row | None:
        return self._row("approvals", self.approvals, (session, call))

    def _row(self, table: str, held: dict[tuple[str, ...], Row], key: tuple[str, ...]) -> Row | None:
        row = held.get(key)
        if row is None:
            row = self.load(table, key)
            if row is not None:
                held[key] = row
        return row


def decode(data: bytes) -> Event:
    """Decode stored bytes. The quick reader is taken where it writes the same bytes again; offline verification is stricter.

    Raises ValueError (NotCanonical among them), KeyError or TypeError for bytes that are no event.
    """
    try:
        body = orjson.loads(data)
        exact = orjson.dumps(body, option=orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER) == data
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        exact = False
    if not exact:
        body = parse_strict(data)
        if canonical(body) != data:
            raise NotCanonical("the stored bytes are not canonical JSON")
    return Event.from_dict(body)


def take(rows: Rows, stream: str, stored: Stored, *, tenant: str) -> None:
    """Fold one stored event into `rows`. Never raises for what the bytes say: a fault is recorded instead."""
    name = session_of(stored.subject)
    known = rows.session(name)
    before = known or _blank_session(name)
    try:
        event = decode(stored.data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # The chain goes on behind the foreign bytes: the next event must name their hash.
        rows.faults.append((stream, stored.position, name, "undecodable", _clip(f"{type(error).__name__}: {error}")))
        rows.sessions[(name,)] = before | {"seq": before["seq"] + 1, "head": digest(stored.data)}
        return
    if event.subject != name or event.tenant != tenant:
        said = f"the event says tenant {event.tenant!r}, subject {event.subject!r}"
        rows.faults.append((stream, stored.position, name, "foreign", _clip(said)))
        rows.sessions[(name,)] = before | {"seq": before["seq"] + 1, "head": digest(stored.data)}
        return
    broken = _break(before, event)
    if broken is not None:
        rows.faults.append((stream, stored.position, name, "chain", broken))
    # The event's own number is taken over even after a break, so that one break is one fault.
    session = before
    session["seq"], session["head"], session["updated_ms"] = event.seq, digest(stored.data), event.time_ms
    rows.sessions[(name,)] = session
    try:
        fold(rows, session, event)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        rows.faults.append((stream, stored.position, name, "shape", _clip(f"{event.type}: {type(error).__name__}: {error}")))


def _break(before: Row, event: Event) -> str | None:
    if event.seq != before["seq"] + 1:
        return f"expected event {before['seq'] + 1}, found {event.seq}: one was dropped, added or moved"
    if event.prev != before["head"]:
        return f"event {event.seq}: `prev` is not the hash of the event before: one of them was edited"
    return None


def fold(rows: Rows, session: Row, event: Event) -> None:
    """Fold a decoded event into its session's row and the rows of its call.

    Raises KeyError, TypeError or ValueError for data of another shape than `agentos.abi.event` documents, before any row changed.
    """
    data = event.data
    match event.type:
        case ev.SESSION_CREATED:
            agent, goal = _text(data, "agent"), _text(data, "goal")
            session.update(agent=agent, goal=_clip(goal), created_ms=event.time_ms, actor=event.actor)
            session.update(state="running", config_revision=event.config_revision)
        case ev.SESSION_REVISED:
            session["config_revision"] = event.config_revision
        case ev.SESSION_WAITING:
            _waiting(rows, session, event)
        case ev.SESSION_PAUSED | ev.SESSION_RESUMED:
            _paused(session, event)
        case ev.SESSION_FINISHED:
            _over(rows, session, event, "finished", result=_clip(_text(data, "result")))
        case ev.SESSION_FAILED:
            _over(rows, session, event, "failed", error=_error(data["error"]))
        case ev.SESSION_CANCELLED:
            _over(rows, session, event, "cancelled", error=_clip(_text(data, "reason")))
        case ev.SESSION_HALTED:
            _over(rows, session, event, "halted", error=_clip("; ".join(_texts(data["reasons"]))))
        case ev.SYSCALL_REFUSED:
            _refused(rows, session, event)
        case ev.SYSCALL_DECIDED:
            _decided(rows, session, event)
        case ev.SYSCALL_FINISHED | ev.SYSCALL_FAILED | ev.SYSCALL_UNKNOWN:
            _outcome(rows, session, event)
        case ev.SYSCALL_RECONCILED:
            _reconciled(rows, session, event)
        case ev.APPROVAL_GRANTED | ev.APPROVAL_DENIED | ev.APPROVAL_EXPIRED:
            _answered(rows, session, event)
        case ev.SESSION_OWNED | ev.POLICY_FAILED | ev.POLICY_NOTIFIED:
            # Who runs it changes nothing; and the decision that the others come with says what held.
            pass
        case _:
            raise ValueError("a type that this version does not know")


def _over(rows: Rows, session: Row, event: Event, state: str, *, result: str | None = None, error: str | None = None) -> None:
    waiting = session["waiting_call"]
    if waiting is not None:
        approval, call = rows.approval(session["id"], waiting), rows.syscall(session["id"], waiting)
        if approval is not None and approval["state"] == "waiting":
            approval.update(state="withdrawn", decided_ms=event.time_ms)
        if call is not None and call["outcome"] == "waiting":
            call["outcome"] = "withdrawn"
    session.update(state=state, waiting_call=None, result=result, error=error)


def _refused(rows: Rows, session: Row, event: Event) -> None:
    data = event.data
    call, tool, error = _text(data, "call"), _text(data, "tool"), _error(data["error"])
    row = rows.syscall(session["id"], call)
    if row is None:
        row = _blank_syscall(session, event, call, tool)
        row["args"] = _bounded(data.get("args_text"))
        rows.syscalls[session["id"], call] = row
    elif row["outcome"] != "pending":
        raise ValueError(f"call {call!r} stands for two calls")
    # A call that was allowed before a crash can meet a tool that takes other arguments now: what was decided stays to be seen.
    row.update(outcome="refused", error=error)


def _decided(rows: Rows, session: Row, event: Event) -> None:
    data = event.data
    call, tool, effect = _text(data, "call"), _text(data, "tool"), _text(data, "effect")
    decision, turn, args_digest = data["decision"], data["turn"], _text(data, "args_digest")
    verdict, rules, reasons = _text(decision, "effect"), _texts(decision["rules"]), _texts(decision["reasons"])
    outcome = {"allow": "pending", "ask": "waiting", "deny": "denied", "halt": "denied"}[verdict]
    args, observed = _bounded(data["args"]), decision.get("observed", [])
    borrowed = [_answer(one, granted=True) for one in data.get("approvals", ()) if one["call"] != call]
    name = session["id"]
    row = rows.syscall(name, call)
    was = None if row is None else row["outcome"]
    if was in {"finished", "failed", "refused"}:
        raise ValueError(f"call {call!r} stands for two calls")
    if row is None:
        row = _blank_syscall(session, event, call, tool)
        rows.syscalls[name, call] = row
    # A call that a person was asked about is decided twice; every rule that ever fired for it stays findable.
    rules = [*orjson.loads(row["rules"]), *rules]
    reasons = [*orjson.loads(row["reasons"]), *reasons]
    row.update(
        tool_effect=effect,
        decision=verdict,
        asked=int(row["asked"] or verdict == "ask"),
        rules=_dump(list(dict.fromkeys(rules))),
        reasons=_dump([_clip(reason) for reason in dict.fromkeys(reasons)]),
        observed=_dump(observed),
        args=args,
        args_digest=args_digest,
        turn=turn,
        config_revision=event.config_revision,
        policy_digest=event.policy_digest,
        outcome=outcome,
    )
    for answer in borrowed:
        _note(rows, row, answer)
    for rule in rules:
        rows.rules.add((rule, row["started_ms"], name, call))
    if outcome == "pending" and tool != MODEL_CALL:
        session["calls"] += 1
    if outcome == "denied" and was != "denied":
        session["denied"] += 1
    if outcome == "waiting":
        _asked(rows, session, event, row)


def _asked(rows: Rows, session: Row, event: Event, call: Row) -> None:
    """A question for people. It may be asked again: of a second person, or after the policy has changed."""
    data, key = event.data, (session["id"], call["call"])
    earlier = rows.approval(*key)
    session["waiting_call"] = call["call"]
    rows.approvals[key] = {
        # What the row of the call has too.
        **{name: call[name] for name in APPROVAL_COLUMNS if name in SYSCALL_COLUMNS and name not in {"rules", "reasons"}},
        "proposed_digest": data["proposed"] if "proposed" in data else call["args_digest"],
        "rewritten": _dump(data.get("rewritten")),
        "rules": _dump(data["decision"]["rules"]),
        "reasons": _dump([_clip(reason) for reason in data["decision"]["reasons"]]),
        "obligations": _dump(data["decision"].get("obligations", [])),
        "decided": event.seq,
        "asked_ms": event.time_ms,
        "expires_ms": None,
        "needed": 1,
        "given": 0,
        "answers": earlier["answers"] if earlier is not None else "[]",
        "state": "waiting",
        "by": None,
        "reason": None,
        "decided_ms": None,
    }


def _waiting(rows: Rows, session: Row, event: Event) -> None:
    data = event.data
    call, expires, needed, given = _text(data, "call"), data["expires"], data["needed"], data["given"]
    approval = rows.approval(session["id"], call)
    if approval is None or approval["state"] != "waiting":
        raise ValueError(f"nobody was asked about call {call!r}")
    if not all(type(number) is int for number in (expires, needed, given)):
        raise ValueError("expires, needed and given are whole numbers")
    approval.update(expires_ms=expires, needed=needed, given=given)
    session.update(state="waiting", waiting_call=call)


def _paused(session: Row, event: Event) -> None:
    """Kept from going on by a person, or no longer. A session that waits goes on waiting."""
    _text(event.data, "reason")
    paused = event.type == ev.SESSION_PAUSED
    before, after = ("running", "paused") if paused else ("paused", "running")
    session.update(paused=int(paused), state=after if session["state"] == before else session["state"])


def _outcome(rows: Rows, session: Row, event: Event) -> None:
    data = event.data
    call, tool = _text(data, "call"), _text(data, "tool")
    row = rows.syscall(session["id"], call)
    if row is None:
        raise ValueError(f"call {call!r} was never decided")
    if row["outcome"] != "pending":
        raise ValueError(f"call {call!r} was {row['outcome']}, and has no outcome to wait for")
    if event.type == ev.SYSCALL_UNKNOWN:
        row.update(outcome="unknown")
        return
    duration = data["duration_us"]
    if type(duration) is not int:
        raise ValueError("duration_us is not a whole number")
    if event.type == ev.SYSCALL_FAILED:
        row.update(outcome="failed", duration_us=duration, error=_error(data["error"]))
        return
    result = data["result"]
    error = _clip(_text(result, "content")) if result["is_error"] else None
    if tool == MODEL_CALL:
        usage = result["data"]
        spent_in, spent_out = usage["input_tokens"] + 0, usage["output_tokens"] + 0
        session["model_calls"] += 1
        session["input_tokens"] += spent_in
        session["output_tokens"] += spent_out
    row.update(outcome="finished", duration_us=duration, error=error)


def _reconciled(rows: Rows, session: Row, event: Event) -> None:
    """What a person found out about a call of which nobody knew what came of it."""
    data = event.data
    call, outcome, reason = _text(data, "call"), _text(data, "outcome"), _text(data, "reason")
    row = rows.syscall(session["id"], call)
    if row is None:
        raise ValueError(f"call {call!r} was never decided")
    if row["outcome"] != "unknown":
        raise ValueError(f"call {call!r} was {row['outcome']}, and nobody has to find out what came of it")
    if outcome == "finished":
        row.update(outcome="finished", error=None)
    else:
        row.update(outcome="failed", error=_clip(f"{outcome}: {event.actor}: {reason}"))


def _answered(rows: Rows, session: Row, event: Event) -> None:
    call, granted = _text(event.data, "call"), event.type == ev.APPROVAL_GRANTED
    row, approval = rows.syscall(session["id"], call), rows.approval(session["id"], call)
    if row is None or approval is None:
        raise ValueError(f"nobody was asked about call {call!r}")
    state = "approved" if granted else "denied" if event.type == ev.APPROVAL_DENIED else "expired"
    if state == "expired":
        approval.update(state=state, decided_ms=event.time_ms)
        row["error"] = "expired: nobody approved it in time"
    else:
        answer = _answer({**event.data, "by": event.actor}, granted=granted)
        told = answer | {"at_ms": event.time_ms, "expires_ms": event.data["expires"] if granted else None}
        answers = [*orjson.loads(approval["answers"]), told]
        approval.update(state=state, by=event.actor, reason=answer["reason"], decided_ms=event.time_ms, answers=_dump(answers))
        approval["given"] += granted
        _note(rows, row, answer)
    if not granted:
        # What holds in the end: a person's no, and nobody's yes, is a denial. That it was asked stays in `asked`.
        session["denied"] += row["outcome"] != "denied"
        row["decision"] = "deny"
    row["outcome"] = "pending" if granted else "denied"
    session.update(state="paused" if session["paused"] else "running", waiting_call=None)


def _answer(body: Json, *, granted: bool) -> Row:
    """One answer as the rows keep it, from an answer's event or a decision's `approvals`."""
    answer: Row = {"call": _text(body, "call"), "by": _text(body, "by"), "reason": _clip(_text(body, "reason"))}
    return answer | {"granted": granted, "scope": _text(body, "scope") if granted else None}


def _note(rows: Rows, row: Row, answer: Row) -> None:
    """Add an answer to a call's row: its own, or one that another call was given for the session."""
    known = [*(one for one in orjson.loads(row["approvals"]) if one != answer), answer]
    everybody = ", ".join(dict.fromkeys(one["by"] for one in known))
    row.update(approvals=_dump(known), approval_by=everybody, approval_reason=answer["reason"])
    rows.answers.add((answer["by"], row["started_ms"], row["session"], row["call"]))


def _blank_session(name: str) -> Row:
    return {
        "id": name,
        "agent": "",
        "state": "running",
        "goal": "",
        "created_ms": 0,
        "updated_ms": 0,
        "calls": 0,
        "denied": 0,
        "model_calls": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "actor": "",
        "config_revision": 0,
        "waiting_call": None,
        "paused": 0,
        "result": None,
        "error": None,
        "seq": 0,
        "head": GENESIS,
    }


def _blank_syscall(session: Row, event: Event, call: str, tool: str) -> Row:
    return {
        "session": session["id"],
        "call": call,
        "tool": tool,
        "tool_effect": None,
        "decision": None,
        "asked": 0,
        "rules": "[]",
        "reasons": "[]",
        "observed": "[]",
        "args": "null",
        "args_digest": None,
        # On whose behalf: the principal who started the session; the agent has a column of its own.
        "actor": session["actor"] or event.actor,
        "agent": session["agent"],
        "config_revision": event.config_revision,
        "policy_digest": event.policy_digest,
        "approval_by": None,
        "approval_reason": None,
        "approvals": "[]",
        "outcome": "pending",
        "error": None,
        "started_ms": event.time_ms,
        "duration_us": None,
        "turn": None,
    }


SESSION_COLUMNS: Final = tuple(_blank_session(""))
"""Columns of `sessions`, in order."""

SYSCALL_COLUMNS: Final = tuple(_blank_syscall(_blank_session(""), Event("", "", "", "", 0, "", 0, "", 0, None, {}), "", ""))
"""Columns of `syscalls`, in order."""

APPROVAL_COLUMNS: Final = (
    *("session", "call", "agent", "tool", "tool_effect", "args", "args_digest", "policy_digest", "proposed_digest", "rewritten"),
    *("rules", "reasons", "obligations", "decided", "asked_ms", "expires_ms", "needed", "given", "answers"),
    *("state", "by", "reason", "decided_ms"),
)
"""Columns of `approvals`, in order."""
