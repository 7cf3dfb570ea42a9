"""What an Agent says of being kept alive, as the rules of `supervisor.supervise` take it."""

from __future__ import annotations

from collections.abc import Mapping

from agentos.abi.canonical import Json
from agentos.kernel.standing import ReadyAfter, Restart, StandingSpec


def standing_spec(spec: Mapping[str, Json]) -> StandingSpec | None:
    """The block `standing` of an Agent's `spec`, defaults filled in; None where there is none."""
    block = spec.get("standing")
    if block is None:
        return None
    limit, watchdog = block.get("limit", {}), block.get("watchdogSeconds")
    backoff = block.get("backoffSeconds", 1) * 1000
    return StandingSpec(
        goal=block["goal"],
        restart=Restart(block.get("restart", Restart.ON_FAILURE)),
        backoff_ms=backoff,
        max_backoff_ms=max(backoff, block.get("maxBackoffSeconds", 300) * 1000),
        limit_starts=limit.get("starts", 5),
        limit_within_ms=limit.get("withinSeconds", 600) * 1000,
        watchdog_ms=None if watchdog is None else watchdog * 1000,
        ready_after=ReadyAfter(block.get("readyAfter", ReadyAfter.TURN)),
        after=tuple(block.get("after", ())),
        requires=tuple(block.get("requires", ())),
    )
