"""Events become rows: the pure half of the index, which knows headers alone.

`take` is given each stored event of a stream in order. It decodes its header, checks that it continues its session's chain, and
folds its attributes (`agentos.abi.attributes`) into the rows it touches: one of `sessions`, at most one of `syscalls` and one of
`approvals`, a sum of `spend`. No word that a person or a model wrote comes in here; a row names the events (`seqs`, `decided`,
`ended`) that the text model has the words of. What cannot be folded becomes a row of `faults`; the events behind it go on. Rows
are loaded when first asked for and written once per batch, by the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import orjson

from agentos.abi import event as ev
from agentos.abi.canonical import Json, digest
from agentos.abi.chain import GENESIS
from agentos.abi.erased import erased_by
from agentos.abi.event import rfc3339
from agentos.abi.record import header_of
from agentos.abi.syscall import MODEL_CALL, PSEUDO
from agentos.eventlog.port import Stored
from agentos.eventlog.subject import AUDIT_CHAIN, chain_of, is_session_subject
from agentos.projections.blank import blank_session, blank_syscall
from agentos.projections.cells import clip as _clip
from agentos.projections.cells import dump as _dump
from agentos.projections.decoded import Header, decode_header, read_header
from agentos.projections.index_tables import APPROVALS, CHAINS, SESSIONS, SPEND, SYSCALLS
from agentos.projections.table import Row, Table

Attributes = Mapping[str, str | int]

OPEN_OUTCOMES = frozenset({"pending", "waiting", "denied", "unknown", "withdrawn"})
"""Outcomes after which a call may be decided again. `pending`: decided, no outcome yet. `waiting`: for a person. `withdrawn`: the
session ended before the person answered. Over are `refused`, `finished` and `failed`."""

DAY_MS = 86_400_000

_VERDICTS = {"allow": "pending", "ask": "waiting", "deny": "denied", "halt": "denied"}


@dataclass(slots=True)
class Rows:
    """The rows that one batch touches. `load(table, key)` finds a row stored by an earlier batch; None where there is none."""

    load: Callable[[Table, tuple[str, ...]], Row | None]
    sessions: dict[tuple[str, ...], Row] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)
    """Sessions that begin in this batch, so that no row of theirs has to be looked for."""
    syscalls: dict[tuple[str, ...], Row] = field(default_factory=dict)
    approvals: dict[tuple[str, ...], Row] = field(default_factory=dict)
    chains: dict[tuple[str, ...], Row] = field(default_factory=dict)
    """How far the chains go that are no session's: the audit chain."""
    spend: dict[tuple[str, ...], Row] = field(default_factory=dict)
    rules: set[tuple[str, int, str, str]] = field(default_factory=set)
    """(rule, started_ms, session, call): which rules fired for which call."""
    answers: set[tuple[str, int, str, str]] = field(default_factory=set)
    """(by, started_ms, session, call): who said yes or no to which call, or to another one whose yes it relies on."""
    erased: set[str] = field(default_factory=set)
    """Sessions whose payloads were erased."""
    faults: list[tuple[str, int, str, str, str]] = field(default_factory=list)
    """(stream, position, session, kind, error)."""

    def session(self, name: str) -> Row | None:
        return self._row(SESSIONS, self.sessions, (name,))

    def started(self, name: str) -> Row:
        """The row of a session, blank where this is the first that is heard of it."""
        row = self.session(name)
        if row is None:
            row = self.sessions[(name,)] = blank_session(name)
            self.fresh.add(name)
        return row

    def syscall(self, session: str, call: str) -> Row | None:
        return (
            self.syscalls.get((session, call)) if session in self.fresh else self._row(SYSCALLS, self.syscalls, (session, call))
        )

    def approval(self, session: str, call: str) -> Row | None:
        if session in self.fresh:
            return self.approvals.get((session, call))
        return self._row(APPROVALS, self.approvals, (session, call))

    def chain(self, name: str) -> Row:
        row = self._row(CHAINS, self.chains, (name,))
        if row is None:
            row = self.chains[(name,)] = {"name": name, "seq": 0, "head": GENESIS}
        return row

    def spent(self, key: tuple[str, str, str, str]) -> Row:
        """The sums of one day, agent, tool and model."""
        row = self._row(SPEND, self.spend, key)
        if row is None:
            row = self.spend[key] = dict.fromkeys(SPEND.columns, 0) | dict(zip(SPEND.key, key, strict=True))
        return row

    def _row(self, table: Table, held: dict[tuple[str, ...], Row], key: tuple[str, ...]) -> Row | None:
        row = held.get(key)
        if row is None:
            row = self.load(table, key)
            if row is not None:
                held[key] = row
        return row


