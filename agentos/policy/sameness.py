"""Which questions are the same to policy, so that one answer serves them all: the keys of kept decisions.

A key is made of what the loaded modules read of a question, told from their syntax trees, and of nothing else. The shipped
rules are known better than a tree tells (a test holds them to it):

    COMPARED  the clock and the budget they only compare with numbers of the data. The key holds on which side of each number
              the value lies.
    NAMED     of the arguments they read those that the data names: the constrained ones of the grants concerned, of the agent
              and of those for whom it acts, and those that name files. The key holds these.
    APPROVED  the digests they only hold against approvals. A question with approvals has no key at all.

A tenant's rule that reads such a part puts the value itself into the key. One that reaches into the shipped packages, whose
functions it could call with numbers and names of its own, ends all three.
"""

from __future__ import annotations

import hashlib
import marshal
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from agentos.abi.canonical import Json
from agentos.policy import syntax
from agentos.policy.adapters.opa import parse
from agentos.policy.bundle import axioms
from agentos.policy.port import Module

Path = tuple[str, ...]

COMPARED: Final[frozenset[Path]] = frozenset({("now",), ("budget", "calls"), ("budget", "tokens")})
NAMED: Final[Path] = ("syscall", "args")
APPROVED: Final[frozenset[Path]] = frozenset({("syscall", "args_digest"), ("policy_digest",)})

_NAMING: Final[frozenset[Path]] = frozenset({("agent", "name"), ("syscall", "tool")})
"""What tells which arguments are named."""

_OPTIONAL: Final[frozenset[Path]] = frozenset({("session", "delegators"), ("session", "tools"), ("session", "children")})
"""What most questions lack."""

_TYPED: Final = 2
"""The version of `marshal` that writes equal bytes for equal values of equal types alone: no references, no interning."""

_LONG: Final = 512
"""Keys beyond so many bytes are kept as their digest."""


@dataclass(frozen=True, slots=True)
class Reads:
    """What decides over one entry. `exact`: the value is in the key. `compared`: its side of each threshold is.

    `named`: of the arguments only those that the data or these names tell are in the key; None: `exact` says it.
    """

    exact: frozenset[Path]
    compared: tuple[Path, ...] = ()
    named: frozenset[str] | None = None


def reads(modules: Iterable[Module], entry: str) -> Reads | None:
    """What the modules that `data.<entry>` can reach read of their input; None: it cannot be told, nothing is kept."""
    shipped = set(axioms())
    reached = _reached(modules, tuple(entry.split(".")))
    theirs = [parse(module) for module in reached if module not in shipped]
    own = syntax.input_paths(theirs)
    axiomatic = syntax.input_paths(parse(module) for module in reached if module in shipped)
    if own is None or axiomatic is None:
        return None
    packages = [syntax.package(parse(module)) for module in shipped]
    if any(_meet(path, package) for tree in theirs for path in _data_paths(tree) for package in packages):
        return Reads(own | axiomatic)
    compared = {path for path in axiomatic & COMPARED if not _touches(path, own)}
    exact = own | {path for path in axiomatic - APPROVED if path not in compared}
    if NAMED not in axiomatic or any(NAMED[: len(path)] == path for path in own):
        return Reads(exact, tuple(sorted(compared)))
    below = {path for path in exact if path[: len(NAMED)] == NAMED}
    names = frozenset(path[len(NAMED)] for path in below if path != NAMED)
    return Reads(exact - below, tuple(sorted(compared)), names)


def _touches(path: Path, others: Iterable[Path]) -> bool:
    return any(path[: len(other)] == other for other in others)


def _meet(one: Path, other: Path) -> bool:
    size = min(len(one), len(other))
    return one[:size] == other[:size]


def _data_paths(tree: Json) -> set[Path]:
    return {ref.static() for ref in syntax.refs(syntax.without_package(tree)) if ref.head == "data"}


def _reached(modules: Iterable[Module], entry: Path) -> list[Module]:
    """The modules that an evaluation of `data.<entry>` can come to, by the references of those that it surely comes to."""
    left = [(module, syntax.package(parse(module))) for module in modules]
    found: list[Module] = []
    frontier: set[Path] = {entry}
    while frontier:
        fresh = [(module, package) for module, package in left if any(_meet(path, package) for path in frontier)]
        left = [pair for pair in left if pair not in fresh]
        found += [module for module, _ in fresh]
        # Files of one package see each other without a word about data.
        frontier = {package for _, package in fresh} | {path for module, _ in fresh for path in _data_paths(parse(module))}
        if not fresh:
            break
    return found


def _thresholds(data: Mapping[str, Json]) -> dict[Path, list[float]]:
    """Every number of the data with which the shipped rules compare a part of the input, in order."""
    facts = data.get("agentos", {})
    budgets = [agent.get("budget", {}) for agent in facts.get("agents", {}).values()]
    ends = {grant["until"] for _, _, grants in _grants(data) for grant in grants if "until" in grant}
    return {
        ("now",): _numbers(ends),
        ("budget", "calls"): _numbers({budget.get("calls") for budget in budgets}),
        ("budget", "tokens"): _numbers({budget.get("tokens") for budget in budgets}),
    }


def _numbers(values: Iterable[Json]) -> list[float]:
    # To a number, what is none lies always on the same side.
    return sorted(value for value in values if type(value) in {int, float})


