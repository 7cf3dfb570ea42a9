"""Questions to the read model: filters, times, limits, and the indexes that answer them."""

from __future__ import annotations

import json
from itertools import combinations

import pytest
from jsonschema import Draft202012Validator

from agentos.abi import event as ev
from agentos.abi.assets import asset
from agentos.abi.chain import GENESIS
from agentos.abi.errors import UsageError
from agentos.abi.event import Event
from agentos.audit.query import COLUMNS, FILTERS, AuditQuery, ask, parse_moment, statement_of
from agentos.eventlog.port import Stored
from agentos.eventlog.subject import session_subject, stream_of
from agentos.projections.store import Store
from agentos.projections.text_store import TextStore

NOW = 1_795_000_100_000


@pytest.fixture
def models(tmp_path):
    made = Store.open(tmp_path / "default.db", tenant="default"), TextStore.open(tmp_path / "default.text.db", tenant="default")
    yield made
    for model in made:
        model.close()


def fill(models, *sessions) -> None:
    """Write `(session, lines)` into both models."""
    position = 0
    for session, lines in sessions:
        subject = session_subject(session)
        batch = []
        for line in lines:
            position += 1
            batch.append((stream_of(subject), Stored(subject, position, line)))
        for model in models:
            model.apply(batch)


@pytest.fixture
def store(models, fleet):
    fill(models, *fleet.sessions.items())
    return models[0]


def found(store, **params) -> list[str]:
    answer = ask(store, AuditQuery.parse(params, now_ms=NOW))
    return [f"{row['session']}/{row['call']}" for row in answer.rows]


ALL = ["s-busy/model-1", "s-short/c1", "s-busy/c1", "s-busy/c2", "s-busy/c3"]

QUESTIONS = [
    ({}, ALL),
    ({"agent": "clerk"}, ["s-short/c1"]),
    ({"agent": "nobody"}, []),
    ({"tool": "send-mail"}, ["s-busy/c2"]),
    ({"tool": "model-call"}, ["s-busy/model-1"]),
    ({"effect": "deny"}, ["s-busy/c2"]),
    ({"effect": "allow"}, ["s-busy/model-1", "s-short/c1", "s-busy/c1", "s-busy/c3"]),
    ({"effect": "ask"}, ["s-busy/c3"]),
    ({"effect": "halt"}, []),
    ({"session": "s-short"}, ["s-short/c1"]),
    ({"actor": "alice"}, ALL),
    ({"actor": "principal/anna"}, ["s-busy/c3"]),
    ({"rule": "grants.approval"}, ["s-busy/c3"]),
    ({"rule": "grants.none", "effect": "deny"}, ["s-busy/c2"]),
    ({"rule": "grants.none", "effect": "allow"}, []),
    ({"since": "2026-11-18T11:06:44Z"}, ["s-busy/c1", "s-busy/c2", "s-busy/c3"]),
    ({"until": "2026-11-18T12:06:44+01:00"}, ["s-busy/model-1", "s-short/c1"]),
    ({"since": "96s", "until": "95s"}, ["s-busy/c1"]),
    ({"since": "95s"}, ["s-busy/c2", "s-busy/c3"]),
    ({"since": "1h", "rule": "grants.none"}, ["s-busy/c2"]),
    ({"limit": 2}, ["s-busy/c2", "s-busy/c3"]),
]


@pytest.mark.parametrize(
    ("params", "expected"), QUESTIONS, ids=lambda value: json.dumps(value) if isinstance(value, dict) else ""
)
def test_each_filter_finds_its_rows(store, params, expected):
    """Rows come oldest first, exactly those that every filter lets through."""
    assert sorted(found(store, **params)) == sorted(expected)
    times = [row["time"] for row in ask(store, AuditQuery.parse(params, now_ms=NOW)).rows]
    assert times == sorted(times)


def test_a_limit_says_that_there_are_more(store):
    """Cutting is said; an answer that holds everything says so too."""
    assert ask(store, AuditQuery(limit=4)).more
    assert not ask(store, AuditQuery(limit=5)).more


