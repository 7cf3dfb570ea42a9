"""Weighted fair sharing over a tree, by what is really used: hierarchical start-time fair queuing.

    tree = ShareTree()
    tree.enqueue(("acme", "support", "triage"), task, order=())   # tenant, program, agent
    path, task = tree.dequeue(charge=900)                         # who is furthest behind, charged an estimate
    tree.finish(path, 412 - 900)                                  # what it used was less: the rest comes back

Each node has a weight and a *start tag*: the amount charged to it so far, divided by its weight. At each level the backlogged
node with the smallest tag goes next, and its tag advances by the charge over its weight. A node that was idle begins at the
virtual time of its parent, which is the tag of the node that was served last in turn, or that of whoever waits and is furthest
behind, if that is less: it neither earns by being idle, nor waits for others to catch up with what they got back. When nothing
below a node waits or is out any more, its children begin anew as equals. An estimate is charged when a task goes out and
corrected when its use is known, so that whoever underestimates waits longer afterwards.

Between two nodes that stay backlogged, charges over weights differ by at most one charge of each over its weight, in every
interval (Goyal, Vin, Cheng: Start-Time Fair Queuing, 1996). `docs/scheduling.md` derives what that means for what was received
with many slots. Everything is whole numbers, so that a run can be repeated exactly. Every operation is O(depth · log siblings).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Generic, TypeVar

SCALE: Final = 1 << 20
"""Tags are charges times this, over the weight: whole numbers that lose less than a millionth of a unit."""

Path = tuple[str, ...]
"""Names from the root's child to the leaf, such as (tenant, program, agent)."""

Order = tuple[Any, ...]
"""What tasks of one leaf are ordered by, the smallest first; those of equal order go in the order of arrival."""

_T = TypeVar("_T")


def prefixes(path: Path) -> Iterator[Path]:
    """Every node on the way to `path`, the topmost first, itself last."""
    return (path[:depth] for depth in range(1, len(path) + 1))


