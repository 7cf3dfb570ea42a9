"""The fold of headers into rows: what counts, and no words."""

from __future__ import annotations

import json

import pytest

from agentos.abi import event as ev
from agentos.eventlog.port import Stored
from agentos.eventlog.subject import session_subject, stream_of
from agentos.projections.rows import Rows, take


@pytest.fixture(params=["open", "records", "headers"])
def fold(request, written):
    """Fold stored events: open ones, records with their payload, or the headers that are left of them."""

    def run(*lines: bytes, session: str = "s-a", tenant: str = "default") -> Rows:
        return fold_stored(*written(request.param, lines), session=session, tenant=tenant)

    return run


@pytest.fixture
def fold_lines():
    """Fold bytes as they are."""
    return fold_stored


def fold_stored(*lines: bytes, session: str = "s-a", tenant: str = "default") -> Rows:
    rows = Rows(lambda table, key: None)
    subject = session_subject(session)
    for position, line in enumerate(lines, 1):
        take(rows, stream_of(subject), Stored(subject, position, line), tenant=tenant)
    return rows


def test_a_whole_session_becomes_its_rows(fold, record):
    """A session that reads, is denied, asks and is approved: counts, spend, decisions, the approval and the outcome."""
    rows = fold(*record.busy_session("s-a").stored)
    assert rows.faults == []
    session = rows.sessions[("s-a",)]
    assert (session["state"], session["agent"], session["actor"]) == ("finished", "triage", "principal/alice")
    assert (session["calls"], session["denied"], session["model_calls"]) == (2, 1, 1)
    assert (session["input_tokens"], session["output_tokens"]) == (100, 10)
    write = rows.syscalls[("s-a", "c3")]
    assert (write["decision"], write["asked"], write["outcome"]) == ("allow", 1, "finished")
    assert write["approval_by"] == "principal/anna"
    assert json.loads(write["rules"]) == ["grants.approval", "syscall.approved"]
    assert rows.syscalls[("s-a", "c2")]["outcome"] == "denied"
    approval = rows.approvals[("s-a", "c3")]
    assert (approval["state"], approval["by"]) == ("approved", "principal/anna")
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
    assert first == second == [{"by": "principal/anna", "granted": True, "scope": "session"}]
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
    assert (call["decision"], call["outcome"]) == ("deny", "denied")
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
    assert (session["state"], session["ended"], session["waiting_call"]) == ("cancelled", 4, None)


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
    found = {call: (row["outcome"], row["tool"], row["duration_us"]) for (_, call), row in rows.syscalls.items()}
    assert found == {
        "failed": ("failed", "write", 7),
        "unknown": ("unknown", "write", None),
        "sad": ("finished", "write", 9),
        "odd": ("refused", None, None),
    }
    assert rows.syscalls[("s-a", "odd")]["decision"] is None


def test_what_was_used_is_added_up_by_day_agent_tool_and_model(fold, record):
    """Calls that came to an outcome, failed ones among them; tokens where the model was asked; a denied call used nothing."""
    chain = record.busy_session("s-a")
    rows = fold(*chain.stored)
    day = "2026-11-18"
    assert set(rows.spend) == {(day, "triage", "model-call", "fast"), (day, "triage", "read", ""), (day, "triage", "write", "")}
    model = rows.spend[day, "triage", "model-call", "fast"]
    assert (model["calls"], model["failed"], model["input_tokens"], model["output_tokens"]) == (1, 0, 100, 10)
    assert rows.spend[day, "triage", "read", ""]["duration_us"] == 1500
    failed = record.Chain("s-a")
    failed.created()
    failed.decided("c1", "write", "allow")
    error = {"code": "driver", "message": "no"}
    failed.add(ev.SYSCALL_FAILED, {"call": "c1", "tool": "write", "error": error, "duration_us": 3})
    (sums,) = fold(*failed.stored).spend.values()
    assert (sums["calls"], sums["failed"], sums["duration_us"]) == (1, 1, 3)


