"""Asking policy: one input document in, one Decision out, and a denial with a sentence wherever there is no answer.

A Decider holds the engine of one tenant at one revision of its configuration. Answers are kept: the key is the input
without the parts that no loaded module reads (told from the syntax trees), so that two sessions that make the same call
share one evaluation. The shipped rules read the clock and the budget in comparisons only; for them the key holds on
which side of every threshold the value lies. A tenant's rule that reads them otherwise puts the value itself in the key.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.decision import Decision, deny, parse_decision
from agentos.abi.errors import AgentOSError, EngineUnavailable, PolicyError
from agentos.policy import syntax
from agentos.policy.adapters.opa import parse
from agentos.policy.bundle import axioms, policy_digest
from agentos.policy.port import ADMISSION_SECONDS, DECISION_SECONDS, Module, PolicyEngine, PolicyEngineFactory

SYSCALL: Final = "agentos.syscall.decision"
ADMISSION: Final = "agentos.admission.decision"
CONTROL: Final = "agentos.control.decision"

CACHE_SIZE: Final = 4096
"""Decisions kept per engine; each takes well below 2 KB."""

_COMPARED: Final = frozenset({("now",), ("budget", "calls"), ("budget", "tokens")})
"""Input paths that shipped rules only compare with numbers of the data, and never print (a test holds them to it)."""


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the engine was loaded. `uncached`: no key could be made, the engine was asked."""

    hits: int
    misses: int
    uncached: int
    size: int


class Decider:
    """Decides the syscalls and the admissions of one tenant at one revision."""

    def __init__(self, engine: PolicyEngine | None, digest: str, cache: _Cache, refusal: Decision | None = None) -> None:
        self._within = DECISION_SECONDS
        self._engine = engine
        self._cache = cache
        self._refusal = refusal
        self.digest = digest
        """`sha256:…` of the modules in force: the `policydigest` of events."""

    @classmethod
    async def load(
        cls,
        factory: PolicyEngineFactory,
        modules: Sequence[Module],
        data: Mapping[str, Json],
        *,
        cache_size: int = CACHE_SIZE,
        decision_seconds: float = DECISION_SECONDS,
    ) -> Decider:
        """Load `modules` (the axioms and a tenant's own) with the root document `data`.

        A syscall that is not decided after `decision_seconds` is denied.

        Raises PolicyError for Rego that does not load or that stands outside of `agentos.<target>.rules.<name>`;
        EngineUnavailable without an engine (`Decider.denying` then denies everything with that error's sentence).
        """
        _keep_to_their_packages(modules)
        engine = await factory.load(modules, data)
        decider = cls(engine, policy_digest(modules), _Cache(_reads(modules), _thresholds(data), cache_size))
        decider._within = decision_seconds
        # Turns in progress keep the decider of their revision: its threads end when the last of them lets go of it.
        weakref.finalize(decider, engine.close)
        return decider

    @classmethod
    def denying(cls, error: AgentOSError) -> Decider:
        """A decider that denies everything, because policy could not be loaded: `error` says why and how to mend it."""
        return cls(
            None, policy_digest(()), _Cache(None, {}, 0), _no_decision("kernel.no-engine", "there is no policy engine", error)
        )

    async def decide_syscall(self, document: Mapping[str, Json]) -> Decision:
        """Decide one syscall (`schemas/v1/policy-input.json`). Never raises for anything that policy does: it denies."""
        return await self._decide(SYSCALL, document, self._within)

    async def admit(self, document: Mapping[str, Json]) -> Decision:
        """Decide one change of the configuration (`schemas/v1/admission-input.json`)."""
        return await self._decide(ADMISSION, document, ADMISSION_SECONDS)

    def stats(self) -> CacheStats:
        """How the cache fared."""
        return self._cache.stats()

    def close(self) -> None:
        """Free the engine; deciding afterwards denies."""
        if self._engine is not None:
            self._engine.close()

    async def _decide(self, entry: str, document: Mapping[str, Json], within: float) -> Decision:
        if self._engine is None:
            return self._refusal or deny("kernel.no-engine", "there is no policy engine")
        # A change is decided once; only syscalls repeat.
        key = self._cache.key(entry, document) if entry != ADMISSION else None
        known = self._cache.get(key)
        if known is not None:
            return known
        try:
            answer = await self._engine.evaluate(entry, document, within=within)
        except EngineUnavailable as error:
            return _no_decision("kernel.no-decision", "policy gave no decision", error)
        decision = parse_decision(answer)
        self._cache.put(key, decision)
        return decision