def _grants(data: Mapping[str, Json]) -> Iterable[tuple[str, str, Sequence[Json]]]:
    for agent, tools in data.get("agentos", {}).get("grants", {}).items():
        for tool, grants in tools.items():
            yield agent, tool, grants


class _Names:
    """Which arguments the shipped rules read of a call, in order, by agent and tool."""

    def __init__(self, always: frozenset[str], data: Mapping[str, Json]) -> None:
        self._always = tuple(sorted(always))
        tools = data.get("agentos", {}).get("tools", {})
        files = {tool: always.union(facts.get("workspace_args", ())) for tool, facts in tools.items()}
        self._tools = {tool: tuple(sorted(names)) for tool, names in files.items()}
        shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._granted: dict[tuple[str, str], tuple[str, ...]] = {}
        for agent, tool, grants in _grants(data):
            names = tuple(sorted(files.get(tool, always).union(*(grant.get("args", ()) for grant in grants))))
            self._granted[agent, tool] = shared.setdefault(names, names)

    def of(self, agent: Json, tool: Json, delegators: Sequence[Json]) -> Iterable[str]:
        """Those of the agent and of all for whom it acts. Raises TypeError or KeyError for what cannot be one."""
        own = self._of(agent, tool)
        if not delegators:
            return own
        return sorted({*own, *(name for one in delegators for name in self._of(one["agent"], tool))})

    def _of(self, agent: Json, tool: Json) -> tuple[str, ...]:
        found = self._granted.get((agent, tool))
        return found if found is not None else self._tools.get(tool, self._always)


class Sameness:
    """Makes the keys of the questions to one entry. Equal keys: the same to every loaded module."""

    def __init__(self, told: Reads, data: Mapping[str, Json]) -> None:
        thresholds = _thresholds(data)
        self._compared = tuple((path, thresholds[path]) for path in told.compared)
        self._names = _Names(told.named, data) if told.named is not None else None
        exact = told.exact if self._names is None else told.exact | _NAMING
        self._whole = syntax.as_tree(sorted(exact if self._names is None else exact | {NAMED}))
        self._parts = _getters(syntax.as_tree(sorted(exact)))

    def key(self, document: Mapping[str, Json]) -> bytes | None:
        """The key of a question, None where it has none: with approvals, without a number to compare, with what is no JSON."""
        if document.get("approvals"):
            return None
        try:
            sides = self._sides(document)
            if sides is None:
                return None
            try:
                told: Json = [get(document) for get in self._parts]
                if self._names is not None:
                    told.append(self._arguments(document, self._names))
            except (KeyError, TypeError):
                # Not all that is read is there. A tree of what is keeps apart what is absent.
                told = syntax.project(document, self._whole)
            key = marshal.dumps((sides, told), _TYPED)
        except (ValueError, TypeError, RecursionError):
            return None
        return key if len(key) <= _LONG else b"#" + hashlib.blake2b(key, digest_size=32).digest()

    def _sides(self, document: Mapping[str, Json]) -> list[int] | None:
        sides = []
        for path, thresholds in self._compared:
            value: Json = document
            for step in path:
                value = value.get(step) if isinstance(value, dict) else None
            # Only whole numbers have a side; anything else (absent, true, text) goes to the engine.
            if type(value) is not int:
                return None
            sides.append(bisect_right(thresholds, value))
        return sides

    def _arguments(self, document: Mapping[str, Json], names: _Names) -> Json:
        syscall = document["syscall"]
        args = syscall["args"]
        if type(args) is not dict:
            return args
        delegators = _plain(document["session"]).get("delegators", ())
        return {name: args[name] for name in names.of(document["agent"]["name"], syscall["tool"], delegators) if name in args}


def _getters(tree: syntax.Paths, above: Path = ()) -> tuple[Callable[[Mapping[str, Json]], Json], ...]:
    """One for each part of the input that is read. They raise KeyError or TypeError where something of it is absent."""
    return tuple(itemgetter(name) if below is None else _inside(name, below, (*above, name)) for name, below in tree.items())


def _inside(name: str, below: syntax.Paths, path: Path) -> Callable[[Mapping[str, Json]], Json]:
    optional = {leaf for leaf in below if (*path, leaf) in _OPTIONAL}
    if optional:
        return _perhaps(name, _inside(name, {leaf: below[leaf] for leaf in below if leaf not in optional}, path), optional)
    if below and all(deeper is None for deeper in below.values()):
        take = itemgetter(*below)
        return lambda document: take(_plain(document[name]))
    inner = _getters(below, path)

    def get(document: Mapping[str, Json]) -> Json:
        value = _plain(document[name])
        return [take(value) for take in inner]

    return get


def _perhaps(name: str, always: Callable[[Mapping[str, Json]], Json], optional: set[str]) -> Callable[[Mapping[str, Json]], Json]:
    ordered = sorted(optional)

    def get(document: Mapping[str, Json]) -> Json:
        value = document[name]
        told = always(document)
        return told if optional.isdisjoint(value) else {"told": told, **{key: value[key] for key in ordered if key in value}}

    return get


def _plain(value: Json) -> dict[str, Json]:
    # A dict of another kind could make up what is not in it.
    if type(value) is not dict:
        raise TypeError
    return value
