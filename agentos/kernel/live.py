"""Which sessions are live: created and not over. Of one that waits for a person this is all that is kept in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

_Key = tuple[str, str]
"""Tenant and session."""


class Live:
    """The live sessions of every tenant."""

    def __init__(self) -> None:
        self._sessions: defaultdict[str, set[str]] = defaultdict(set)
        self.told: list[Callable[[str, str], None]] = []
        """Who is told of each session that is over: tenant and session."""

    def __bool__(self) -> bool:
        return any(self._sessions.values())

    def add(self, key: _Key) -> None:
        """It is live."""
        self._sessions[key[0]].add(key[1])

    def adopt(self, tenant: str, sessions: Iterable[str]) -> None:
        """These are live too."""
        self._sessions[tenant].update(sessions)

    def over(self, key: _Key) -> None:
        """It has ended. May be told more than once."""
        self.discard(key)
        for told in self.told:
            told(*key)

    def discard(self, key: _Key) -> None:
        """It is not, or not ours to count."""
        self._sessions[key[0]].discard(key[1])

    def count(self, tenant: str) -> int:
        """How many a tenant has."""
        return len(self._sessions[tenant])

    def of(self, tenant: str) -> frozenset[str]:
        """Those of a tenant."""
        return frozenset(self._sessions[tenant])
