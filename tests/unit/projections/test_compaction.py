"""A read model gives back what it has no use for, in a bounded time, and nothing of what it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentos.projections import compaction
from agentos.projections.compaction import compact
from agentos.projections.read_model import FAULTS
from agentos.projections.store import Store


def grown(path: Path, rows: int) -> Store:
    """An index out of which most was deleted."""
    store = Store.open(path, tenant="default")
    with store.writer() as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        blank = {"stream": "EV", "session": "s-1", "kind": "shape", "error": "x" * 4000}
        FAULTS.put(connection, [blank | {"position": number} for number in range(rows)])
        connection.execute("DELETE FROM faults WHERE position >= 500")
    return store


def held(store: Store) -> int:
    with store.reader() as connection:
        return int(connection.execute("SELECT count(*) FROM faults").fetchone()[0])


def test_free_pages_are_given_back(tmp_path: Path) -> None:
    """The file is smaller, also on the disk, and holds the same rows; a second time there is nothing to do."""
    store = grown(tmp_path / "index.db", 4_000)
    before = (tmp_path / "index.db").stat().st_size
    done = compact(store)
    assert done.after < done.before / 4
    assert not done.given_up
    assert (tmp_path / "index.db").stat().st_size == done.after < before
    assert held(store) == 500
    assert compact(store) == compaction.Compacted(done.after, done.after)
    store.close()


def test_what_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """The file stays as it was, and can be written afterwards."""
    store = grown(tmp_path / "index.db", 4_000)
    done = compact(store, longest_s=-1.0)
    assert (done.given_up, done.after) == (True, done.before)
    assert held(store) == 500
    assert compact(store).after < done.before
    store.close()


def test_a_file_of_which_little_is_free_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing it anew would cost more than it brings."""
    monkeypatch.setattr(compaction, "_vacuum", lambda *_: pytest.fail("it was written anew"))
    store = grown(tmp_path / "index.db", 700)
    done = compact(store)
    assert done.before == done.after
    store.close()