def take(rows: Rows, stream: str, stored: Stored, *, tenant: str) -> None:
    """Fold one stored event into `rows`. Never raises for what the bytes say: a fault is recorded instead."""
    audit = stored.subject == AUDIT_CHAIN
    if not audit and not is_session_subject(stored.subject):
        return
    name = chain_of(stored.subject)
    header = header_of(stored.data)
    chain = rows.chain(name) if audit else rows.started(name)
    at = (stream, stored.position, name)
    try:
        event = read_header(header)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # The chain goes on behind the foreign bytes: the next event must name their hash.
        rows.faults.append((*at, "undecodable", _clip(f"{type(error).__name__}: {error}")))
        chain["seq"], chain["head"] = chain["seq"] + 1, digest(header)
        return
    if event.subject != name or event.tenant != tenant:
        rows.faults.append((*at, "foreign", _clip(f"the event says tenant {event.tenant!r}, subject {event.subject!r}")))
        chain["seq"], chain["head"] = chain["seq"] + 1, digest(header)
        return
    broken = _break(chain, event)
    if broken is not None:
        rows.faults.append((*at, "chain", broken))
    # The event's own number is taken over even after a break, so that one break is one fault.
    chain["seq"], chain["head"] = event.seq, digest(header)
    try:
        if audit:
            rows.erased.update(erased_by(decode_header(header)))
        else:
            chain["updated_ms"] = event.time_ms
            fold(rows, chain, event)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        rows.faults.append((*at, "shape", _clip(f"{event.type}: {type(error).__name__}: {error}")))


def _break(before: Row, event: Header) -> str | None:
    if event.seq != before["seq"] + 1:
        return f"expected event {before['seq'] + 1}, found {event.seq}: one was dropped, added or moved"
    if event.prev != before["head"]:
        return f"event {event.seq}: `prev` is not the hash of the event before: one of them was edited"
    return None


def fold(rows: Rows, session: Row, event: Header) -> None:
    """Fold an event's header into its session's row and the rows of its call.

    Raises KeyError, TypeError or ValueError for an event of another shape than `agentos.abi` documents, before any row changed.
    """
    step = _STEPS.get(event.type)
    if step is None:
        raise ValueError("a type that this version does not know")
    step(rows, session, event)


def _created(rows: Rows, session: Row, event: Header) -> None:
    del rows
    told = event.told
    deferred = _text(told, "deferred") if "deferred" in told else None
    if deferred is not None and not isinstance(orjson.loads(deferred), dict):
        raise ValueError("deferred tells nothing that could be waited for")
    session.update(agent=_text(told, "agent"), created_ms=event.time_ms, actor=told.get("onbehalfof", event.actor))
    session.update(state="running" if deferred is None else "deferred", deferred=deferred, config_revision=event.config_revision)
    session.update(parent=told.get("parent"), origin=told.get("origin"))
    session.update(trigger_name=told.get("trigger"), firing=told.get("firing"))


def _begun(rows: Rows, session: Row, event: Header) -> None:
    """What it waited for holds."""
    del rows, event
    session.update(deferred=None, state="running" if session["state"] == "deferred" else session["state"])


def _revised(rows: Rows, session: Row, event: Header) -> None:
    del rows
    session["config_revision"] = event.config_revision


def _nothing(rows: Rows, session: Row, event: Header) -> None:
    """Who runs it changes nothing; and a failure of policy and a notice come with the decision that says what held."""
    del rows, session, event


def _over(rows: Rows, session: Row, event: Header) -> None:
    state, waiting = _text(event.told, "outcome"), session["waiting_call"]
    if waiting is not None:
        approval, call = rows.approval(session["id"], waiting), rows.syscall(session["id"], waiting)
        if approval is not None and approval["state"] == "waiting":
            approval.update(state="withdrawn", decided_ms=event.time_ms)
        if call is not None and call["outcome"] == "waiting":
            call["outcome"] = "withdrawn"
    session.update(state=state, waiting_call=None, ended=event.seq)


def _refused(rows: Rows, session: Row, event: Header) -> None:
    call = _text(event.told, "call")
    row = rows.syscall(session["id"], call)
    if row is None:
        row = rows.syscalls[session["id"], call] = blank_syscall(session, event, call, None)
    elif row["outcome"] != "pending":
        raise ValueError(f"call {call!r} stands for two calls")
    # A call that was allowed before a crash can meet a tool that takes other arguments now: what was decided stays to be seen.
    row["outcome"] = "refused"
    _said(row, event)


