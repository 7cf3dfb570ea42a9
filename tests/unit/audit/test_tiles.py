"""Tiles: the stored trees equal the computed ones, survive being closed at any size, and say when they are damaged."""

from __future__ import annotations

import sqlite3
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.audit.merkle import Frontier, inclusion_proof, leaf_hash, root_of
from agentos.audit.tiles import Place, TilesBroken, TileStore


def leaf(number: int) -> bytes:
    return leaf_hash(b"event %d" % number)


def grow(store: TileStore, stream: str, first: int, count: int) -> None:
    store.extend((stream, leaf(number), f"e{number}") for number in range(first, first + count))


def root(size: int) -> bytes:
    frontier = Frontier()
    for number in range(size):
        frontier.append(leaf(number))
    return frontier.root()


@pytest.fixture
def store(tmp_path):
    made = TileStore.open(tmp_path / "read" / "default.tiles.db", tenant="default")
    yield made
    made.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 100, 255, 256, 257, 1000]), max_size=8))
def test_any_batches_give_the_same_tree(tmp_path_factory, batches: list[int]) -> None:
    """However the leaves come, and however often the file is closed between: the same roots, now and of every earlier size."""
    path = tmp_path_factory.mktemp("tiles") / "t.db"
    size = 0
    for count in batches:
        store = TileStore.open(path, tenant="default")
        assert store.size("EV_0") == size
        grow(store, "EV_0", size, count)
        size += count
        store.close()
    store = TileStore.open(path, tenant="default")
    assert store.frontier("EV_0").root() == root(size) == root_of(store.nodes("EV_0"), size)
    for earlier in {0, size // 3, size // 2, max(0, size - 1)}:
        assert root_of(store.nodes("EV_0"), earlier) == root(earlier)
    assert store.leaves("EV_0", size // 2, size) == [leaf(number) for number in range(size // 2, size)]
    store.close()


def test_a_deep_tree(store) -> None:
    """Three levels of tiles: 256 * 256 leaves and one more."""
    size = 65_537
    grow(store, "EV_0", 0, size)
    assert store.frontier("EV_0").root() == root(size)
    again = TileStore.open(store.path, tenant="default")
    grow(again, "EV_0", size, 300)
    assert again.frontier("EV_0").root() == root(size + 300)
    assert len(inclusion_proof(again.nodes("EV_0"), 12_345, size)) == 17
    again.close()


def test_streams_do_not_mix(store) -> None:
    """Leaves of two streams in one batch land in two trees, each in its own order."""
    store.extend([("EV_0", leaf(0), "a"), ("EV_1", leaf(7), "b"), ("EV_0", leaf(1), None)])
    assert store.frontier("EV_0").root() == root(2)
    assert (store.size("EV_1"), store.size("EV_2")) == (1, 0)
    assert store.leaves("EV_1", 0, 9) == [leaf(7)]
    assert store.leaves("EV_2", 0, 9) == []


def test_events_are_found_by_id(store) -> None:
    """In full and in partial tiles, before and after the file was opened again; an id that never came is nowhere."""
    grow(store, "EV_0", 0, 300)
    grow(store, "EV_3", 300, 10)
    for opened in (store, TileStore.open(store.path, tenant="default")):
        assert opened.places("e0") == [Place("EV_0", 0)]
        assert opened.places("e299") == [Place("EV_0", 299)]
        assert opened.places("e305") == [Place("EV_3", 5)]
        assert opened.places("e310") == []
    opened.close()


def test_checkpoints_are_found_by_number_and_time(store) -> None:
    """Where each is in its stream, which was the last before a time, and the last note as it was."""
    for number in (1, 2, 3):
        store.add_checkpoint("CKPT", leaf(number), number, number * 10, number * 1000, f"note {number}")
    assert [store.checkpoint_position(number) for number in (0, 1, 3, 4)] == [None, 10, 30, None]
    assert [store.checkpoint_before(time) for time in (999, 1000, 2999, 99_999)] == [0, 1, 2, 3]
    assert store.last_note() == "note 3"
    assert store.size("CKPT") == 3


def test_a_batch_that_fails_leaves_no_trace(store) -> None:
    """A checkpoint that is there already is refused, with its leaf; memory and file agree afterwards."""
    store.add_checkpoint("CKPT", leaf(1), 1, 1, 1, "one")
    with pytest.raises(sqlite3.IntegrityError):
        store.add_checkpoint("CKPT", leaf(2), 1, 2, 2, "two")

    def breaks():
        yield "EV_0", leaf(0), "a"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.extend(breaks())
    assert (store.size("CKPT"), store.last_note(), store.size("EV_0")) == (1, "one", 0)
    grow(store, "EV_0", 0, 3)
    assert store.frontier("EV_0").root() == root(3)


def test_the_file_is_private_and_foreign_ones_are_replaced(tmp_path) -> None:
    """Mode 0600; another tenant's, another version's or a broken file begins anew."""
    path = tmp_path / "t.db"
    store = TileStore.open(path, tenant="default")
    grow(store, "EV_0", 0, 3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    store.close()
    store = TileStore.open(path, tenant="acme")
    assert store.size("EV_0") == 0
    store.close()
    path.write_bytes(b"SQLite format 3\0 and then nothing of the kind" * 100)
    store = TileStore.open(path, tenant="acme")
    assert store.size("EV_0") == 0
    store.clear()
    grow(store, "EV_0", 0, 2)
    assert store.frontier("EV_0").root() == root(2)
    store.close()


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM tiles WHERE level = 0",
        "DELETE FROM tiles WHERE level = 1",
        "DELETE FROM tiles WHERE level = -1",
        "UPDATE tiles SET hashes = x'00' WHERE level = 0",
        "UPDATE logs SET size = size + 1",
        "UPDATE tiles SET hashes = 'text'",
    ],
)
def test_damage_is_said(store, damage: str) -> None:
    """Missing, cut or foreign tiles are TilesBroken, never a wrong answer of the right shape."""
    grow(store, "EV_0", 0, 300)
    store.close()
    connection = sqlite3.connect(store.path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    broken = TileStore.open(store.path, tenant="default")
    with pytest.raises(TilesBroken):
        broken.frontier("EV_0")
    broken.clear()
    assert broken.size("EV_0") == 0
    broken.close()


def test_what_is_not_there_has_no_node(store) -> None:
    """A subtree beyond the leaves is an error, not an empty hash."""
    grow(store, "EV_0", 0, 5)
    for level, index in ((0, 5), (1, 2), (3, 0), (9, 0)):
        with pytest.raises(TilesBroken):
            store.nodes("EV_0")(level, index)
