"""Rows of history: what is left out changes no question, and what cannot be asked again is named."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from agentos.abi import event as ev
from agentos.abi.canonical import digest_of
from agentos.abi.event import Event
from agentos.abi.record import decode, header_of
from agentos.audit.history import Gathering, Undecidable, pack, recall, unpack
from agentos.projections.question import Recorded, recorded

MAIL = {"to": "a@acme.example"}


def session(record: ModuleType, name: str = "s-1") -> list[Event]:
    """A model call, a call that leaves labels, one that is approved, one that is overruled, one that policy never decided."""
    chain = record.Chain(name)
    chain.created()
    chain.model(1)
    chain.decided("c1", "read", "allow")
    read = {"content": "x" * 500, "is_error": False, "labels": ["untrusted"]}
    chain.add(ev.SYSCALL_FINISHED, {"call": "c1", "tool": "read", "result": read, "duration_us": 1})
    chain.decided("c2", "send", "ask", MAIL, rules=("grants.approval",))
    chain.add(ev.SESSION_WAITING, {"call": "c2"})
    digest = "sha256:" + "ab" * 32
    yes = {"call": "c2", "args_digest": digest_of(MAIL), "reason": "fine", "decided": 7, "expires": 2 * record.START_MS}
    yes |= {"policy_digest": digest, "scope": "once"}
    chain.add(ev.APPROVAL_GRANTED, yes, "principal/anna")
    chain.decided("c2", "send", "allow", MAIL)
    chain.finished("c2", "send")
    said = {"effect": "allow", "rules": ["grants.allowed"], "reasons": ["as granted"]}
    chain.decided("c3", "send", "deny", MAIL, rules=("obligation.sandbox",), overruled=said)
    chain.decided("c4", "send", "deny", MAIL, rules=("policy.failed",))
    chain.decided("c5", "send", "deny", MAIL, rules=("grants.none",))
    chain.add(ev.SESSION_FINISHED, {"result": "done"})
    return [Event.from_bytes(stored) for stored in chain.stored]


def erase(event: Event, *keys: str) -> Event:
    return replace(event, data={key: value for key, value in event.data.items() if key not in keys})


def about(items: list[Recorded | Undecidable]) -> list[tuple[str, str]]:
    return [(item.call, item.reason if isinstance(item, Undecidable) else "again") for item in items]


def test_a_row_keeps_every_question(record: ModuleType) -> None:
    """Packed, sent as JSON and unpacked, a session gives the same questions and decisions, and none of what was read or said."""
    events = session(record)
    rows = [json.loads(json.dumps(pack(decode(event.to_record(bytes(16)))))) for event in events]
    assert "xxx" not in json.dumps(rows)
    assert "sort the inbox" not in json.dumps(rows)
    again = recorded(unpack(row, "default") for row in rows)
    assert list(again) == list(recorded(events))


def test_what_was_decided_without_policy_is_not_decided_again(record: ModuleType) -> None:
    """An overruled decision is compared as policy gave it; one that policy did not give is undecidable."""
    found = list(recall(session(record)))
    assert about(found) == [
        ("model-1", "again"),
        ("c1", "again"),
        ("c2", "again"),
        ("c2", "again"),
        ("c3", "again"),
        ("c4", "the runtime decided it, policy gave no decision (policy.failed)"),
        ("c5", "again"),
    ]
    overruled = found[4]
    assert isinstance(overruled, Recorded)
    assert overruled.policy_decision["effect"] == "allow"
    approved = found[3]
    assert isinstance(approved, Recorded)
    assert [one["by"] for one in approved.question["approvals"]] == ["principal/anna"]


def test_erased_arguments_are_named_and_the_rest_is_told(record: ModuleType) -> None:
    """One erased payload makes one decision undecidable, under its id."""
    events = [erase(event, "args") if event.data.get("call") == "c5" else event for event in session(record)]
    *others, gone = recall(events)
    assert isinstance(gone, Undecidable)
    assert (gone.decision, gone.reason) == (f"s-1#{events[-2].seq}", "erased: args")
    assert others == list(recall(session(record)))[:-1]


@pytest.mark.parametrize("keys", [("result",), ("tool", "result")])
def test_an_erased_outcome_leaves_what_follows_undecidable(record: ModuleType, keys: tuple[str, ...]) -> None:
    """The labels of a result are part of every later question: without them none is guessed."""
    events = [
        erase(one, *keys) if one.type == ev.SYSCALL_FINISHED and one.data["call"] == "c1" else one for one in session(record)
    ]
    reason = "an earlier event of its session was erased or cannot be read"
    assert about(list(recall(events))) == [
        ("model-1", "again"),
        ("c1", "again"),
        *((call, reason) for call in ("c2", "c2", "c3", "c4", "c5")),
    ]


def test_an_erased_payload_is_said_and_nothing_is_guessed(record: ModuleType) -> None:
    """Erased from some event on, as rows and as events: what precedes is asked again, each decision behind says why it is not."""
    whole = session(record)
    for gone in range(len(whole)):
        left = [*whole[:gone], *(Event.from_bytes(header_of(one.to_record(bytes(16)))) for one in whole[gone:])]
        found = list(recall(left))
        assert [item for item in found if isinstance(item, Recorded)] == [
            item for item in recall(whole) if isinstance(item, Recorded) and item.seq <= gone
        ]
        behind = [item for item in found if isinstance(item, Undecidable) and int(item.decision.rpartition("#")[2]) > gone]
        assert {item.reason for item in behind} <= {"the payload was erased"}
        assert [item.call for item in behind] == [one.data["call"] for one in whole[gone:] if one.type == ev.SYSCALL_DECIDED]
        rows = [pack(decode(one.to_record(bytes(16)))) for one in whole[:gone]]
        rows += [pack(decode(header_of(one.to_record(bytes(16))))) for one in whole[gone:]]
        again = list(recall([unpack(row, "default") for row in json.loads(json.dumps(rows))]))
        assert again == found


def test_what_follows_an_erased_event_is_undecidable(record: ModuleType) -> None:
    """One payload is gone in the middle: that decision was erased, later ones depend on it."""
    whole = session(record)
    at = next(place for place, one in enumerate(whole) if one.data.get("call") == "c1")
    whole[at] = Event.from_bytes(header_of(whole[at].to_record(bytes(16))))
    behind = "an earlier event of its session was erased or cannot be read"
    assert about(list(recall(whole))) == [
        ("model-1", "again"),
        ("c1", "the payload was erased"),
        *((call, behind) for call in ("c2", "c2", "c3", "c4", "c5")),
    ]


def test_a_session_with_a_gap_is_undecidable(record: ModuleType) -> None:
    """Events that are missing make every decision of their session undecidable."""
    events = session(record)
    del events[4]
    found = about(list(recall(events)))
    assert len(found) == 7
    assert {reason for _, reason in found} == {"events of its session are missing"}


def test_sessions_are_gathered_whole(record: ModuleType) -> None:
    """Events that alternate are told apart; one that ends is given out, one that began earlier is put aside."""
    one, two, old = session(record, "s-1"), session(record, "s-2")[:5], session(record, "s-3")[3:]
    gathering, ended = Gathering(), []
    for place in range(len(one)):
        for events in (one, two, old):
            if place < len(events):
                whole = gathering.take(events[place])
                ended += [whole] if whole is not None else []
    assert ended == [one]
    assert list(gathering.rest()) == [two]
    assert list(gathering.began_before) == ["s-3"]


def test_the_bulk_of_any_event_may_be_gone(record: ModuleType) -> None:
    """Packing never fails on data that lacks what it leaves out."""
    for event in session(record):
        body: dict[str, Any] = decode(event.to_record(bytes(16)))
        body["data"] = {}
        assert pack(body)[-1] == {}