def _decided(rows: Rows, session: Row, event: Header) -> None:
    told = event.told
    call, tool, effect, verdict = _text(told, "call"), _text(told, "tool"), _text(told, "tooleffect"), _text(told, "decision")
    turn, outcome = _whole(told, "turn"), _VERDICTS[verdict]
    rules, people = _names(told, "rules"), _names(told, "approvals")
    name = session["id"]
    row = rows.syscall(name, call)
    was = None if row is None else row["outcome"]
    if was is not None and was not in OPEN_OUTCOMES:
        raise ValueError(f"call {call!r} stands for two calls")
    if row is None:
        row = rows.syscalls[name, call] = blank_syscall(session, event, call, tool)
    row.update(
        tool=tool,
        tool_effect=effect,
        decision=verdict,
        asked=int(row["asked"] or verdict == "ask"),
        # A call that a person was asked about is decided twice; every rule that ever fired for it stays findable.
        rules=_dump(list(dict.fromkeys([*_list(row["rules"]), *rules]))),
        turn=turn,
        config_revision=event.config_revision,
        policy_digest=event.policy_digest,
        model=told.get("model", ""),
        outcome=outcome,
    )
    _said(row, event)
    known = {one["by"] for one in _list(row["approvals"])}
    for by in people:
        # A yes of its own is noted already; others were given to another call, for the session.
        if by not in known:
            _note(rows, row, by, granted=True, scope="session")
    for rule in rules:
        rows.rules.add((rule, row["started_ms"], name, call))
    if outcome == "pending" and tool not in PSEUDO:
        session["calls"] += 1
    if outcome == "denied" and was != "denied":
        session["denied"] += 1
    if outcome == "waiting":
        _asked(rows, session, event, row, rules)


def _asked(rows: Rows, session: Row, event: Header, call: Row, rules: Iterable[str]) -> None:
    """A question for people. It may be asked again: of a second person, or after the policy has changed."""
    key = (session["id"], call["call"])
    earlier = rows.approval(*key)
    session["waiting_call"] = call["call"]
    rows.approvals[key] = {
        "session": session["id"],
        "call": call["call"],
        "agent": call["agent"],
        "tool": call["tool"],
        "tool_effect": call["tool_effect"],
        "policy_digest": call["policy_digest"],
        "rules": _dump(list(rules)),
        "decided": event.seq,
        "asked_ms": event.time_ms,
        "expires_ms": None,
        "needed": 1,
        "given": 0,
        "answers": earlier["answers"] if earlier is not None else "[]",
        "state": "waiting",
        "by": None,
        "decided_ms": None,
    }


def _waiting(rows: Rows, session: Row, event: Header) -> None:
    told = event.told
    call = _text(told, "call")
    expires, needed, given = (_whole(told, name) for name in ("expires", "needed", "given"))
    approval = rows.approval(session["id"], call)
    if approval is None or approval["state"] != "waiting":
        raise ValueError(f"nobody was asked about call {call!r}")
    approval.update(expires_ms=expires, needed=needed, given=given)
    session.update(state="waiting", waiting_call=call)


def _paused(rows: Rows, session: Row, event: Header) -> None:
    """Kept from going on by a person, or no longer. A session that waits goes on waiting."""
    del rows
    paused = event.type == ev.SESSION_PAUSED
    going = "running" if session["deferred"] is None else "deferred"
    before, after = (going, "paused") if paused else ("paused", going)
    session.update(paused=int(paused), state=after if session["state"] == before else session["state"])


