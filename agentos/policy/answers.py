"""One loaded engine and the answers that it gave: what every decider stands on.

A decision is read strictly, and where there is none it is a denial with the rule `policy.failed`. Kept are answers to questions
without approvals that neither failed nor ask somebody; obligations are part of the answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.decision import FAILED, Decision, Verdict, deny, parse_decision
from agentos.abi.errors import AgentOSError, EngineUnavailable
from agentos.policy.port import PolicyEngine
from agentos.policy.sameness import Sameness

CACHE_SIZE: Final = 4096
"""Decisions kept per entry of an engine; each takes well below 2 KB."""


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the engine was loaded. `uncached`: no key could be made, the engine was asked."""

    hits: int
    misses: int
    uncached: int
    size: int


class Answers:
    """Asks one engine, and keeps what it said to the entries in `kept`."""

    def __init__(self, engine: PolicyEngine | None, kept: Mapping[str, Sameness | None], *, size: int = CACHE_SIZE) -> None:
        """`engine` None: everything is denied with `refusal`. `kept` is by entry, `size` for each.

        Nothing is kept of an entry that has None, for want of telling questions apart, nor of any with size 0.
        """
        self.engine = engine
        self.refusal = deny(FAILED, "there is no policy engine")
        self._kept: dict[str, tuple[Sameness | None, OrderedDict[bytes, Decision]]] = {}
        if size:
            self._kept = {entry: (sameness, OrderedDict()) for entry, sameness in kept.items()}
        self._size = size
        self._hits = self._misses = self._uncached = 0

    @classmethod
    def none(cls, error: AgentOSError) -> Answers:
        """Without an engine: `error` says why, and how to mend it."""
        answers = cls(None, {})
        answers.refusal = _failed("there is no policy engine", error)
        return answers

    async def decide(self, entry: str, document: Mapping[str, Json], within: float) -> Decision:
        """The decision of `data.<entry>`, kept or asked for. Never raises for anything that policy does: it denies."""
        cache = self._kept.get(entry)
        if cache is None or (self.engine is not None and not self.engine.answering):
            return await self._ask(entry, document, within)
        sameness, kept = cache
        key = sameness.key(document) if sameness is not None else None
        if key is None:
            self._uncached += 1
            return await self._ask(entry, document, within)
        known = kept.get(key)
        if known is not None:
            self._hits += 1
            kept.move_to_end(key)
            return known
        self._misses += 1
        decision = await self._ask(entry, document, within)
        if not decision.failed and decision.effect is not Verdict.ASK:
            kept[key] = decision
            if len(kept) > self._size:
                kept.popitem(last=False)
        return decision

    async def _ask(self, entry: str, document: Mapping[str, Json], within: float) -> Decision:
        if self.engine is None:
            return self.refusal
        try:
            answer = await self.engine.evaluate(entry, document, within=within)
        except EngineUnavailable as error:
            return _failed("policy gave no decision", error)
        return parse_decision(answer)

    def stats(self) -> CacheStats:
        """How the cache fared."""
        size = sum(len(kept) for _, kept in self._kept.values())
        return CacheStats(self._hits, self._misses, self._uncached, size)

    def close(self) -> None:
        """Free the engine and forget what it said; asking afterwards denies."""
        self._kept = {}
        if self.engine is not None:
            self.engine.close()


def _failed(what: str, error: AgentOSError) -> Decision:
    return deny(FAILED, f"{what}: {error.message}" + (f"; {error.mend}" if error.mend else ""))
