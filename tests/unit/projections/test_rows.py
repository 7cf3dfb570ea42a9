"""The fold of events into rows."""

from __future__ import annotations

import json

import pytest

from agentos.abi import event as ev
from agentos.abi.canonical import canonical
from agentos.eventlog.port import Stored
from agentos.eventlog.subject import session_subject, stream_of
from agentos.projections.cells import MAX_ARGS
from agentos.projections.rows import Rows, take


@pytest.fixture
def fold():
    def run(*lines: bytes, session: str = "s-a", tenant: str = "default") -> Rows:
        rows = Rows(lambda table, key: None)
        subject = session_subject(session)
        for position, line in enumerate(lines, 1):
            take(rows, stream_of(subject), Stored(subject, position, line), tenant=tenant)
        return rows

    return run


def test_a_whole_session_becomes_its_rows(fold, record):
    """A session that reads, is denied, asks and is approved: counts, spend, decisions, the approval and the outcome."""
    rows = fold(*record.busy_session("s-a").stored)
    assert rows.faults == []
    session = rows.sessions[("s-a",)]
    assert (session["state"], session["agent"], session["actor"]) == ("finished", "triage", "principal/alice")
    assert (session["calls"], session["denied"], session["model_calls"]) == (2, 1, 1)
    assert (session["input_tokens"], session["output_tokens"], session["result"]) == (100, 10, "sorted")
    write = rows.syscalls[("s-a", "c3")]
    assert (write["decision"], write["asked"], write["outcome"]) == ("allow", 1, "finished")
    assert (write["approval_by"], write["approval_reason"]) == ("principal/anna", "looks right")
    assert json.loads(write["rules"]) == ["grants.approval", "syscall.approved"]
    assert rows.syscalls[("s-a", "c2")]["outcome"] == "denied"
    approval = rows.approvals[("s-a", "c3")]
    assert (approval["state"], approval["by"], approval["reason"]) == ("approved", "principal/anna", "looks right")
    assert {rule for rule, _, _, _ in rows.rules} == {"grants.granted", "grants.none", "grants.approval", "syscall.approved"}
    assert {(by, call) for by, _, _, call in rows.answers} == {("principal/anna", "c3")}


def test_a_session_that_waits_shows_what_it_waits_for(fold, record):
    """Until a person answers, the session waits, its call waits, and the approval is open."""
    chain = record.Chain("s-a")
    chain.created()
    chain.decided("c1", "write", "ask")
    chain.waiting("c1", needed=2)
    rows = fold(*chain.stored)
    assert (rows.sessions[("s-a",)]["state"], rows.sessions[("s-a",)]["waiting_call"]) == ("waiting", "c1")
    assert rows.syscalls[("s-a", "c1")]["outcome"] == "waiting"
    approval = rows.approvals[("s-a", "c1")]
    assert (approval["state"], approval["needed"], approval["given"], approval["answers"]) == ("waiting", 2, 0, "[]")
    assert approval["expires_ms"] - approval["asked_ms"] == 86_400_000
    assert (approval["decided"], approval["policy_digest"]) == (2, record.POLICY)


def test_two_people_are_two_answers(fold, record):
    """The first yes asks again, and stays in the row; both are found by their name, and stand in the call's row in order."""
    chain = record.Chain("s-a")
    chain.created()
    for given, who in enumerate(("anna", "bo")):
        chain.decided("c1", "write", "ask")
        chain.waiting("c1", needed=2, given=given)
        row = fold(*chain.stored).approvals[("s-a", "c1")]
        assert (row["state"], row["given"], len(json.loads(row["answers"]))) == ("waiting", given, given)
        chain.granted("c1", f"principal/{who}")
    rows = fold(*chain.stored)
    assert rows.faults == []
    assert rows.approvals[("s-a", "c1")]["given"] == 2
    assert [(one["by"], one["granted"]) for one in json.loads(rows.approvals[("s-a", "c1")]["answers"])] == [
        ("principal/anna", True),
        ("principal/bo", True),
    ]
    assert rows.syscalls[("s-a", "c1")]["approval_by"] == "principal/anna, principal/bo"
    assert {by for by, *_ in rows.answers} == {"principal/anna", "principal/bo"}