@dataclass(slots=True, eq=False)
class _Node(Generic[_T]):
    """One node. `tasks` is of leaves, `children` and `ready` of the others."""

    name: str
    parent: _Node[_T] | None
    weight: int = 1
    tag: int = 0
    time: int = 0
    """Virtual time of its children: the tag of the one that was served last."""
    charged: int = 0
    """Everything ever charged to it, in units."""
    waiting: int = 0
    """Tasks in the subtree."""
    out: int = 0
    """Tasks of the subtree that were taken and are not finished."""
    period: int = 0
    """How often everything below it came to rest; tags of children are of one period, and lapse with it."""
    entered: int = -1
    """The period of the parent that `tag` is of; -1 before the first."""
    held: int = 0
    """How many reasons keep it from being served."""
    entry: int = 0
    """The number of its valid entry in the parent's `ready`; 0 when it has none, as nothing of it can be served."""
    entry_tag: int = 0
    eligible: int = 0
    """Children with a valid entry in `ready`."""
    children: dict[str, _Node[_T]] = field(default_factory=dict)
    ready: list[tuple[int, int, _Node[_T]]] = field(default_factory=list)
    """A heap of (tag, number of the entry, child); entries that were replaced or withdrawn are dropped when they come up."""
    tasks: list[tuple[Order, int, _T]] = field(default_factory=list)
    """A heap; those that were taken out of turn or removed are dropped when they come up."""
    numbers: dict[_T, list[int]] = field(default_factory=dict)
    """The number under which each task that waits stands in `tasks`."""

    @property
    def servable(self) -> bool:
        """Whether a task of it can be served, as far as it and what is below it go."""
        return self.held == 0 and (bool(self.numbers) or self.eligible > 0)

    @property
    def now(self) -> int:
        """The virtual time at which a child begins that was idle."""
        return min(self.time, _first(self).tag) if self.eligible else self.time


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a node stands: its weight, what it was charged, how many tasks wait below it, and how far behind it is.

    `lag` is in units per weight, of the sibling that was served last in turn: positive for one that is behind it. One that does
    not wait is not behind.
    """

    path: Path
    weight: int
    charged: int
    waiting: int
    lag: float


class ShareTree(Generic[_T]):
    """A tree of shares whose leaves hold tasks. A node comes into being when it is first named, and is never forgotten."""

    def __init__(self) -> None:
        self._root: _Node[_T] = _Node("", None)
        self._numbers = count(1)

    def __len__(self) -> int:
        """How many tasks wait."""
        return self._root.waiting

    @property
    def servable(self) -> bool:
        """Whether `dequeue` would find a task: one waits at a place where nothing is held."""
        return self._root.eligible > 0

    def weigh(self, path: Path, weight: int) -> None:
        """Give the node at `path` a weight (at least 1) from now on; what it was charged stays."""
        if weight < 1:
            raise ValueError("a weight is a whole number from 1 on")
        self._node(path).weight = weight

    def enqueue(self, path: Path, task: _T, *, order: Order = ()) -> None:
        """Add a task to the leaf at `path`. All paths of one tree have one length."""
        leaf = self._node(path)
        number = next(self._numbers)
        heapq.heappush(leaf.tasks, (order, number, task))
        leaf.numbers.setdefault(task, []).append(number)
        self._count(leaf, 1)

    def dequeue(self, *, charge: int) -> tuple[Path, _T]:
        """Take the task that goes next and charge it to every node on its path. Raises LookupError when there is none."""
        path = self.next_path()
        if path is None:
            raise LookupError("nothing can be served")
        return path, self.dequeue_at(path, charge=charge)

    def dequeue_at(self, path: Path, *, charge: int) -> _T:
        """Take the next task of one leaf, also out of turn; it is charged as any other. Raises LookupError when there is none."""
        leaf = self._node(path)
        if not leaf.numbers:
            raise LookupError(f"nothing waits at {'/'.join(path)}")
        number, task = _next_task(leaf)
        self._take(leaf, task, number, charge)
        return task

    def peek_at(self, path: Path) -> _T:
        """The task that `dequeue_at` would take. Raises LookupError when there is none."""
        leaf = self._node(path)
        if not leaf.numbers:
            raise LookupError(f"nothing waits at {'/'.join(path)}")
        return _next_task(leaf)[1]

    def take(self, path: Path, task: _T, *, charge: int) -> None:
        """Take one certain task, out of turn; it is charged as any other. Raises LookupError when it does not wait there."""
        leaf = self._node(path)
        if task not in leaf.numbers:
            raise LookupError(f"{task} does not wait at {'/'.join(path)}")
        self._take(leaf, task, leaf.numbers[task][0], charge)

    def remove(self, path: Path, task: _T) -> bool:
        """Take a task back that was not served; return whether it was there."""
        leaf = self._node(path)
        if task not in leaf.numbers:
            return False
        _drop(leaf, task, leaf.numbers[task][0])
        self._count(leaf, -1)
        return True

    def settle(self, path: Path, amount: int) -> None:
        """Charge `amount` more (less, when negative) to every node on `path`: what an estimate was off by."""
        leaf = node = self._node(path)
        while node.parent is not None:
            _charge(node, amount)
            node = node.parent
        self._refresh(leaf)

    def adopt(self, path: Path, charge: int) -> None:
        """A task that was taken elsewhere counts as taken here, and is charged."""
        self._out(self._node(path), 1)
        self.settle(path, charge)

    def finish(self, path: Path, amount: int) -> None:
        """A task that was taken has ended: `amount` more (less, when negative) is charged than was when it was taken."""
        self.settle(path, amount)
        self._out(self._node(path), -1)

    def hold(self, path: Path) -> None:
        """Keep the node at `path`, and all below it, from being served until `release`; holds add up."""
        node = self._node(path)
        node.held += 1
        self._refresh(node)

    def release(self, path: Path) -> None:
        """Take one hold back."""
        node = self._node(path)
        if node.held == 0:
            raise ValueError(f"{'/'.join(path)} is not held")
        node.held -= 1
        self._refresh(node)

    def next_path(self) -> Path | None:
        """Whose turn it is; None when nothing can be served."""
        if not self.servable:
            return None
        node, path = self._root, []
        while node.children:
            node = _first(node)
            path.append(node.name)
        return tuple(path)

    def standings(self) -> Iterator[Standing]:
        """Every node but the root, parents first, siblings by name."""
        yield from _standings(self._root, ())

    def _node(self, path: Path) -> _Node[_T]:
        node = self._root
        for name in path:
            child = node.children.get(name)
            if child is None:
                child = node.children[name] = _Node(name, node)
            node = child
        return node

    def _take(self, leaf: _Node[_T], task: _T, number: int, charge: int) -> None:
        _drop(leaf, task, number)
        node = leaf
        while node.parent is not None:
            # What goes out of turn does not advance the time of those that wait for theirs.
            node.parent.time = max(node.parent.time, min(node.tag, _first(node.parent).tag) if node.parent.eligible else node.tag)
            _charge(node, charge)
            node = node.parent
        self._out(leaf, 1)
        self._count(leaf, -1)

    def _out(self, leaf: _Node[_T], by: int) -> None:
        """`by` tasks of a leaf have gone out."""
        node: _Node[_T] | None = leaf
        while node is not None:
            node.out += by
            _rest(node)
            node = node.parent

    def _count(self, leaf: _Node[_T], by: int) -> None:
        """`by` tasks have come to a leaf."""
        node: _Node[_T] | None = leaf
        while node is not None:
            node.waiting += by
            _rest(node)
            node = node.parent
        self._refresh(leaf)

    def _refresh(self, node: _Node[_T]) -> None:
        """From `node` up: each stands in its parent's heap, by its tag, just when a task of it can be served."""
        while node.parent is not None:
            parent = node.parent
            if node.servable:
                if not node.entry:
                    # What was idle begins where its siblings stand, and anew when all of them were.
                    node.tag = max(node.tag, parent.now) if node.entered == parent.period else parent.now
                    node.entered = parent.period
                    parent.eligible += 1
                if not node.entry or node.entry_tag != node.tag:
                    node.entry, node.entry_tag = next(self._numbers), node.tag
                    heapq.heappush(parent.ready, (node.tag, node.entry, node))
                    if len(parent.ready) > 2 * parent.eligible + _SLACK:
                        parent.ready = [one for one in parent.ready if one[2].entry == one[1]]
                        heapq.heapify(parent.ready)
            elif node.entry:
                node.entry = 0
                parent.eligible -= 1
            node = parent


