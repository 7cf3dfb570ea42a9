"""The SQLite files of the read models: batches, repeats, schema versions, broken files."""

from __future__ import annotations

import sqlite3
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos.abi import event as ev
from agentos.projections import read_model
from agentos.projections.dump import digest, dump
from agentos.projections.read_model import ReadModel
from agentos.projections.store import Store
from agentos.projections.text_store import TextStore

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


@pytest.fixture(params=[Store, TextStore])
def model(request) -> type[ReadModel]:
    """What holds for both models."""
    return request.param


@pytest.fixture
def store(tmp_path, model):
    made = model.open(tmp_path / "read" / "default.db", tenant="default")
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


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["s-a", "s-b"]), st.sampled_from(KINDS), st.sampled_from(["c1", "c2"])), max_size=40
    ),
    cuts=st.lists(st.integers(1, 7), min_size=1, max_size=40),
    crashes=st.lists(st.booleans(), min_size=1, max_size=40),
    form=st.sampled_from(["open", "records"]),
    erased=st.sampled_from([(), ("s-a",), ("s-a", "s-b")]),
    where=st.integers(0, 40),
)
def test_rebuilt_equals_incremental(
    record, stream_of_sessions, written, tombstones_of, tmp_path_factory, steps, cuts, crashes, form, erased, where
):
    """Whatever happened, however the batches were cut, in whatever order the streams were read, wherever it crashed between two
    of them, and though a session was erased underway: both models are what one reading of the log from its first event gives,
    when what was erased can be opened no more."""
    chains = {name: record.Chain(name) for name in ("s-a", "s-b")}
    for chain in chains.values():
        chain.created()
    for name, kind, call in steps:
        _step(chains[name], kind, call)
    live = [written(form, chain.stored) for chain in chains.values()]
    left = [
        written("headers", chain.stored) if form == "records" and name in erased else lines
        for (name, chain), lines in zip(chains.items(), live, strict=True)
    ]
    said = tombstones_of(erased) if erased else []
    events = stream_of_sessions(*live)
    events[where:where] = said
    # The other way round: streams come in another order when the log is read again.
    again = said + stream_of_sessions(*left)
    folder = tmp_path_factory.mktemp("read")
    for model in (Store, TextStore):
        whole, pieces = (model.open(folder / f"{name}.{model.__name__}.db", tenant="default") for name in ("whole", "pieces"))
        whole.apply(again)
        rest = events
        for cut, crash in zip([*cuts, len(events)], [*crashes, *[False] * 40], strict=False):
            pieces.apply(rest[:cut])
            if crash:
                pieces.close()
                pieces = model.open(folder / f"pieces.{model.__name__}.db", tenant="default")
            else:
                rest = rest[cut:]
        pieces.apply(rest)
        pieces.apply(events)
        try:
            assert list(dump(pieces)) == list(dump(whole))
            assert digest(pieces) == digest(whole)
            assert pieces.rebuilds == 0
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
    fold = store._fold

    def full(connection, new) -> None:
        fold(connection, new)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "_fold", full)
    with pytest.raises(sqlite3.OperationalError):
        store.apply(batch[4:])
    monkeypatch.undo()
    assert tables_of(store) == before
    store.apply(batch[4:])
    assert sum(store.positions().values()) == len(batch)


def test_the_file_is_stamped_private_and_in_wal_mode(store):
    """The file says what it is and which version, and belongs to its owner alone."""
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    with store.reader() as connection:
        found = [
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version", "journal_mode")
        ]
    assert found == [store.layout.application_id, store.layout.version, "wal"]


