"""The words of events: what is kept, what is refused, and that what was erased is nowhere in the files."""

from __future__ import annotations

import random
import sqlite3

import pytest

from agentos.abi import event as ev
from agentos.eventlog.port import Stored
from agentos.eventlog.subject import session_subject, stream_of
from agentos.projections import read
from agentos.projections.decoded import read_kind
from agentos.projections.store import Store
from agentos.projections.text_store import TextStore, _place
from agentos.projections.texts import WITH_TEXT, text_of

SECRET = "Xanthippe"


@pytest.fixture
def text(tmp_path):
    made = TextStore.open(tmp_path / "default.text.db", tenant="default")
    yield made
    made.close()


@pytest.fixture
def told(record):
    """A session in which the same word was said everywhere."""

    def make(name: str, word: str = SECRET):
        chain = record.Chain(name)
        chain.add(ev.SESSION_CREATED, {"agent": "triage", "goal": f"find {word}", "inputs": []}, "principal/alice")
        args = {"model": "m", "input_digest": "sha256:" + "0" * 64}
        chain.decided("model-1", "model-call", "allow", args)
        content = [{"type": "text", "text": f"I look for {word}"}, {"type": "tool_use", "id": "c1", "name": "write", "input": {}}]
        said = {"content": content, "stop_reason": "tool_use", "input_tokens": 1, "output_tokens": 1}
        chain.finished("model-1", "model-call", "", said)
        chain.decided("c1", "write", "ask", {"text": f"dear {word}", "deep": {word: [word]}})
        chain.waiting("c1")
        chain.granted("c1", reason=f"{word} knows")
        chain.decided("c1", "write", "allow", {"text": f"dear {word}"})
        chain.finished("c1", "write", f"wrote to {word}")
        refusal = {"code": "refused", "message": f"no {word}"}
        chain.add(ev.SYSCALL_REFUSED, {"call": "c2", "tool": word, "args_text": word, "error": refusal})
        chain.add(ev.SESSION_PAUSED, {"reason": f"wait for {word}"}, "principal/op")
        chain.add(ev.SESSION_RESUMED, {"reason": f"{word} came"}, "principal/op")
        chain.add(ev.SESSION_FINISHED, {"result": f"{word} was found"})
        return chain

    return make


def everywhere(model) -> bytes:
    """All bytes of the file and of what SQLite keeps beside it."""
    return b"".join(path.read_bytes() for path in sorted(model.path.parent.glob(model.path.name + "*")))


def found(text, word: str) -> int:
    with text.reader() as connection:
        return connection.execute("SELECT count(*) FROM found WHERE found MATCH ?", (word,)).fetchone()[0]


@pytest.mark.parametrize("form", ["open", "records"])
@pytest.mark.parametrize("after", [1, 50, 1000], ids=["one by one", "some at once", "all at once"])
def test_what_was_erased_is_in_no_byte_of_the_files(text, told, record, written, stream_of_sessions, tombstones_of, form, after):
    """Rows, full-text index, free pages, WAL: after the audit chain says that a session was erased, its words are nowhere."""
    others = [record.busy_session(f"s-{number}") for number in range(30)]
    events = stream_of_sessions(*(written(form, chain.stored) for chain in [*others[:15], told("s-told"), *others[15:]]))
    for start in range(0, len(events), after):
        text.apply(events[start : start + after])
    assert SECRET.encode() in everywhere(text)
    assert found(text, SECRET) == 10
    text.apply(tombstones_of(["s-told"]))
    assert SECRET.encode() not in everywhere(text)
    assert SECRET.lower().encode() not in everywhere(text)
    assert found(text, SECRET) == 0
    assert found(text, "inbox") == 30
    text.check()
    with sqlite3.connect(text.path) as connection:
        connection.execute("INSERT INTO found (found, rank) VALUES ('integrity-check', 1)")
    connection.close()


