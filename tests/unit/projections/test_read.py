"""What the read models answer together: today's rows, with the words where there are any."""

from __future__ import annotations

import json

import pytest

from agentos.abi import event as ev
from agentos.abi.assets import asset
from agentos.projections import read
from agentos.projections.cells import MAX_ARGS
from agentos.projections.store import Store
from agentos.projections.text_store import TextStore


@pytest.fixture
def models(tmp_path):
    made = Store.open(tmp_path / "default.db", tenant="default"), TextStore.open(tmp_path / "default.text.db", tenant="default")
    yield made
    for model in made:
        model.close()


@pytest.fixture(params=["open", "records"])
def fill(request, models, written, stream_of_sessions):
    """Write whole sessions into both models."""

    def run(*chains, more=()) -> None:
        events = stream_of_sessions(*(written(request.param, chain.stored) for chain in chains))
        for model in models:
            model.apply([*events, *more])

    return run


def test_what_is_read(models, fill, record):
    """Sessions newest first and by filter, syscalls in order, approvals by state, texts and values in their place."""
    fill(record.busy_session("s-busy"), record.short_session("s-short"))
    index, text = models
    assert [row["id"] for row in read.sessions(index, text)] == ["s-short", "s-busy"]
    assert [row["id"] for row in read.sessions(index, live_only=True)] == ["s-short"]
    assert [row["id"] for row in read.sessions(index, agent="triage", state="finished")] == ["s-busy"]
    assert read.session(index, "s-none", text) is None
    session = read.session(index, "s-busy", text)
    assert (session["goal"], session["result"], session["error"]) == ("sort the inbox", "sorted", None)
    calls = {row["call"]: row for row in read.syscalls(index, "s-busy", text)}
    assert list(calls) == ["model-1", "c1", "c2", "c3"]
    assert calls["c3"]["args"] == {"path": "out/report.md", "text": "=SUM(A1)"}
    assert calls["c3"]["reasons"] == ["because of grants.approval", "because of syscall.approved"]
    assert (calls["c3"]["approval_by"], calls["c3"]["approval_reason"]) == ("principal/anna", "looks right")
    yes = {"call": "c3", "by": "principal/anna", "reason": "looks right", "granted": True, "scope": "once"}
    assert (calls["c3"]["approvals"], calls["c1"]["approvals"]) == ([yes], [])
    assert read.approvals(index, text) == []
    (approval,) = read.approvals(index, text, state=None)
    assert (approval["args"]["path"], approval["reasons"]) == ("out/report.md", ["because of grants.approval"])
    assert (approval["state"], approval["by"], approval["reason"]) == ("approved", "principal/anna", "looks right")
    assert approval["answers"][0]["reason"] == "looks right"
    assert approval["args_digest"] == calls["c3"]["args_digest"]
    assert read.faults(index, text) == []
    assert not any("erased" in row for row in [session, approval, *calls.values()])
    for kind, row in (("session-row", session), ("approval-row", approval)):
        shape = json.loads((asset("schemas") / "v1" / f"{kind}.json").read_text())
        assert tuple(row) == tuple(name for name in shape["properties"] if name not in ("erased", "diff"))


def test_without_words_the_rows_are_there(models, fill, record):
    """The index alone answers, every text empty."""
    fill(record.busy_session("s-busy"))
    index, _ = models
    session = read.session(index, "s-busy")
    assert (session["state"], session["goal"], session["result"]) == ("finished", "", None)
    call = read.syscalls(index, "s-busy")[-1]
    assert (call["decision"], call["args"], call["args_digest"], call["reasons"]) == ("allow", None, None, [])
    assert (call["approval_by"], call["approval_reason"]) == ("principal/anna", "")
    (approval,) = read.approvals(index, state=None)
    assert (approval["args"], approval["args_digest"], approval["answers"][0]["reason"]) == (None, "", "")


def test_an_erased_session_keeps_its_rows_and_loses_its_words(models, fill, record, tombstones_of):
    """Who, what, when and which rules stay; `erased` says why nothing else does. Another session keeps its words."""
    fill(record.busy_session("s-busy"), record.short_session("s-short"), more=tombstones_of(["s-busy"]))
    index, text = models
    session = read.session(index, "s-busy", text)
    assert (session["erased"], session["state"], session["goal"], session["result"]) == (True, "finished", "", None)
    for call in read.syscalls(index, "s-busy", text):
        assert (call["erased"], call["args"], call["reasons"], call["error"]) == (True, None, [], None)
    assert read.approvals(index, text, state=None)[0]["erased"]
    other = read.session(index, "s-short", text)
    assert "erased" not in other
    assert other["goal"] == "sort the inbox"
    assert set(session) - {"erased"} == set(other)


@pytest.mark.parametrize(
    ("kind", "data", "state", "error"),
    [
        (ev.SESSION_FAILED, {"error": {"code": "model", "message": "gone"}}, "failed", "model: gone"),
        (ev.SESSION_HALTED, {"rules": ["r"], "reasons": ["one", "two"]}, "halted", "one; two"),
        (ev.SESSION_CANCELLED, {"reason": "enough"}, "cancelled", "enough"),
    ],
)
def test_ends_say_why(models, fill, record, kind, data, state, error):
    """A session that did not finish says why."""
    chain = record.Chain("s-a")
    chain.created()
    chain.add(kind, data)
    fill(chain)
    session = read.session(models[0], "s-a", models[1])
    assert (session["state"], session["error"]) == (state, error)