_SLACK: Final = 64
"""Void entries that a heap may hold beside as many as it has valid ones."""


def _charge(node: _Node[_T], amount: int) -> None:
    node.charged += amount
    node.tag += amount * SCALE // node.weight


def _rest(node: _Node[_T]) -> None:
    """When nothing of a node waits or is out any more, a period of its children is over."""
    if not node.out and not node.waiting:
        node.period += 1


def _drop(leaf: _Node[_T], task: _T, number: int) -> None:
    """A task waits no longer; what stands in the heap for it is dropped in time."""
    numbers = leaf.numbers[task]
    numbers.remove(number)
    if not numbers:
        del leaf.numbers[task]
    if len(leaf.tasks) > 2 * leaf.waiting + _SLACK:
        leaf.tasks = [entry for entry in leaf.tasks if entry[1] in leaf.numbers.get(entry[2], ())]
        heapq.heapify(leaf.tasks)


def _next_task(leaf: _Node[_T]) -> tuple[int, _T]:
    """The task of a leaf that goes next, and its number."""
    while True:
        _, number, task = leaf.tasks[0]
        if number in leaf.numbers.get(task, ()):
            return number, task
        heapq.heappop(leaf.tasks)


def _first(node: _Node[_T]) -> _Node[_T]:
    """The child that goes next."""
    while True:
        _, number, child = node.ready[0]
        if child.entry == number:
            return child
        heapq.heappop(node.ready)


def _standings(node: _Node[_T], path: Path) -> Iterator[Standing]:
    for name in sorted(node.children):
        child = node.children[name]
        at = (*path, name)
        behind = (node.time - child.tag) / SCALE
        yield Standing(at, child.weight, child.charged, child.waiting, behind if child.waiting else min(0.0, behind))
        yield from _standings(child, at)
