"""What has to hold before a session may begin: a time has come, other sessions have ended.

begin = Precondition(not_before_ms=1_000, after=("s-1",))
begin.look(now_ms=500, outcomes={"s-1": None})               # Deferred(until_ms=1000, sessions=("s-1",))
begin.look(now_ms=1_500, outcomes={"s-1": "finished"})       # Ready()
begin.look(now_ms=1_500, outcomes={"s-1": "failed"})         # Impossible("session s-1 failed, and …")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json

FINISHED: Final = "finished"
"""The state of a session that ended well."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Nothing is in the way."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """Not yet: it is too early before `until_ms` (None: the time is no matter), and these sessions have not ended."""

    until_ms: int | None
    sessions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Impossible:
    """Never: `reason` says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Precondition:
    """`after`: sessions that must have finished well; `after_any`: that must have ended, however."""

    not_before_ms: int | None = None
    after: tuple[str, ...] = ()
    after_any: tuple[str, ...] = ()

    @property
    def sessions(self) -> tuple[str, ...]:
        """Every session that is waited for, each once."""
        return tuple(dict.fromkeys((*self.after, *self.after_any)))

    def look(self, now_ms: int, outcomes: Mapping[str, str | None]) -> Ready | Deferred | Impossible:
        """Whether it holds. `outcomes`: the state in which each session ended, None for one that has not.

        A session that is missing among them does not exist, or no more.
        """
        for name in self.sessions:
            if name not in outcomes:
                return Impossible(f"session {name} does not exist")
        for name in self.after:
            outcome = outcomes[name]
            if outcome not in {None, FINISHED}:
                return Impossible(f"session {name} {_past(outcome)}, and this one was to begin after it had finished")
        waiting = tuple(name for name in self.sessions if outcomes[name] is None)
        early = self.not_before_ms is not None and now_ms < self.not_before_ms
        if waiting or early:
            return Deferred(self.not_before_ms if early else None, waiting)
        return Ready()

    def to_dict(self) -> dict[str, Json]:
        """As the first event of a session carries it; what is not asked for is left out."""
        told: dict[str, Json] = {}
        if self.not_before_ms is not None:
            told["not_before"] = self.not_before_ms
        if self.after:
            told["after"] = list(self.after)
        if self.after_any:
            told["after_any"] = list(self.after_any)
        return told


def precondition(told: Mapping[str, Json]) -> Precondition:
    """What `to_dict` told."""
    return Precondition(told.get("not_before"), tuple(told.get("after", ())), tuple(told.get("after_any", ())))


def _past(outcome: str | None) -> str:
    return {"failed": "failed", "cancelled": "was cancelled", "halted": "was halted"}.get(outcome or "", f"is {outcome}")