@pytest.mark.parametrize("seed", [0, 1])
def test_no_copy_of_an_erased_word_stays_between_the_rows(text, record, stream_of_sessions, tombstones_of, seed):
    """SQLite moves rows between pages and overwrites no copy that it leaves there."""
    chance = random.Random(seed)
    words, chains = [f"Xanthippe{number:03}" for number in range(80)], []
    for word in words:
        chain = record.Chain(f"s-{chance.randrange(10**9):09}")
        chain.add(
            ev.SESSION_CREATED, {"agent": "a", "goal": f"{word} " * chance.randrange(1, 60), "inputs": []}, "principal/alice"
        )
        for number in range(chance.randrange(1, 6)):
            chain.decided(f"c{number}", "write", "allow", {"text": f"{word} " * chance.randrange(1, 90)})
            chain.finished(f"c{number}", "write", f"{word} " * chance.randrange(1, 200))
        chains.append(chain)
    events = stream_of_sessions(*(chain.stored for chain in chains))
    for start in range(0, len(events), 37):
        text.apply(events[start : start + 37])
    gone = range(0, len(words), 2)
    for tombstone in tombstones_of(*([chains[number].subject for number in gone[start::2]] for start in range(2))):
        text.apply([tombstone])
    left = everywhere(text).lower()
    assert not [words[number] for number in gone if words[number].lower().encode() in left]
    assert all(found(text, words[number]) for number in range(1, len(words), 2))
    assert text.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in text.path.parent.glob("*.fresh*")] == []
    text.check()


def test_a_reader_at_work_does_not_put_off_an_erasure(text, told, stream_of_sessions, tombstones_of, record):
    """It sees what it saw to the end; in the files that have the names, nothing is left, and new readers and batches go on."""
    text.apply(stream_of_sessions(told("s-told").stored))
    with text.reader() as connection:
        connection.execute("BEGIN")
        before = connection.execute("SELECT count(*) FROM texts").fetchone()[0]
        text.apply(tombstones_of(["s-told"]))
        assert SECRET.encode() not in everywhere(text)
        assert connection.execute("SELECT count(*) FROM texts").fetchone()[0] == before > 0
        assert found(text, SECRET) == 0
    text.apply(stream_of_sessions(told("s-told").stored, told("s-new", "Socrates").stored))
    assert found(text, "Socrates") == 10
    assert SECRET.encode() not in everywhere(text)


def test_a_crash_behind_an_erasure_leaves_nothing(text, told, stream_of_sessions, tombstones_of, monkeypatch, tmp_path):
    """The transaction is durable, the WAL was not emptied yet, the runtime dies: the next start empties it."""
    text.apply(stream_of_sessions(told("s-told").stored))
    monkeypatch.setattr(text, "_stored", lambda connection: None)
    text.apply(tombstones_of(["s-told"]))
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for path in text.path.parent.glob("default.text.db*"):
        (crashed / path.name).write_bytes(path.read_bytes())
    again = TextStore.open(crashed / "default.text.db", tenant="default")
    try:
        assert again.rebuilds == 0
        assert SECRET.encode() not in everywhere(again)
    finally:
        again.close()


def test_the_index_never_held_a_word(tmp_path, told, written, stream_of_sessions):
    """The index is replicated and backed up: no byte of its files has a word of a payload in it."""
    index = Store.open(tmp_path / "default.db", tenant="default")
    index.apply(stream_of_sessions(written("records", told("s-told").stored)))
    assert b"triage" in everywhere(index)
    assert SECRET.encode() not in everywhere(index)
    index.close()


def test_an_erased_session_stays_erased(text, told, stream_of_sessions, tombstones_of):
    """Whatever comes of it later, and in whatever order the streams are read: nothing of it is kept again."""
    text.apply(tombstones_of(["s-told"]))
    text.apply(stream_of_sessions(told("s-told").stored))
    assert SECRET.encode() not in everywhere(text)
    assert found(text, "find") == 0


def test_what_is_withheld_says_nothing(text, told, written, stream_of_sessions):
    """Headers without a payload leave no row and are no fault."""
    text.apply(stream_of_sessions(written("headers", told("s-told").stored)))
    assert read.faults(text) == []
    with text.reader() as connection:
        assert connection.execute("SELECT count(*) FROM texts").fetchone()[0] == 0