def test_a_yes_for_the_session_stands_by_the_calls_that_rest_on_it(fold, record):
    """A later call that nobody was asked about names who approved it, and is found by that name."""
    chain = record.Chain("s-a")
    chain.created()
    chain.decided("c1", "write", "ask")
    chain.waiting("c1")
    chain.granted("c1", scope="session", max_uses=5)
    claim = {"call": "c1", "by": "principal/anna", "reason": "looks right", "scope": "session"}
    for call in ("c1", "c2"):
        chain.decided(call, "write", "allow", approvals=[claim])
    rows = fold(*chain.stored)
    first, second = (json.loads(rows.syscalls[("s-a", call)]["approvals"]) for call in ("c1", "c2"))
    assert first == second == [claim | {"granted": True}]
    assert {call for _, _, _, call in rows.answers} == {"c1", "c2"}


def test_a_question_that_nobody_answered_is_a_denial(fold, record):
    """The approval is over, nobody is named, the call is denied once and says why, the session goes on."""
    chain = record.Chain("s-a")
    chain.created()
    chain.decided("c1", "write", "ask")
    chain.waiting("c1")
    chain.expired("c1")
    rows = fold(*chain.stored)
    assert (rows.approvals[("s-a", "c1")]["state"], rows.approvals[("s-a", "c1")]["by"]) == ("expired", None)
    call = rows.syscalls[("s-a", "c1")]
    assert (call["decision"], call["outcome"], call["error"]) == ("deny", "denied", "expired: nobody approved it in time")
    assert (rows.sessions[("s-a",)]["denied"], rows.sessions[("s-a",)]["state"]) == (1, "running")


def test_what_comes_with_a_decision_changes_no_row(fold, record):
    """A failure of policy and a notice are told by the decision that they belong to."""
    chain = record.short_session("s-a")
    before = fold(*chain.stored)
    chain.add(ev.POLICY_FAILED, {"call": "c1", "tool": "list", "reason": "late", "engine": "opa"})
    chain.add(ev.POLICY_NOTIFIED, {"call": "c1", "tool": "list", "rule": "a.b", "to": ["x"], "text": "look"})
    rows = fold(*chain.stored)
    assert (rows.faults, rows.syscalls) == ([], before.syscalls)


def test_a_persons_no_is_a_denial_counted_once(fold, record):
    """After a no the call's decision is deny, and a decision that repeats it does not count twice."""
    chain = record.Chain("s-a")
    chain.created()
    chain.decided("c1", "write", "ask")
    chain.waiting("c1")
    chain.rejected("c1")
    chain.decided("c1", "write", "deny", rules=("approval.denied",))
    rows = fold(*chain.stored)
    call = rows.syscalls[("s-a", "c1")]
    assert (call["decision"], call["asked"], call["outcome"], call["approval_by"]) == ("deny", 1, "denied", "principal/anna")
    assert (rows.sessions[("s-a",)]["denied"], rows.sessions[("s-a",)]["state"]) == (1, "running")


def test_an_open_question_ends_with_its_session(fold, record):
    """A cancelled session leaves no approval behind for anybody to answer."""
    chain = record.Chain("s-a")
    chain.created()
    chain.decided("c1", "write", "ask")
    chain.waiting("c1")
    chain.add(ev.SESSION_CANCELLED, {"reason": "enough"}, "principal/alice")
    rows = fold(*chain.stored)
    assert rows.approvals[("s-a", "c1")]["state"] == "withdrawn"
    assert rows.syscalls[("s-a", "c1")]["outcome"] == "withdrawn"
    session = rows.sessions[("s-a",)]
    assert (session["state"], session["error"], session["waiting_call"]) == ("cancelled", "enough", None)


@pytest.mark.parametrize(
    ("kind", "data", "state", "error"),
    [
        (ev.SESSION_FAILED, {"error": {"code": "model", "message": "gone"}}, "failed", "model: gone"),
        (ev.SESSION_HALTED, {"rules": ["r"], "reasons": ["one", "two"]}, "halted", "one; two"),
    ],
)
def test_ends_say_why(fold, record, kind, data, state, error):
    """A session that did not finish says why."""
    chain = record.Chain("s-a")
    chain.created()
    chain.add(kind, data)
    session = fold(*chain.stored).sessions[("s-a",)]
    assert (session["state"], session["error"]) == (state, error)