class ControlDecider:
    """Decides which principal may use which verb of the control door; the same for every tenant and revision."""

    def __init__(self, decider: Decider) -> None:
        self._decider = decider

    @classmethod
    async def load(cls, factory: PolicyEngineFactory) -> ControlDecider:
        """Load the shipped control policies. Raises PolicyError, EngineUnavailable."""
        return cls(await Decider.load(factory, axioms("control"), {"agentos": {}}))

    async def decide(self, document: Mapping[str, Json]) -> Decision:
        """Decide one command (`schemas/v1/control-input.json`)."""
        return await self._decider._decide(CONTROL, document, DECISION_SECONDS)  # noqa: SLF001 (one concept, two faces)

    def stats(self) -> CacheStats:
        """How the cache fared."""
        return self._decider.stats()

    def close(self) -> None:
        """Free the engine; deciding afterwards denies."""
        self._decider.close()


def _no_decision(rule: str, what: str, error: AgentOSError) -> Decision:
    return deny(rule, f"{what}: {error.message}" + (f"; {error.mend}" if error.mend else ""))


def _keep_to_their_packages(modules: Sequence[Module]) -> None:
    """Refuse a tenant's module that would add to a shipped package: it could allow, or answer in its place."""
    shipped = set(axioms())
    reserved = {syntax.package(parse(module)) for module in shipped}
    for module in modules:
        if module in shipped:
            continue
        package = syntax.package(parse(module))
        own = len(package) == 4 and package[0] == "agentos" and package[1] in {"syscall", "admission"} and package[2] == "rules"
        if not own or package in reserved:
            raise PolicyError(
                f"package {'.'.join(package)} is not for a tenant's policy",
                where=f"{module.path}:1",
                mend="name it agentos.syscall.rules.<name> or agentos.admission.rules.<name>, with a name of its own",
            )


@dataclass(frozen=True, slots=True)
class _Reads:
    """`exact`: parts of the input whose value is in the key. `compared`: parts of which only the side of each threshold is."""

    exact: syntax.Paths
    compared: tuple[tuple[str, ...], ...]


def _reads(modules: Iterable[Module]) -> _Reads | None:
    """What the modules read of their input; None: it cannot be told, nothing is kept."""
    shipped = set(axioms())
    own = syntax.input_paths(parse(module) for module in modules if module not in shipped)
    axiomatic = syntax.input_paths(parse(module) for module in modules if module in shipped)
    if own is None or axiomatic is None:
        return None
    compared = {path for path in axiomatic & _COMPARED if not any(path[: len(other)] == other for other in own)}
    return _Reads(syntax.as_tree((own | axiomatic) - compared), tuple(sorted(compared)))


def _thresholds(data: Mapping[str, Json]) -> dict[tuple[str, ...], list[int]]:
    """Every number of the data with which the shipped rules compare a part of the input, in order."""
    facts = data.get("agentos", {})
    budgets = [agent.get("budget", {}) for agent in facts.get("agents", {}).values()]
    ends = {
        grant["until"]
        for tools in facts.get("grants", {}).values()
        for grants in tools.values()
        for grant in grants
        if "until" in grant
    }
    return {
        ("now",): sorted(ends),
        ("budget", "calls"): sorted({budget["calls"] for budget in budgets if "calls" in budget}),
        ("budget", "tokens"): sorted({budget["tokens"] for budget in budgets if "tokens" in budget}),
    }


class _Cache:
    """The last decisions by what was read of their input. It writes the input as the engine does: equal keys, equal questions."""

    def __init__(self, reads: _Reads | None, thresholds: Mapping[tuple[str, ...], Sequence[int]], size: int) -> None:
        self._reads = reads if size else None
        self._thresholds = thresholds
        self._size = size
        self._kept: OrderedDict[bytes, Decision] = OrderedDict()
        self._encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
        self._hits = self._misses = self._uncached = 0

    def key(self, entry: str, document: Mapping[str, Json]) -> bytes | None:
        """The key of a question, None where it has none."""
        if self._reads is None:
            return None
        sides: list[int] = []
        for path in self._reads.compared:
            value: Json = document
            for step in path:
                value = value.get(step) if isinstance(value, Mapping) else None
            # Only whole numbers have a side; anything else (absent, true, text) goes to the engine.
            if type(value) is not int:
                return None
            sides.append(bisect_right(self._thresholds[path], value))
        try:
            text = self._encode([entry, sides, syntax.project(document, self._reads.exact)])
        except (TypeError, ValueError, RecursionError):
            return None
        return hashlib.sha256(text.encode("ascii")).digest()

    def get(self, key: bytes | None) -> Decision | None:
        if key is None:
            self._uncached += 1
            return None
        known = self._kept.get(key)
        if known is None:
            self._misses += 1
        else:
            self._hits += 1
            self._kept.move_to_end(key)
        return known

    def put(self, key: bytes | None, decision: Decision) -> None:
        if key is not None:
            self._kept[key] = decision
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)

    def stats(self) -> CacheStats:
        return CacheStats(self._hits, self._misses, self._uncached, len(self._kept))