def _with(path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def _flip(path, what: bytes) -> None:
    """Change one bit in the last place where `what` stands: a text in the middle of a page, its structure as it was."""
    data = bytearray(path.read_bytes())
    data[data.rindex(what) + 2] ^= 1
    path.write_bytes(data)


def _wrong_wal(path) -> None:
    """The WAL of another database beside the file, as a copy at the wrong moment leaves it."""
    other = path.with_name("other.db")
    connection = sqlite3.connect(other)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE strange (text)")
    connection.executemany("INSERT INTO strange VALUES (?)", [("x" * 3000,)] * 20)
    connection.commit()
    path.with_name(path.name + "-wal").write_bytes(other.with_name("other.db-wal").read_bytes())
    connection.close()


UNUSABLE = {
    "older version": lambda path: _with(path, "PRAGMA user_version = 0"),
    "newer version": lambda path: _with(path, "PRAGMA user_version = 99"),
    "a table is missing": lambda path: _with(path, "DROP TABLE erased"),
    "another tenant's": lambda path: _with(path, "UPDATE meta SET value = 'acme'"),
    "not a database": lambda path: path.write_bytes(b"this is no database" * 100),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "cut by one page": lambda path: path.write_bytes(path.read_bytes()[:-4096]),
    "empty": lambda path: path.write_bytes(b""),
    "header of zeros": lambda path: path.write_bytes(bytes(100) + path.read_bytes()[100:]),
    "zeros inside": lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(len(path.read_bytes()) - 4096)),
    "a flipped bit in a row": lambda path: _flip(path, b"s-busy"),
    "a flipped bit in a position": lambda path: _with(path, "UPDATE positions SET position = position + 1"),
    "the wrong WAL": _wrong_wal,
    "a WAL of junk": lambda path: path.with_name(path.name + "-wal").write_bytes(b"no WAL" * 1000),
}
SOUND = {"a WAL of junk"}
"""What SQLite itself passes over, nothing being lost."""


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_file_is_built_anew(tmp_path, model, batch, tables_of, case):
    """A file of another version, or one that is broken anywhere, is dropped, and what was broken is said; reading the log again
    gives the same rows."""
    path = tmp_path / "default.db"
    store = model.open(path, tenant="default")
    store.apply(batch)
    expected = tables_of(store)
    store.close()
    UNUSABLE[case](path)
    again = model.open(path, tenant="default")
    try:
        assert again.positions() == {} or case in SOUND
        told = case not in {"older version", "newer version", "another tenant's", "empty", "the wrong WAL", *SOUND}
        assert (again.rebuilds, again.broken is not None) == (int(told), told) or case == "the wrong WAL"
        again.apply(batch)
        assert tables_of(again) == expected
        again.check()
    finally:
        again.close()


@pytest.mark.parametrize("case", ["a flipped bit in a row", "cut by one page"])
def test_a_large_file_is_judged_later(tmp_path, model, batch, monkeypatch, case):
    """A file that would take long is not read whole at the start; a cut one is known by its length, a changed row by `check`."""
    monkeypatch.setattr(read_model, "READ_WHOLE", 0)
    path = tmp_path / "default.db"
    store = model.open(path, tenant="default")
    store.apply(batch)
    store.check()
    store.close()
    UNUSABLE[case](path)
    again = model.open(path, tenant="default")
    try:
        if case == "cut by one page":
            assert (again.positions(), again.rebuilds) == ({}, 1)
        else:
            assert again.rebuilds == 0
            with pytest.raises(sqlite3.DatabaseError):
                again.check()
            again.replace("a row is not what was written")
            assert (again.positions(), again.rebuilds, again.broken) == ({}, 1, "a row is not what was written")
    finally:
        again.close()


def test_a_row_that_changed_underneath_is_not_folded_on(tmp_path, record, stream_of_sessions):
    """A row that is not what was written stops the batch that would change it: nothing is built on it."""
    chain = record.busy_session("s-busy")
    events = stream_of_sessions(chain.stored)
    store = Store.open(tmp_path / "default.db", tenant="default")
    store.apply(events[:5])
    _with(store.path, "UPDATE sessions SET calls = 40")
    with pytest.raises(sqlite3.DatabaseError, match="not what was written"):
        store.apply(events[5:])
    store.close()


def test_a_reader_that_stumbles_raises_doubt(store, batch):
    """The file is to be checked once a reader could not read it; a lock that was held too long is no reason."""
    store.apply(batch)
    with pytest.raises(sqlite3.OperationalError), store.reader() as connection:
        connection.execute("SELECT * FROM nothing")
    assert not store.doubted
    with pytest.raises(sqlite3.DatabaseError), store.reader():
        raise sqlite3.DatabaseError("database disk image is malformed")
    assert store.doubted
    store.check()
    assert not store.doubted


def test_a_sound_file_is_kept(tmp_path, model, batch):
    """Opening the same version again goes on from the stored positions."""
    path = tmp_path / "default.db"
    store = model.open(path, tenant="default")
    positions = store.apply(batch)
    store.close()
    again = model.open(path, tenant="default")
    assert again.positions() == positions
    again.close()


def test_another_tenants_file_is_not_taken(tmp_path, model, batch):
    """A file copied from another tenant is dropped: no tenant reads another's rows."""
    path = tmp_path / "acme.db"
    store = model.open(path, tenant="default")
    store.apply(batch)
    store.close()
    again = model.open(path, tenant="acme")
    assert again.positions() == {}
    again.close()


def test_clear_forgets_everything_and_readers_see_whole_states(store, batch, tables_of):
    """A reader that began before a clear keeps its rows; the next one sees none."""
    store.apply(batch)
    with store.reader() as connection:
        connection.execute("BEGIN")
        held = connection.execute("SELECT count(*) FROM positions").fetchone()[0]
        store.clear()
        assert connection.execute("SELECT count(*) FROM positions").fetchone()[0] == held > 0
    assert {name: len(rows) for name, rows in tables_of(store).items()} == dict.fromkeys(tables_of(store), 0)
    assert store.positions() == {}


def test_a_reader_cannot_write(store):
    """Readers have no way to change the read model."""
    with store.reader() as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM positions")