def test_rows_hold_no_words(fold, record):
    """Nothing that a person or a model wrote is in any row: no goal, argument, result, reason, error, nor a digest of one."""
    chain = record.Chain("s-a")
    secret = "Xanthippe"
    created = {"agent": "triage", "goal": secret, "inputs": []}
    chain.add(ev.SESSION_CREATED, created, "principal/alice")
    chain.decided("c1", "write", "ask", {"text": secret}, rules=("eyes.two",))
    digests = {chain._asked()["args_digest"]}
    chain.waiting("c1")
    chain.granted("c1", reason=secret)
    chain.decided("c1", "write", "allow", {"text": secret})
    chain.finished("c1", "write", secret)
    chain.add(
        ev.SYSCALL_REFUSED, {"call": "c2", "tool": secret, "args_text": secret, "error": {"code": "refused", "message": secret}}
    )
    chain.decided("c3", "write", "allow")
    chain.add(
        ev.SYSCALL_FAILED, {"call": "c3", "tool": "write", "error": {"code": "driver", "message": secret}, "duration_us": 1}
    )
    chain.decided("c4", "write", "allow")
    chain.add(ev.SYSCALL_UNKNOWN, {"call": "c4", "tool": "write"})
    chain.add(ev.SYSCALL_RECONCILED, {"call": "c4", "tool": "write", "outcome": "failed", "reason": secret}, "principal/op")
    chain.add(ev.SESSION_PAUSED, {"reason": secret}, "principal/op")
    chain.add(ev.SESSION_CANCELLED, {"reason": secret}, "principal/op")
    rows = fold(*chain.stored)
    assert rows.faults == []
    kept = repr([rows.sessions, rows.syscalls, rows.approvals, rows.spend, rows.rules, rows.answers])
    assert "eyes.two" in kept
    assert secret not in kept
    assert not any(digest in kept for digest in digests)


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
    assert {call: row["outcome"] for (_, call), row in rows.syscalls.items()} == {
        "finished": "finished",
        "failed": "failed",
        "not-run": "failed",
        "known": "pending",
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


def test_a_deferred_session_is_deferred_until_it_begins(fold, record):
    """Its row says what it waits for, also while it is paused, which a beginning does not end."""
    begun = {"agent": "clerk", "goal": "later", "inputs": []}
    chain = record.Chain("s-a")
    chain.add(ev.SESSION_CREATED, begun | {"deferred": {"after": ["s-0"], "not_before": 7}})
    seen = []
    for kind, data in (
        (ev.SESSION_PAUSED, {"reason": "wait"}),
        (ev.SESSION_RESUMED, {"reason": "go"}),
        (ev.SESSION_BEGUN, {"outcomes": {"s-0": "finished"}}),
    ):
        row = fold(*chain.stored).sessions[("s-a",)]
        seen.append((row["state"], row["deferred"]))
        chain.add(kind, data)
    waits = '{"after":["s-0"],"not_before":7}'
    assert seen == [("deferred", waits), ("paused", waits), ("deferred", waits)]
    rows = fold(*chain.stored)
    assert (rows.sessions[("s-a",)]["state"], rows.sessions[("s-a",)]["deferred"], rows.faults) == ("running", None, [])
    chain = record.Chain("s-a")
    chain.add(ev.SESSION_CREATED, begun | {"deferred": {"not_before": 7}})
    chain.add(ev.SESSION_PAUSED, {"reason": "wait"})
    chain.add(ev.SESSION_BEGUN, {"outcomes": {}})
    assert fold(*chain.stored).sessions[("s-a",)]["state"] == "paused"


def test_a_session_moves_to_another_revision(fold, record):
    """The row names the revision in force."""
    chain = record.Chain("s-a")
    chain.created()
    chain.revision = 2
    chain.add(ev.SESSION_REVISED, {"from": 1, "to": 2})
    assert fold(*chain.stored).sessions[("s-a",)]["config_revision"] == 2


TAMPERED = {
    "dropped": (lambda lines: [lines[0], *lines[2:]], ["chain", "shape"]),
    "edited": (lambda lines: [lines[0].replace(b"clerk", b"judge"), *lines[1:]], ["chain"]),
    "repeated": (lambda lines: [*lines, lines[-1]], ["chain", "shape"]),
    "foreign bytes": (lambda lines: [*lines, b"hello"], ["undecodable"]),
    "not canonical": (lambda lines: [lines[0].replace(b",", b", ", 1), *lines[1:]], ["undecodable", "chain"]),
    "not an object": (lambda lines: [*lines, b"[]"], ["undecodable"]),
    "no attributes": (lambda lines: [*lines, b"{}"], ["undecodable"]),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_what_does_not_fit_is_a_fault_and_stops_nothing(fold_lines, record, case):
    """Dropped, edited, repeated, foreign: each is recorded where it lies, and the events behind it are folded."""
    tamper, kinds = TAMPERED[case]
    lines = tamper(record.short_session("s-a").stored)
    rows = fold_lines(*lines)
    assert [fault[3] for fault in rows.faults] == kinds
    if case != "dropped":
        assert rows.syscalls[("s-a", "c1")]["outcome"] == "finished"


def test_the_chain_goes_on_behind_foreign_bytes(fold_lines, record):
    """One undecodable message is one fault: an event that names its hash continues the chain."""
    chain = record.Chain("s-a")
    chain.created()
    chain.stored.append(b"hello")
    from agentos.abi.canonical import digest
    from agentos.abi.chain import Head

    chain.head = Head(2, digest(b"hello"))
    chain.decided("c1", "read", "allow")
    assert [fault[3] for fault in fold_lines(*chain.stored).faults] == ["undecodable"]


def test_a_changed_payload_is_not_the_indexs_to_tell(fold_lines, record, written):
    """Headers alone are folded: another payload beside a header changes no row and is no fault here; the text model finds it."""
    lines = written("records", record.short_session("s-a").stored)
    sound = fold_lines(*lines)
    changed = fold_lines(*(line.replace(b"sort", b"burn") for line in lines))
    assert (changed.faults, changed.syscalls) == ([], sound.syscalls)


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
    "failed without a duration": (ev.SYSCALL_FAILED, {"call": "c1", "tool": "list", "error": {}}),
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
