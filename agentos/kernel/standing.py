"""A standing agent as it is declared: one that is kept alive, as one session at a time. Values only; see `agentos.supervisor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Restart(StrEnum):
    """After which ends a session is followed by another one."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NO = "no"


class ReadyAfter(StrEnum):
    """When a session counts as ready for those that wait for it."""

    CREATED = "created"
    TURN = "turn"


@dataclass(frozen=True, slots=True)
class StandingSpec:
    """`Agent.spec.standing` as it is applied; times in milliseconds."""

    goal: str
    restart: Restart = Restart.ON_FAILURE
    backoff_ms: int = 1_000
    """The pause after the first failure; doubled with each one that follows it."""
    max_backoff_ms: int = 300_000
    limit_starts: int = 5
    limit_within_ms: int = 600_000
    """More than `limit_starts` starts in this time, and it is given up until a person starts it."""
    watchdog_ms: int | None = None
    """How long a session that waits for nobody may say nothing."""
    ready_after: ReadyAfter = ReadyAfter.TURN
    after: tuple[str, ...] = ()
    """Standing agents that are begun first."""
    requires: tuple[str, ...] = ()
    """Standing agents without which it does not run."""
