"""Rows for readers: those of the index, completed with the words that the text model has of their events.

The index says what counts and names the events; the words of each are a small object (`agentos.projections.texts`). Where there
are none (they were erased, or the text model is not that far) the row is there all the same, its texts empty; `erased` is true,
and absent otherwise, in rows of a session whose payloads were destroyed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from agentos.abi.canonical import Json
from agentos.projections.read_model import ReadModel

Row = dict[str, Json]
Bodies = Mapping[int, Row]
"""The words of a session's events, by their number."""


class Words:
    """The words of events, asked for one by one on one connection; without a text model there are none."""

    def __init__(self, index: sqlite3.Connection, text: sqlite3.Connection | None) -> None:
        self._index = index
        self._text = text
        self._erased: dict[str, bool] = {}

    def of(self, session: str, numbers: Iterable[int | None]) -> Bodies:
        """The words of those events of `session` that have any, in the order asked for."""
        if self._text is None:
            return {}
        found = {}
        for number in numbers:
            row = self._text.execute("SELECT body FROM texts WHERE session = ? AND seq = ?", (session, number)).fetchone()
            if row is not None and number is not None:
                found[number] = json.loads(row[0])
        return found

    def erased(self, session: str) -> dict[str, Json]:
        """`{"erased": True}` for a session whose payloads were destroyed, `{}` for all others."""
        gone = self._erased.get(session)
        if gone is None:
            found = self._index.execute("SELECT 1 FROM erased WHERE session = ?", (session,)).fetchone()
            gone = self._erased[session] = found is not None
        return {"erased": True} if gone else {}


def whole_session(row: Mapping[str, Json], words: Words) -> Row:
    """A session with its goal and what it ended with."""
    name, ended = row["id"], row["ended"]
    bodies = words.of(name, (1, ended))
    end = bodies.get(ended, {}) if ended is not None else {}
    kept = {column: row[column] for column in row.keys() if column not in {"paused", "ended", "head", "crc"}}  # noqa: SIM118 - a sqlite3.Row iterates over its values
    kept["deferred"] = json.loads(kept["deferred"] or "null")
    seq = kept.pop("seq")
    said: Row = {"result": end.get("result"), "error": end.get("error"), "seq": seq}
    first = {column: kept.pop(column) for column in ("id", "agent", "state")}
    return first | {"goal": bodies.get(1, {}).get("goal", "")} | kept | said | words.erased(name)


def whole_syscall(row: Mapping[str, Json], words: Words) -> Row:
    """A call with its arguments, why it was decided so, who answered for it and what went wrong."""
    name, numbers = row["session"], [int(number) for number in row["seqs"].split(",") if number]
    bodies = words.of(name, numbers)
    decisions = [body for body in bodies.values() if "args_digest" in body]
    refusal = next((body for body in bodies.values() if "tool" in body), {})
    last = decisions[-1] if decisions else {}
    answers = _answers(bodies.values(), row["call"])
    if not answers:
        answers = [{"call": row["call"], "reason": "", **one} for one in json.loads(row["approvals"])]
    errors = [body["error"] for body in bodies.values() if "error" in body]
    return {
        "session": name,
        "call": row["call"],
        "tool": row["tool"] if row["tool"] is not None else refusal.get("tool", ""),
        "tool_effect": row["tool_effect"],
        "decision": row["decision"],
        "asked": bool(row["asked"]),
        "rules": json.loads(row["rules"]),
        "reasons": list(dict.fromkeys(reason for body in decisions for reason in body["reasons"])),
        "observed": last.get("observed", []),
        "args": json.loads((last or refusal).get("args", "null")),
        "args_digest": last.get("args_digest"),
        "actor": row["actor"],
        "agent": row["agent"],
        "config_revision": row["config_revision"],
        "policy_digest": row["policy_digest"],
        "approval_by": row["approval_by"],
        "approval_reason": answers[-1]["reason"] if answers else None,
        "approvals": answers,
        "outcome": row["outcome"],
        "error": errors[-1] if errors else None,
        "started_ms": row["started_ms"],
        "duration_us": row["duration_us"],
        "turn": row["turn"],
        **words.erased(name),
    }


def whole_approval(row: Mapping[str, Json], words: Words) -> Row:
    """A question with what was asked, why, and what was answered."""
    name, told = row["session"], json.loads(row["answers"])
    bodies = words.of(name, [row["decided"], *(one["seq"] for one in told)])
    asked = bodies.get(row["decided"], {})
    reasons = {one["seq"]: bodies.get(one["seq"], {}).get("answer", {}).get("reason", "") for one in told}
    answers = [
        {
            "call": row["call"],
            "by": one["by"],
            "reason": reasons[one["seq"]],
            "granted": one["granted"],
            "scope": one["scope"],
            "at_ms": one["at_ms"],
            "expires_ms": one["expires_ms"],
        }
        for one in told
    ]
    return {
        "session": name,
        "call": row["call"],
        "agent": row["agent"],
        "tool": row["tool"],
        "tool_effect": row["tool_effect"],
        "args": json.loads(asked.get("args", "null")),
        "args_digest": asked.get("args_digest", ""),
        "policy_digest": row["policy_digest"],
        "proposed_digest": asked.get("proposed_digest", ""),
        "rewritten": asked.get("rewritten"),
        "rules": json.loads(row["rules"]),
        "reasons": asked.get("reasons", []),
        "obligations": asked.get("obligations", []),
        "decided": row["decided"],
        "asked_ms": row["asked_ms"],
        "expires_ms": row["expires_ms"],
        "needed": row["needed"],
        "given": row["given"],
        "answers": answers,
        "state": row["state"],
        "by": row["by"],
        "reason": answers[-1]["reason"] if answers and row["by"] is not None else None,
        "decided_ms": row["decided_ms"],
        **words.erased(name),
    }


def _answers(bodies: Iterable[Row], call: str) -> list[Row]:
    """The answers that a call rests on: its own, and those that another call was given for the session; each once."""
    known: list[Row] = []
    for answer in _told(bodies, call):
        known = [*(one for one in known if one != answer), answer]
    return known


def _told(bodies: Iterable[Row], call: str) -> Iterator[Row]:
    for body in bodies:
        yield from (one for one in body.get("approvals", ()) if one["call"] != call)
        if "answer" in body:
            yield body["answer"]


@contextmanager
def opened(index: ReadModel, text: ReadModel | None) -> Iterator[tuple[sqlite3.Connection, Words]]:
    """A connection to the index, and the words of its rows."""
    with ExitStack() as stack:
        connection = stack.enter_context(index.reader())
        yield connection, Words(connection, None if text is None else stack.enter_context(text.reader()))
