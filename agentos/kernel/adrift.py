"""Calls that go on while their session has neither harness nor place: whoever waits for a model keeps nobody else from a process.

A harness of a kind that can be used again is told to leave while its calls are under way, once another session needs it. What
comes of them is in the log; the next process of the session finds it there, once all have `ended`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from agentos.abi.errors import Conflict, SequenceConflict
from agentos.kernel.serving import Leave, end_all


@dataclass(frozen=True, slots=True)
class Adrift:
    """Requests whose harness has left, each as the work of answering it."""

    work: Collection[asyncio.Task[Any]]

    async def ended(self) -> None:
        """Wait until all are over."""
        await asyncio.wait(self.work)

    def check(self) -> None:
        """Of those that are over: raises what keeps the session from going on; a refusal has nobody left to be told."""
        for task in self.work:
            error = None if task.cancelled() else task.exception()
            told = isinstance(error, Leave | Conflict) and not isinstance(error, SequenceConflict)
            if error is not None and not told:
                raise error

    async def drop(self) -> None:
        """Nobody waits for them any more: stop them, which is recorded."""
        await end_all(self.work)
