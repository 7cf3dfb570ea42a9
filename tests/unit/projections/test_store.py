"""The SQLite file of a read model: batches, repeats, schema versions, broken files."""

from __future__ import annotations

import sqlite3
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos.abi import event as ev
from agentos.projections import read
from agentos.projections.store import APPLICATION_ID, SCHEMA_VERSION, Store

KINDS = (
    "allow",
    "deny",
    "ask",
    "finish",
    "fail",
    "unknown",
    "refuse",
    "grant",
    "reject",
    "expire",
    "waiting",
    "model",
    "end",
    "junk",
    "gap",
)


@pytest.fixture
def store(tmp_path):
    made = Store.open(tmp_path / "read" / "default.db", tenant="default")
    yield made
    made.close()


@pytest.fixture
def batch(record, stream_of_sessions):
    return stream_of_sessions(record.busy_session("s-busy").stored, record.short_session("s-short").stored)


def _step(chain, kind: str, call: str) -> None:
    error = {"code": "driver", "message": "no"}
    match kind:
        case "allow" | "deny" | "ask":
            chain.decided(call, "write", kind)
        case "finish":
            chain.finished(call, "write")
        case "fail":
            chain.add(ev.SYSCALL_FAILED, {"call": call, "tool": "write", "error": error, "duration_us": 3})
        case "unknown":
            chain.add(ev.SYSCALL_UNKNOWN, {"call": call, "tool": "write"})
        case "refuse":
            chain.add(ev.SYSCALL_REFUSED, {"call": call, "tool": "wirte", "args_text": "{}", "error": error})
        case "grant":
            chain.granted(call)
        case "reject":
            chain.rejected(call)
        case "expire":
            chain.expired(call)
        case "waiting":
            chain.waiting(call)
        case "model":
            chain.model(chain.head.seq)
        case "end":
            chain.add(ev.SESSION_FINISHED, {"result": "done"})
        case "junk":
            chain.add("agentos.session.danced", {})
        case "gap":
            chain.add(ev.SESSION_OWNED, {"epoch": 1})
            chain.stored.pop()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["s-a", "s-b"]), st.sampled_from(KINDS), st.sampled_from(["c1", "c2"])), max_size=40
    ),
    cuts=st.lists(st.integers(1, 7), min_size=1, max_size=40),
)
def test_rebuilt_equals_incremental(record, stream_of_sessions, tables_of, tmp_path_factory, steps, cuts):
    """Whatever happened, in order or not: rows written batch by batch are the rows that one reading of the log gives."""
    chains = {name: record.Chain(name) for name in ("s-a", "s-b")}
    for chain in chains.values():
        chain.created()
    for name, kind, call in steps:
        _step(chains[name], kind, call)
    events = stream_of_sessions(*(chain.stored for chain in chains.values()))
    folder = tmp_path_factory.mktemp("read")
    whole, pieces = (Store.open(folder / f"{name}.db", tenant="default") for name in ("whole", "pieces"))
    whole.apply(events)
    left = events
    for cut in [*cuts, len(events)]:
        pieces.apply(left[:cut])
        left = left[cut:]
    try:
        assert tables_of(whole) == tables_of(pieces)
        rows = {name: read.syscalls(whole, name) for name in chains}
        for session in read.sessions(whole):
            calls = rows[session["id"]]
            assert session["model_calls"] == sum(row["tool"] == "model-call" for row in calls)
            assert session["input_tokens"] == 100 * session["model_calls"]
    finally:
        whole.close()
        pieces.close()


def test_a_batch_that_comes_again_changes_nothing(store, batch, tables_of):
    """After a crash between batches the same events come again: no row is doubled, nothing is counted twice."""
    store.apply(batch)
    before = tables_of(store)
    store.apply(batch)
    store.apply(batch[:5])
    assert tables_of(store) == before


def test_a_batch_is_stored_whole_or_not_at_all(store, batch, tables_of, monkeypatch):
    """A failure in the middle of a batch leaves rows and positions of the batch before."""
    store.apply(batch[:4])
    before = tables_of(store)
    monkeypatch.setattr("agentos.projections.store._write", _write_some)
    with pytest.raises(sqlite3.OperationalError):
        store.apply(batch[4:])
    monkeypatch.undo()
    assert tables_of(store) == before
    store.apply(batch[4:])
    assert read.session(store, "s-busy")["state"] == "finished"


def _write_some(connection, rows, positions) -> None:
    connection.execute("UPDATE sessions SET calls = 99")
    raise sqlite3.OperationalError("database or disk is full")