def test_calls_say_what_went_wrong(models, fill, record):
    """Failed, refused, expired, settled by a person, and finished with an error of the tool's own."""
    chain = record.Chain("s-a")
    chain.created()
    for call in ("failed", "settled", "sad", "found"):
        chain.decided(call, "write", "allow")
    error = {"code": "driver", "message": "no space"}
    chain.add(ev.SYSCALL_FAILED, {"call": "failed", "tool": "write", "error": error, "duration_us": 7})
    for call, outcome in (("settled", "not-run"), ("found", "finished")):
        chain.add(ev.SYSCALL_UNKNOWN, {"call": call, "tool": "write"})
        told = {"call": call, "tool": "write", "outcome": outcome, "reason": "I looked"}
        chain.add(ev.SYSCALL_RECONCILED, told, "principal/op")
    result = {"content": "not found", "is_error": True}
    chain.add(ev.SYSCALL_FINISHED, {"call": "sad", "tool": "write", "result": result, "duration_us": 9})
    refusal = {"code": "refused", "message": "no such tool"}
    chain.add(ev.SYSCALL_REFUSED, {"call": "odd", "tool": "wirte", "args_text": "{}", "error": refusal}, "agent/triage")
    chain.decided("late", "write", "ask")
    chain.waiting("late")
    chain.expired("late")
    fill(chain)
    index, text = models
    assert read.faults(index, text) == []
    rows = {row["call"]: row for row in read.syscalls(index, "s-a", text)}
    assert {call: row["error"] for call, row in rows.items()} == {
        "failed": "driver: no space",
        "settled": "not-run: principal/op: I looked",
        "sad": "not found",
        "found": None,
        "odd": "refused: no such tool",
        "late": "expired: nobody approved it in time",
    }
    assert (rows["odd"]["tool"], rows["odd"]["args"], rows["odd"]["args_digest"]) == ("wirte", "{}", None)


def test_a_yes_for_the_session_stands_by_the_calls_that_rest_on_it(models, fill, record):
    """A later call that nobody was asked about shows who approved it, of which call, and why."""
    chain = record.Chain("s-a")
    chain.created()
    chain.decided("c1", "write", "ask")
    chain.waiting("c1")
    chain.granted("c1", scope="session", max_uses=5)
    claim = {"call": "c1", "by": "principal/anna", "reason": "looks right", "scope": "session"}
    for call in ("c1", "c2"):
        chain.decided(call, "write", "allow", approvals=[claim])
    fill(chain)
    first, second = read.syscalls(models[0], "s-a", models[1])
    assert first["approvals"] == second["approvals"] == [claim | {"granted": True}]


@pytest.mark.parametrize(
    "args",
    [{"text": "x" * 100_000}, {f"key-{i}": "y" * 200 for i in range(100)}, {"deep": [["z" * 300] * 50] * 5}],
    ids=["one long text", "many keys", "nested"],
)
def test_arguments_in_a_row_are_bounded(models, fill, record, args):
    """However large the arguments, the row has a value of bounded size."""
    chain = record.Chain("s-a")
    chain.created()
    chain.decided("c1", "write", "allow", args)
    fill(chain)
    (call,) = read.syscalls(models[0], "s-a", models[1])
    assert len(json.dumps(call["args"], ensure_ascii=False, separators=(",", ":"))) <= MAX_ARGS


def test_unusual_text_is_read(models, fill, record):
    """Text beyond the basic plane and numbers that only RFC 8785 writes so are no faults."""
    chain = record.Chain("s-a")
    chain.created()
    args = {"\U0001f600": 1e21, "\uffff": 0.5, "a": "\u2028"}
    chain.decided("c1", "write", "allow", args)
    fill(chain)
    assert read.faults(*models) == []
    assert read.syscalls(models[0], "s-a", models[1])[0]["args"] == args


def test_questions_are_due_when_their_time_is_over(models, fill, record):
    """The longest over first, then when the next one ends; answered ones are never due."""
    chains = {name: record.Chain(f"s-{name}") for name in ("late", "later", "answered", "open")}
    for minutes, chain in enumerate(chains.values(), 1):
        chain.created()
        chain.decided("c1", "write", "ask")
        chain.waiting("c1", minutes=minutes)
    chains["answered"].granted("c1")
    fill(*chains.values())
    asked = record.START_MS + 2000
    index = models[0]
    assert read.due(index, now_ms=asked) == ([], asked + 60_000)
    assert read.due(index, now_ms=asked + 120_000) == (["s-late", "s-later"], asked + 240_000)
    assert read.due(index, now_ms=asked + 240_000) == (["s-late", "s-later", "s-open"], None)


def test_spend_is_read_by_day_and_agent(models, fill, record):
    """Sums of the days from `since` until before `until`, of one agent or all."""
    fill(record.busy_session("s-busy"), record.short_session("s-short"))
    index = models[0]
    assert [(row["agent"], row["tool"], row["calls"]) for row in read.spend(index)] == [
        ("clerk", "list", 1),
        ("triage", "model-call", 1),
        ("triage", "read", 1),
        ("triage", "write", 1),
    ]
    assert [row["tool"] for row in read.spend(index, agent="clerk")] == ["list"]
    assert read.spend(index, since="2026-11-19") == read.spend(index, until="2026-11-18") == []
