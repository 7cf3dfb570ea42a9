"""A mapping that is never changed and yet cheap to change: `put` gives a new one that shares nearly all of the old one.

A session of ten thousand events has thousands of calls, and each event makes another state of it: copying a dict each time would
make folding quadratic. Here the entries lie in chunks, in the order of first appearance; another value copies one chunk. Where a
key lies is told by one dict that all versions of a line share and only ever add to: a version knows how long it is, and what lies
behind that is not its own. Two lines that grow out of one version part: the second one gets a dict of its own.

    one = Grown({"a": 1})
    two = one.put("b", 2).put("a", 3)
    dict(one), dict(two)    # {"a": 1}, {"a": 3, "b": 2}

Many threads may read; those that grow versions of one line must take turns.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from itertools import chain
from typing import Final, Generic, TypeVar

V = TypeVar("V")

CHUNK: Final = 128
"""Entries of one chunk: about the root of how many a long session has, so that chunk and list of chunks are equally long."""


class Grown(Mapping[str, V], Generic[V]):
    """An immutable mapping with text for keys, in the order in which the keys first came; a new value keeps the place."""

    __slots__ = ("_chunks", "_places", "_size")

    _chunks: tuple[tuple[tuple[str, V], ...], ...]
    _places: dict[str, int]
    _size: int

    def __init__(self, entries: Mapping[str, V] | None = None) -> None:
        items = tuple(entries.items()) if entries else ()
        self._chunks = tuple(items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
        self._places = {key: place for place, (key, _) in enumerate(items)}
        self._size = len(items)

    def put(self, key: str, value: V) -> Grown[V]:
        """This mapping with `key` set to `value`: behind all others if it is new."""
        grown: Grown[V] = Grown.__new__(Grown)
        grown._places, grown._size, chunks = self._places, self._size, self._chunks
        place = grown._places.get(key, grown._size)
        if place < grown._size:
            number, offset = divmod(place, CHUNK)
            chunk = chunks[number]
            changed = (*chunk[:offset], (key, value), *chunk[offset + 1 :])
            grown._chunks = (*chunks[:number], changed, *chunks[number + 1 :])
            return grown
        if len(grown._places) > grown._size:  # another line has grown out of this version
            grown._places = {name: at for at, name in enumerate(self)}
        grown._places[key] = grown._size
        grown._size += 1
        full = grown._size % CHUNK == 1
        grown._chunks = (*chunks, ((key, value),)) if full else (*chunks[:-1], (*chunks[-1], (key, value)))
        return grown

    def __getitem__(self, key: str) -> V:
        place = self._places[key]
        if place >= self._size:
            raise KeyError(key)
        return self._chunks[place // CHUNK][place % CHUNK][1]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._places.get(key, self._size) < self._size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.pairs())

    def pairs(self) -> Iterator[tuple[str, V]]:
        """Keys with their values, in order."""
        return chain.from_iterable(self._chunks)

    def values(self) -> ValuesView[V]:
        """The values in the order of their keys."""
        return _Values(self)

    def items(self) -> ItemsView[str, V]:
        """Keys with their values, in order."""
        return _Items(self)

    def newest_first(self) -> Iterator[V]:
        """The values from the last key to the first; what is not asked for costs nothing."""
        return (value for chunk in reversed(self._chunks) for _, value in reversed(chunk))

    def __repr__(self) -> str:
        return f"Grown({dict(self)!r})"


class _Values(ValuesView[V]):
    _mapping: Grown[V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping.pairs())


class _Items(ItemsView[str, V]):
    _mapping: Grown[V]

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return self._mapping.pairs()