def test_the_file_is_stamped_private_and_in_wal_mode(store):
    """The file says what it is and which version, and belongs to its owner alone."""
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    with store.reader() as connection:
        found = [
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version", "journal_mode")
        ]
    assert found == [APPLICATION_ID, SCHEMA_VERSION, "wal"]


def _older(path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION - 1}")
    connection.close()


def _newer(path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()


def _tableless(path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE approvals")
    connection.close()


UNUSABLE = {
    "older version": _older,
    "newer version": _newer,
    "a table is missing": _tableless,
    "not a database": lambda path: path.write_bytes(b"this is no database" * 100),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "empty": lambda path: path.write_bytes(b""),
    "zeros inside": lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(len(path.read_bytes()) - 4096)),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_file_is_built_anew(tmp_path, batch, tables_of, case):
    """A file of another version or one that is broken is dropped; reading the log again gives the same rows."""
    path = tmp_path / "default.db"
    store = Store.open(path, tenant="default")
    store.apply(batch)
    expected = tables_of(store)
    store.close()
    UNUSABLE[case](path)
    again = Store.open(path, tenant="default")
    try:
        assert again.positions() == {}
        again.apply(batch)
        assert tables_of(again) == expected
    finally:
        again.close()


def test_a_sound_file_is_kept(tmp_path, batch):
    """Opening the same version again goes on from the stored positions."""
    path = tmp_path / "default.db"
    store = Store.open(path, tenant="default")
    positions = store.apply(batch)
    store.close()
    again = Store.open(path, tenant="default")
    assert again.positions() == positions
    again.close()


def test_another_tenants_file_is_not_taken(tmp_path, batch):
    """A file copied from another tenant is dropped: no tenant reads another's rows."""
    path = tmp_path / "acme.db"
    store = Store.open(path, tenant="default")
    store.apply(batch)
    store.close()
    again = Store.open(path, tenant="acme")
    assert read.sessions(again) == []
    again.close()


def test_clear_forgets_everything_and_readers_see_whole_states(store, batch, tables_of):
    """A reader that began before a clear keeps its rows; the next one sees none."""
    store.apply(batch)
    with store.reader() as connection:
        connection.execute("BEGIN")
        held = connection.execute("SELECT count(*) FROM syscalls").fetchone()[0]
        store.clear()
        assert connection.execute("SELECT count(*) FROM syscalls").fetchone()[0] == held > 0
    assert {name: len(rows) for name, rows in tables_of(store).items()} == dict.fromkeys(tables_of(store), 0)
    assert store.positions() == {}


def test_a_reader_cannot_write(store):
    """Readers have no way to change the read model."""
    with store.reader() as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM sessions")


def test_what_is_read(store, batch):
    """Sessions newest first and by filter, syscalls in order, approvals by state, JSON as values."""
    store.apply(batch)
    assert [row["id"] for row in read.sessions(store)] == ["s-short", "s-busy"]
    assert [row["id"] for row in read.sessions(store, live_only=True)] == ["s-short"]
    assert [row["id"] for row in read.sessions(store, agent="triage", state="finished")] == ["s-busy"]
    assert read.session(store, "s-none") is None
    assert [row["call"] for row in read.syscalls(store, "s-busy")] == ["model-1", "c1", "c2", "c3"]
    assert read.approvals(store) == []
    (approval,) = read.approvals(store, state=None)
    assert (approval["args"]["path"], approval["reasons"]) == ("out/report.md", ["because of grants.approval"])
    assert read.faults(store) == []


def test_questions_are_due_when_their_time_is_over(store, record, stream_of_sessions):
    """The longest over first, then when the next one ends; answered ones are never due."""
    chains = {name: record.Chain(f"s-{name}") for name in ("late", "later", "answered", "open")}
    for minutes, chain in enumerate(chains.values(), 1):
        chain.created()
        chain.decided("c1", "write", "ask")
        chain.waiting("c1", minutes=minutes)
    chains["answered"].granted("c1")
    store.apply(stream_of_sessions(*(chain.stored for chain in chains.values())))
    asked = record.START_MS + 2000
    assert read.due(store, now_ms=asked) == ([], asked + 60_000)
    assert read.due(store, now_ms=asked + 120_000) == (["s-late", "s-later"], asked + 240_000)
    assert read.due(store, now_ms=asked + 240_000) == (["s-late", "s-later", "s-open"], None)
