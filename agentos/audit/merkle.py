"""Merkle trees over a list of leaves, exactly as RFC 9162 (and RFC 6962 before it) has them: hashes, roots, proofs, their checks.

A leaf's hash is SHA-256(0x00 ‖ data), a node's SHA-256(0x01 ‖ left ‖ right); a tree of `size` leaves splits at the largest power
of two below `size`. Proofs are made from `Nodes`, a function that knows the hashes of complete subtrees; they are checked from
nothing but hashes. Pure, standard library only: https://www.rfc-editor.org/rfc/rfc9162#section-2.1

>>> frontier = Frontier()
>>> for data in (b"a", b"b", b"c"):
...     frontier.append(leaf_hash(data))
>>> frontier.size, frontier.root() == node_hash(node_hash(leaf_hash(b"a"), leaf_hash(b"b")), leaf_hash(b"c"))
(3, True)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Final

EMPTY: Final = sha256(b"").digest()
"""The root of the tree without leaves."""

HASH_SIZE: Final = 32
"""Bytes of every hash here."""

Nodes = Callable[[int, int], bytes]
"""`nodes(level, index)`: the hash of the complete subtree over the 2^level leaves that begin at leaf `index` * 2^level."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf that holds `data`."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node above two."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: enough to append and to tell the root, a few hashes whatever the size."""

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """`peaks` are the hashes of the complete subtrees that `size` leaves fall into, the largest first."""
        if len(peaks) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} peaks, not {len(peaks)}")
        self.size = size
        self._peaks = list(peaks)

    @classmethod
    def of(cls, nodes: Nodes, size: int) -> Frontier:
        """The frontier of the tree of the first `size` leaves."""
        return cls(size, [nodes(level, start >> level) for level, start in _peaks(size)])

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its hash."""
        peaks, size = self._peaks, self.size
        while size & 1:
            leaf = sha256(b"\x01" + peaks.pop() + leaf).digest()
            size >>= 1
        peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The root of the tree so far."""
        if not self._peaks:
            return EMPTY
        top = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            top = node_hash(peak, top)
        return top

    def copy(self) -> Frontier:
        """Another frontier of the same tree."""
        return Frontier(self.size, self._peaks)


def root_of(nodes: Nodes, size: int) -> bytes:
    """The root of the tree of the first `size` leaves."""
    return Frontier.of(nodes, size).root()


def inclusion_proof(nodes: Nodes, index: int, size: int) -> list[bytes]:
    """The path from leaf `index` (from 0) to the root of the first `size` leaves, leaf end first. Raises ValueError."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not among {size}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range(nodes, middle, end))
            end = middle
        else:
            path.append(_range(nodes, start, middle))
            start = middle
    return path[::-1]


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` proves that the leaf with hash `leaf` is number `index` of the `size` leaves under `root`."""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node_hash(step, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, step)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def consistency_proof(nodes: Nodes, old: int, new: int) -> list[bytes]:
    """What proves that the tree of `new` leaves begins with the tree of `old` leaves. Raises ValueError for more old than new."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves does not begin with {old}")
    if old in (0, new):
        return []
    path: list[bytes] = []
    start, end, whole = 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(_range(nodes, middle, end))
            end = middle
        else:
            path.append(_range(nodes, start, middle))
            start, whole = middle, False
    if not whole:
        path.append(_range(nodes, start, end))
    return path[::-1]


def check_consistency(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` proves that the `new` leaves under `new_root` begin with the `old` leaves under `old_root`."""
    if not 0 <= old <= new:
        return False
    if old in (0, new):
        return not path and (old_root == new_root if old == new else old_root == EMPTY)
    steps = list(path)
    if old & (old - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first, second = node_hash(step, first), node_hash(step, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node_hash(second, step)
        at, last = at >> 1, last >> 1
    return last == 0 and (first, second) == (old_root, new_root)


def batch_proof(nodes: Nodes, indices: Sequence[int], size: int) -> list[bytes]:
    """What proves many leaves at one time: the roots of the largest subtrees without any of `indices`, from left to right.

    `indices` are sorted and stand once. The hashes are those that `batch_root` asks for, in its order. Raises ValueError.
    """
    if any(one >= two for one, two in pairwise(indices)) or (indices and not 0 <= indices[0] <= indices[-1] < size):
        raise ValueError(f"the leaves are not a rising list of numbers below {size}")
    return [_range(nodes, start, end) for start, end, held in _cut(indices, 0, size) if not held]


def batch_root(leaves: Mapping[int, bytes], size: int, proof: Sequence[bytes]) -> bytes | None:
    """The root of `size` leaves, of which `leaves` (number → hash) are known and `proof` stands for the rest.

    None when there are more or fewer hashes in `proof` than that needs, or a leaf lies outside.
    """
    indices = sorted(leaves)
    if indices and not 0 <= indices[0] <= indices[-1] < size:
        return None
    if size == 0:
        return None if proof else EMPTY
    given = iter(proof)

    def build(start: int, end: int, low: int, high: int) -> bytes | None:
        if low == high:
            return next(given, None)
        if end - start == 1:
            return leaves[start]
        middle = start + _split(end - start)
        cut = bisect_left(indices, middle, low, high)
        left = build(start, middle, low, cut)
        right = build(middle, end, cut, high)
        return None if left is None or right is None else node_hash(left, right)

    found = build(0, size, 0, len(indices))
    return None if next(given, None) is not None else found


def _cut(indices: Sequence[int], start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """The pieces of [start, end) from left to right: single leaves of `indices` (True), and the largest parts without any."""
    if end == start:
        return
    low = bisect_left(indices, start)
    if low == len(indices) or indices[low] >= end:
        yield start, end, False
    elif end - start == 1:
        yield start, end, True
    else:
        middle = start + _split(end - start)
        yield from _cut(indices, start, middle)
        yield from _cut(indices, middle, end)


def _range(nodes: Nodes, start: int, end: int) -> bytes:
    """The root over the leaves [start, end), which is a part that the tree's own splitting makes."""
    top: bytes | None = None
    for level, at in reversed(_peaks(end - start)):
        part = nodes(level, (start + at) >> level)
        top = part if top is None else node_hash(part, top)
    return EMPTY if top is None else top


def _peaks(size: int) -> list[tuple[int, int]]:
    """(level, first leaf) of the complete subtrees that `size` leaves fall into, the largest first."""
    found, start = [], 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            found.append((level, start))
            start += 1 << level
    return found


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)