@pytest.mark.parametrize("worded", [True, False])
def test_rows_are_what_the_schema_says(store, models, worded):
    """Each row validates, with its words and without, and schema and code name the same fields in the same order."""
    schema = json.loads((asset("schemas") / "v1" / "audit-row.json").read_text())
    validator = Draft202012Validator(schema)
    rows = ask(store, AuditQuery(), models[1] if worded else None).rows
    assert len(rows) == 5
    for row in rows:
        validator.validate(row)
        assert (*row, "erased") == (*COLUMNS, "erased") == tuple(schema["properties"]) == (*schema["required"], "erased")
        assert bool(row["reasons"]) == worded


def test_an_erased_session_is_said_to_be(store, models):
    """Its calls are found by who, what and when; their words are gone, which the row says."""
    data = {"sessions": ["s-busy"], "keys": []}
    stone = Event("a-1", "agentos.audit.erased", "default", "audit", 1, GENESIS, NOW, "principal/op", 1, None, data)
    for model in models:
        model.apply([("AUD", Stored("aud.chain", 1, stone.to_bytes()))])
    validator = Draft202012Validator(json.loads((asset("schemas") / "v1" / "audit-row.json").read_text()))
    rows = ask(store, AuditQuery(), models[1]).rows
    assert {row["session"]: row.get("erased", False) for row in rows} == {"s-busy": True, "s-short": False}
    for row in rows:
        validator.validate(row)
        assert bool(row["reasons"]) == (row["session"] == "s-short")


def test_refused_calls_are_listed_too(models, record):
    """A malformed call never reached policy; the record of it is found all the same, by the name that the model gave to the tool,
    in its place among the others, and fits the schema."""
    chain = record.Chain("s-a")
    chain.created()
    refusal = {"code": "refused", "message": "no such tool"}
    chain.add(ev.SYSCALL_REFUSED, {"call": "c1", "tool": "wirte", "args_text": "{}", "error": refusal}, "agent/triage")
    chain.decided("c2", "wirte", "allow")
    fill(models, ("s-a", chain.stored))
    row, later = ask(models[0], AuditQuery(tool="wirte"), models[1]).rows
    assert (later["call"], later["outcome"]) == ("c2", "pending")
    assert ask(models[0], AuditQuery(tool="wirte", limit=1), models[1]).more
    for filters in ({"agent": "triage"}, {"actor": "principal/alice"}, {"session": "s-a"}):
        assert len(ask(models[0], AuditQuery(tool="wirte", **filters), models[1]).rows) == 2
    for filters in ({"agent": "clerk"}, {"actor": "principal/bo"}, {"session": "s-b"}, {"until_ms": 5}, {"since_ms": NOW}):
        assert not ask(models[0], AuditQuery(tool="wirte", **filters), models[1]).rows
    assert (row["outcome"], row["decision"], row["error"]) == ("refused", None, "refused: no such tool")
    Draft202012Validator(json.loads((asset("schemas") / "v1" / "audit-row.json").read_text())).validate(row)


def test_every_question_is_answered_from_an_index(store):
    """No combination of filters reads the whole table or sorts it: a million rows answer as five do."""
    values = {
        "since": "7d",
        "until": "1s",
        "agent": "a",
        "tool": "t",
        "effect": "deny",
        "session": "s",
        "actor": "p",
        "rule": "r",
    }
    assert set(values) == set(FILTERS)
    with store.reader() as connection:
        for count in range(4):
            for names in combinations(values, count):
                for effect in ("deny", "ask"):
                    given = {name: values[name] for name in names} | ({"effect": effect} if "effect" in names else {})
                    statement, bound = statement_of(AuditQuery.parse(given, now_ms=NOW))
                    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", bound)]
                    read = [step for step in plan if step.startswith(("SCAN s", "SEARCH s", "SCAN r", "SEARCH r"))]
                    assert read
                    assert all("INDEX" in step or "PRIMARY KEY" in step for step in read), (given, plan)
                    narrow = {"agent", "tool", "effect"} & set(names)
                    if narrow and not {"session", "actor", "rule"} & set(names):
                        # All of the filters are in the index: no call is looked at that is not in the answer.
                        columns = [
                            {"effect": "decision"}.get(name, name) for name in ("agent", "tool", "effect") if name in narrow
                        ]
                        equal = [f"{column}=?" for column in columns if (column, effect) != ("decision", "ask")]
                        assert any(" AND ".join(equal) in step for step in read), (given, plan)
                    if not {"session", "actor"} & set(names):
                        assert "USE TEMP B-TREE FOR ORDER BY" not in plan, (given, plan)
            # An actor is looked for in two places: each half comes in the order of its index and is cut before both are merged.
            statement, bound = statement_of(AuditQuery.parse({"actor": "p"}, now_ms=NOW))
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", bound)]
            assert plan.count("USE TEMP B-TREE FOR RIGHT PART OF ORDER BY") == 2


