"""The sessions of standing agents, as the index has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.projections.read_model import ReadModel

_NEWEST: Final = "SELECT id, agent, state, created_ms, updated_ms, model_calls FROM sessions WHERE"

_LIVE: Final = f"""{_NEWEST} state IN ('deferred', 'running', 'waiting', 'paused') AND +origin = 'standing'
ORDER BY created_ms DESC, id DESC LIMIT ?"""
"""By the index of states: few are live, while those of standing agents grow. The plus sign keeps the other index out."""

_OF_AGENT: Final = f"{_NEWEST} origin = 'standing' AND agent = ? ORDER BY created_ms DESC, id DESC LIMIT ?"

Row = Mapping[str, Json]
"""`{id, agent, state, created_ms, updated_ms, model_calls}` of a session."""


def live(index: ReadModel, *, limit: int) -> list[Row]:
    """Those that are not over, newest first. Blocks; call it in a worker thread."""
    with index.reader() as connection:
        return [dict(row) for row in connection.execute(_LIVE, (limit,))]


def histories(index: ReadModel, limits: Mapping[str, int]) -> dict[str, list[Row]]:
    """Of each agent its newest sessions, newest first, at most so many. Blocks; call it in a worker thread."""
    with index.reader() as connection:
        return {agent: [dict(row) for row in connection.execute(_OF_AGENT, (agent, limit))] for agent, limit in limits.items()}