def test_outcomes_of_calls(fold, record):
    """Failed, unknown, refused, and finished with an error of the tool's own."""
    chain = record.Chain("s-a")
    chain.created()
    for call in ("failed", "unknown", "sad"):
        chain.decided(call, "write", "allow")
    error = {"code": "driver", "message": "no space"}
    chain.add(ev.SYSCALL_FAILED, {"call": "failed", "tool": "write", "error": error, "duration_us": 7})
    chain.add(ev.SYSCALL_UNKNOWN, {"call": "unknown", "tool": "write"})
    result = {"content": "not found", "is_error": True}
    chain.add(ev.SYSCALL_FINISHED, {"call": "sad", "tool": "write", "result": result, "duration_us": 9})
    refusal = {"code": "refused", "message": "no such tool"}
    chain.add(ev.SYSCALL_REFUSED, {"call": "odd", "tool": "wirte", "args_text": "{}", "error": refusal}, "agent/triage")
    rows = fold(*chain.stored)
    assert rows.faults == []
    found = {call: (row["outcome"], row["error"], row["duration_us"]) for (_, call), row in rows.syscalls.items()}
    assert found == {
        "failed": ("failed", "driver: no space", 7),
        "unknown": ("unknown", None, None),
        "sad": ("finished", "not found", 9),
        "odd": ("refused", "refused: no such tool", None),
    }
    assert rows.syscalls[("s-a", "odd")]["decision"] is None


def test_what_a_person_found_out_stands_in_place_of_unknown(fold, record):
    """Finished, failed or not run; of a call whose outcome is known nothing is found out."""
    chain = record.Chain("s-a")
    chain.created()
    for call in ("finished", "failed", "not-run", "known"):
        chain.decided(call, "write", "allow")
    for call in ("finished", "failed", "not-run"):
        chain.add(ev.SYSCALL_UNKNOWN, {"call": call, "tool": "write"})
        told = {"call": call, "tool": "write", "outcome": call, "reason": "I looked"}
        chain.add(ev.SYSCALL_RECONCILED, told, "principal/op")
    rows = fold(*chain.stored)
    assert rows.faults == []
    assert {call: (row["outcome"], row["error"]) for (_, call), row in rows.syscalls.items()} == {
        "finished": ("finished", None),
        "failed": ("failed", "failed: principal/op: I looked"),
        "not-run": ("failed", "not-run: principal/op: I looked"),
        "known": ("pending", None),
    }
    for call in ("known", "finished", "never"):
        chain.add(ev.SYSCALL_RECONCILED, {"call": call, "tool": "write", "outcome": "failed", "reason": "x"}, "principal/op")
    assert [fault[3] for fault in fold(*chain.stored).faults] == ["shape"] * 3


def test_a_paused_session_is_paused_until_it_is_resumed(fold, record):
    """Whatever comes between."""
    chain = record.Chain("s-a")
    chain.created()
    chain.decided("c1", "write", "allow")
    states = []
    for kind, data in (
        (ev.SESSION_PAUSED, {"reason": "wait"}),
        (ev.SYSCALL_UNKNOWN, {"call": "c1", "tool": "write"}),
        (ev.SESSION_RESUMED, {"reason": "go"}),
    ):
        chain.add(kind, data)
        states.append(fold(*chain.stored).sessions[("s-a",)]["state"])
    assert states == ["paused", "paused", "running"]


def test_a_session_moves_to_another_revision(fold, record):
    """The row names the revision in force."""
    chain = record.Chain("s-a")
    chain.created()
    chain.revision = 2
    chain.add(ev.SESSION_REVISED, {"from": 1, "to": 2})
    assert fold(*chain.stored).sessions[("s-a",)]["config_revision"] == 2


@pytest.mark.parametrize(
    "args",
    [{"text": "x" * 100_000}, {f"key-{i}": "y" * 200 for i in range(100)}, {"deep": [["z" * 300] * 50] * 5}],
    ids=["one long text", "many keys", "nested"],
)
def test_arguments_in_a_row_are_bounded_json(fold, record, args):
    """However large the arguments, the row holds valid JSON of bounded length."""
    chain = record.Chain("s-a")
    chain.created()
    chain.decided("c1", "write", "allow", args)
    text = fold(*chain.stored).syscalls[("s-a", "c1")]["args"]
    assert len(text) <= MAX_ARGS
    json.loads(text)