def test_each_of_several_approvers_is_found(models, record):
    """Who answered is a list: any of them finds the call, alone, with a rule and for the whole session's later calls."""
    chain = record.Chain("s-a")
    chain.created()
    for given, who in enumerate(("anna", "bo")):
        chain.decided("c1", "write", "ask", rules=("eyes.two",))
        chain.waiting("c1", needed=2, given=given)
        chain.granted("c1", f"principal/{who}", scope="session", max_uses=9)
    claims = [{"call": "c1", "by": f"principal/{who}", "reason": "looks right", "scope": "session"} for who in ("anna", "bo")]
    for call in ("c1", "c2"):
        chain.decided(call, "write", "allow", rules=("eyes.two", "syscall.approved"), approvals=claims)
    chain.decided("c3", "write", "allow")
    fill(models, ("s-a", chain.stored))
    store, text = models
    for who in ("anna", "bo"):
        assert found(store, actor=who) == found(store, actor=who, rule="eyes.two") == ["s-a/c1", "s-a/c2"]
        assert found(store, actor=who, session="s-a", limit=1) == ["s-a/c2"]
    assert found(store, actor="carl") == found(store, actor="carl", rule="eyes.two") == []
    rows = ask(store, AuditQuery(actor="principal/bo"), text).rows
    assert [row["approval_by"] for row in rows] == ["principal/anna, principal/bo"] * 2
    validator = Draft202012Validator(json.loads((asset("schemas") / "v1" / "audit-row.json").read_text()))
    for row in rows:
        validator.validate(row)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15m", NOW - 900_000),
        ("2h", NOW - 7_200_000),
        ("7d", NOW - 604_800_000),
        ("1w", NOW - 604_800_000),
        ("0s", NOW),
        ("2026-11-18T11:06:41Z", 1_795_000_001_000),
        ("2026-11-18T12:06:41.500+01:00", 1_795_000_001_500),
    ],
)
def test_times_are_ago_or_rfc3339(text, expected):
    """So many units ago, or a moment with its zone."""
    assert parse_moment(text, now_ms=NOW) == expected


@pytest.mark.parametrize("text", ["yesterday", "15", "-5m", "2h30m", "2026-11-18T11:06:41", "9999999999d", "٣m", ""])
def test_other_times_are_refused_with_a_way_out(text):
    """Whatever is no time says how to write one."""
    with pytest.raises(UsageError) as caught:
        parse_moment(text, now_ms=NOW)
    assert "15m" in (caught.value.mend or "")


@pytest.mark.parametrize(
    "params",
    [
        {"colour": "red"},
        {"limit": 0},
        {"limit": 10_001},
        {"limit": "9"},
        {"limit": True},
        {"agent": 7},
        {"effect": "maybe"},
        {"tool": ""},
    ],
    ids=json.dumps,
)
def test_odd_questions_are_refused(params):
    """Unknown filters, wrong types and odd values are said, not ignored."""
    with pytest.raises(UsageError):
        AuditQuery.parse(params, now_ms=NOW)


def test_values_never_become_sql(store):
    """What the caller says is a value, whatever it looks like."""
    for name in set(FILTERS) - {"since", "until", "effect"}:
        assert found(store, **{name: "x' OR '1'='1"}) == []