def _outcome(rows: Rows, session: Row, event: Header) -> None:
    told = event.told
    call, tool, outcome = _text(told, "call"), _text(told, "tool"), _text(told, "outcome")
    row = rows.syscall(session["id"], call)
    if row is None:
        raise ValueError(f"call {call!r} was never decided")
    if row["outcome"] != "pending":
        raise ValueError(f"call {call!r} was {row['outcome']}, and has no outcome to wait for")
    if event.type == ev.SYSCALL_UNKNOWN:
        row["outcome"] = "unknown"
        _said(row, event)
        return
    duration = _whole(told, "durationus")
    used = {"calls": 1, "failed": int(outcome == "failed" or "errorcode" in told), "duration_us": duration}
    if tool == MODEL_CALL and outcome == "finished":
        used |= {"input_tokens": _whole(told, "inputtokens"), "output_tokens": _whole(told, "outputtokens")}
        session["model_calls"] += 1
        session["input_tokens"] += used["input_tokens"]
        session["output_tokens"] += used["output_tokens"]
    sums = rows.spent((_day(event.time_ms // DAY_MS), session["agent"], tool, row["model"]))
    for column, amount in used.items():
        sums[column] += amount
    row.update(outcome=outcome, duration_us=duration)
    _said(row, event)


@lru_cache(maxsize=64)
def _day(number: int) -> str:
    """`2026-11-21` for the days since the epoch."""
    return rfc3339(number * DAY_MS)[:10]


def _reconciled(rows: Rows, session: Row, event: Header) -> None:
    """What a person found out about a call of which nobody knew what came of it."""
    told = event.told
    call, outcome = _text(told, "call"), _text(told, "outcome")
    row = rows.syscall(session["id"], call)
    if row is None:
        raise ValueError(f"call {call!r} was never decided")
    if row["outcome"] != "unknown":
        raise ValueError(f"call {call!r} was {row['outcome']}, and nobody has to find out what came of it")
    row["outcome"] = "finished" if outcome == "finished" else "failed"
    _said(row, event)


def _answered(rows: Rows, session: Row, event: Header) -> None:
    told = event.told
    call, granted = _text(told, "call"), event.type == ev.APPROVAL_GRANTED
    row, approval = rows.syscall(session["id"], call), rows.approval(session["id"], call)
    if row is None or approval is None:
        raise ValueError(f"nobody was asked about call {call!r}")
    state = "approved" if granted else "denied" if event.type == ev.APPROVAL_DENIED else "expired"
    if state == "expired":
        approval.update(state=state, decided_ms=event.time_ms)
    else:
        scope, expires = (_text(told, "scope"), _whole(told, "expires")) if granted else (None, None)
        answer = {"seq": event.seq, "by": event.actor, "granted": granted, "scope": scope}
        answers = [*_list(approval["answers"]), answer | {"at_ms": event.time_ms, "expires_ms": expires}]
        approval.update(state=state, by=event.actor, decided_ms=event.time_ms, answers=_dump(answers))
        approval["given"] += granted
        _note(rows, row, event.actor, granted=granted, scope=scope)
    if not granted:
        # What holds in the end: a person's no, and nobody's yes, is a denial. That it was asked stays in `asked`.
        session["denied"] += row["outcome"] != "denied"
        row["decision"] = "deny"
    row["outcome"] = "pending" if granted else "denied"
    _said(row, event)
    session.update(state="paused" if session["paused"] else "running", waiting_call=None)


def _note(rows: Rows, row: Row, by: str, *, granted: bool, scope: str | None) -> None:
    """Add an answer to a call's row: its own, or one that another call was given for the session."""
    answer = {"by": by, "granted": granted, "scope": scope}
    known = [*(one for one in _list(row["approvals"]) if one != answer), answer]
    row.update(approvals=_dump(known), approval_by=", ".join(dict.fromkeys(one["by"] for one in known)))
    rows.answers.add((by, row["started_ms"], row["session"], row["call"]))


def _said(row: Row, event: Header) -> None:
    """The call's row names the event, whose words the text model has."""
    row["seqs"] = f"{row['seqs']},{event.seq}" if row["seqs"] else str(event.seq)


def _text(told: Attributes, name: str) -> str:
    value = told[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} is not text")  # noqa: TRY004 - one class for whatever is of another shape
    return value


def _whole(told: Attributes, name: str) -> int:
    value = told[name]
    if not isinstance(value, int):
        raise ValueError(f"{name} is not a whole number")  # noqa: TRY004
    return value


def _names(told: Attributes, name: str) -> list[str]:
    """The names in an attribute that joins several."""
    value = told.get(name, "")
    return value.split(",") if isinstance(value, str) and value else []


def _list(cell: str) -> list[Json]:
    """The list in a cell; most are empty."""
    found: list[Json] = [] if cell == "[]" else orjson.loads(cell)
    return found


_STEPS: Final[Mapping[str, Callable[[Rows, Row, Header], None]]] = {
    ev.SESSION_CREATED: _created,
    ev.SESSION_BEGUN: _begun,
    ev.SESSION_REVISED: _revised,
    ev.SESSION_OWNED: _nothing,
    ev.SESSION_WAITING: _waiting,
    ev.SESSION_SIGNALLED: _nothing,
    ev.SESSION_FROZEN: _nothing,
    ev.HARNESS_STOPPED: _nothing,
    ev.DELEGATION_REFUSED: _nothing,
    ev.SESSION_PAUSED: _paused,
    ev.SESSION_RESUMED: _paused,
    **dict.fromkeys(ev.TERMINAL, _over),
    ev.SYSCALL_REFUSED: _refused,
    ev.SYSCALL_DECIDED: _decided,
    ev.SYSCALL_FINISHED: _outcome,
    ev.SYSCALL_FAILED: _outcome,
    ev.SYSCALL_UNKNOWN: _outcome,
    ev.SYSCALL_RECONCILED: _reconciled,
    ev.POLICY_FAILED: _nothing,
    ev.POLICY_NOTIFIED: _nothing,
    ev.APPROVAL_GRANTED: _answered,
    ev.APPROVAL_DENIED: _answered,
    ev.APPROVAL_EXPIRED: _answered,
}