CHANGED = {
    "another payload": lambda line: line.replace(SECRET.encode(), b"Charlotte"),
    "cut": lambda line: line[:-20],
    "not canonical": lambda line: line.replace(b'{"data":', b'{ "data":'),
    "empty": lambda line: line.partition(b"\t")[0] + b"\t",
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_payload_that_is_not_the_headers_is_a_fault_and_leaves_nothing(text, told, written, case):
    """What was put beside a header in place of its payload is neither kept nor quoted, and said."""
    lines = written("records", told("s-told").stored)
    subject = session_subject("s-told")
    text.apply([(stream_of(subject), Stored(subject, 1, CHANGED[case](lines[0])))])
    (fault,) = read.faults(text)
    assert (fault["kind"], fault["session"]) == ("payload", "s-told")
    assert b"Charlotte" not in everywhere(text)
    assert SECRET.encode() not in everywhere(text)


def test_faults_of_the_header_are_left_to_the_index(text, told, written):
    """Foreign bytes, another session's event, another tenant's: the index tells, nothing is kept."""
    lines = written("records", told("s-told").stored)
    subject = session_subject("s-other")
    batch = [b"hello", b"[]", lines[0], lines[0].replace(b"agentos/default", b"agentos/acme")]
    text.apply([(stream_of(subject), Stored(subject, at, line)) for at, line in enumerate(batch, 1)])
    assert read.faults(text) == []
    assert found(text, "find") == 0


ODD = {
    "no goal": (ev.SESSION_CREATED, {"agent": "a"}),
    "a goal that is no text": (ev.SESSION_CREATED, {"agent": "a", "goal": 7}),
    "a decision without reasons": (
        ev.SYSCALL_DECIDED,
        {"call": "c", "tool": "t", "args": {}, "args_digest": "x", "decision": {}},
    ),
    "a result of another shape": (
        ev.SYSCALL_FINISHED,
        {"call": "c", "tool": "model-call", "result": {"content": "", "is_error": 0}},
    ),
    "blocks that are no blocks": (
        ev.SYSCALL_FINISHED,
        {"call": "c", "tool": "model-call", "result": {"content": "", "is_error": False, "data": {"content": [7]}}},
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_a_payload_of_another_shape_is_a_fault(text, record, stream_of_sessions, case):
    """It is said, and the events behind it are kept."""
    chain = record.Chain("s-a")
    chain.add(*ODD[case])
    chain.add(ev.SESSION_CANCELLED, {"reason": "enough"})
    text.apply(stream_of_sessions(chain.stored))
    assert [fault["kind"] for fault in read.faults(text)] == ["payload"]
    assert found(text, "enough") == 1


def test_the_audit_chain_of_another_tenant_erases_nothing(text, told, stream_of_sessions, tombstones_of):
    """Only the tenant's own tombstones count."""
    text.apply(stream_of_sessions(told("s-told").stored))
    ((stream, stored),) = tombstones_of(["s-told"])
    text.apply([(stream, Stored(stored.subject, 1, stored.data.replace(b"agentos/default", b"agentos/acme")))])
    assert found(text, "find") == 1


def test_words_of_one_moment_have_rows_of_their_own(text, record, stream_of_sessions):
    """Ids are made of the time and 20 bits: where two are one, in a batch or across batches, both events have a row."""
    sessions = []
    for number in range(6000):
        chain = record.Chain(f"s-{number}")
        chain.created()
        sessions.append(chain.stored)
    batch = stream_of_sessions(*sessions)
    for start in range(0, len(batch), 1000):
        text.apply(batch[start : start + 1000])
    with text.reader() as connection:
        rows = connection.execute("SELECT session, id FROM texts").fetchall()
        hits = connection.execute("SELECT rowid FROM found WHERE found MATCH 'inbox'").fetchall()
    assert len({row["session"] for row in rows}) == len({row["id"] for row in rows}) == 6000
    assert {row["id"] for row in rows} == {row["rowid"] for row in hits}
    marks = {_place(text_of(*read_kind(lines[0], WITH_TEXT))) for lines in sessions}
    assert len(marks) < 6000, "no two sessions met: more are needed"