TAMPERED = {
    "dropped": (lambda lines: [lines[0], *lines[2:]], ["chain", "shape"]),
    "edited": (lambda lines: [lines[0].replace(b"sort", b"burn"), *lines[1:]], ["chain"]),
    "repeated": (lambda lines: [*lines, lines[-1]], ["chain", "shape"]),
    "foreign bytes": (lambda lines: [*lines, b"hello"], ["undecodable"]),
    "not canonical": (lambda lines: [lines[0].replace(b",", b", ", 1), *lines[1:]], ["undecodable", "chain"]),
    "not an object": (lambda lines: [*lines, b"[]"], ["undecodable"]),
    "no attributes": (lambda lines: [*lines, b"{}"], ["undecodable"]),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_what_does_not_fit_is_a_fault_and_stops_nothing(fold, record, case):
    """Dropped, edited, repeated, foreign: each is recorded where it lies, and the events behind it are folded."""
    tamper, kinds = TAMPERED[case]
    lines = tamper(record.short_session("s-a").stored)
    rows = fold(*lines)
    assert [fault[3] for fault in rows.faults] == kinds
    if case != "dropped":
        assert rows.syscalls[("s-a", "c1")]["outcome"] == "finished"


def test_the_chain_goes_on_behind_foreign_bytes(fold, record):
    """One undecodable message is one fault: an event that names its hash continues the chain."""
    chain = record.Chain("s-a")
    chain.created()
    chain.stored.append(b"hello")
    from agentos.abi.canonical import digest
    from agentos.abi.chain import Head

    chain.head = Head(2, digest(b"hello"))
    chain.decided("c1", "read", "allow")
    assert [fault[3] for fault in fold(*chain.stored).faults] == ["undecodable"]


def test_another_sessions_or_tenants_event_changes_no_row(fold, record):
    """An event under a subject or tenant that is not its own is a fault and changes no other row."""
    rows = fold(*record.short_session("s-b").stored, session="s-a")
    assert {fault[3] for fault in rows.faults} == {"foreign"}
    assert set(rows.sessions) == {("s-a",)}
    assert not rows.syscalls
    assert {fault[3] for fault in fold(*record.short_session("s-a").stored, tenant="acme").faults} == {"foreign"}


ODD_DATA = {
    "unknown type": ("agentos.session.danced", {}),
    "decided without decision": (ev.SYSCALL_DECIDED, {"call": "c9"}),
    "outcome of an unknown call": (ev.SYSCALL_FINISHED, {"call": "c9", "tool": "read", "duration_us": 1, "result": {}}),
    "answer to no question": (ev.APPROVAL_GRANTED, {"call": "c9", "reason": "yes"}),
    "a wait for no question": (ev.SESSION_WAITING, {"call": "c9", "expires": 1, "needed": 1, "given": 0}),
    "finished without result": (ev.SESSION_FINISHED, {}),
    "reason of another type": (ev.SESSION_CANCELLED, {"reason": 7}),
}


@pytest.mark.parametrize("case", ODD_DATA)
def test_an_event_of_another_shape_changes_nothing_but_is_recorded(fold, record, case):
    """An event that this version cannot read leaves the rows as they were, and is in the faults."""
    chain = record.short_session("s-a")
    before = fold(*chain.stored)
    chain.add(*ODD_DATA[case])
    rows = fold(*chain.stored)
    assert [fault[3] for fault in rows.faults] == ["shape"]
    assert rows.syscalls == before.syscalls
    ignored = {"seq", "head", "updated_ms"}
    after = {key: value for key, value in rows.sessions[("s-a",)].items() if key not in ignored}
    assert after == {key: value for key, value in before.sessions[("s-a",)].items() if key not in ignored}


def test_a_call_id_cannot_hide_an_earlier_call(fold, record):
    """A second call under the id of one that is over is a fault; the first one's row stays."""
    chain = record.short_session("s-a")
    chain.decided("c1", "send-mail", "allow", {"to": "eve"})
    refusal = {"code": "refused", "message": "no"}
    chain.add(ev.SYSCALL_REFUSED, {"call": "c1", "tool": "list", "args_text": "{}", "error": refusal})
    rows = fold(*chain.stored)
    assert [fault[3] for fault in rows.faults] == ["shape", "shape"]
    assert rows.syscalls[("s-a", "c1")]["tool"] == "list"
    assert rows.syscalls[("s-a", "c1")]["outcome"] == "finished"


def test_unusual_text_is_decoded(fold, record):
    """Text beyond the basic plane and numbers that only RFC 8785 writes so are no faults."""
    chain = record.Chain("s-a")
    chain.created()
    chain.decided("c1", "write", "allow", {"😀": 1e21, "\uffff": 0.5, "a": "\u2028"})
    assert fold(*chain.stored).faults == []
    assert canonical(1e21) == b"1e+21"
