"""Calls of clients outside that can be given up while they act: the process, or the request, is stopped, and the log says so.

What is stopped has perhaps done its work already, so its outcome is unknown, and nobody makes it again. Calls that wait for
others (a lock, a signal, a delegation) and those of the kernel's own hands are not stopped: they are short, or end by what they
wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import OutcomeUnknown
from agentos.abi.syscall import Result
from agentos.drivers.port import CallContext, Driver, Found, ToolSpec

STOPPABLE: Final = frozenset({"exec", "mcp", "http"})
"""The drivers whose calls can be stopped."""

_Key = tuple[str, str, str]
"""Tenant, session, call."""


class Stopping:
    """A driver like the one that it is made of; `stop` ends one of its calls."""

    def __init__(self, drivers: Driver) -> None:
        self._drivers = drivers
        self._acting: dict[_Key, asyncio.Task[Result]] = {}
        self._stopped: set[_Key] = set()

    async def call(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        """See `drivers.port.Driver`. Raises OutcomeUnknown for a call that was stopped."""
        if STOPPABLE.isdisjoint(tool.driver):
            return await self._drivers.call(tool, args, context)
        key = (context.tenant, context.session, context.call)
        task = self._acting[key] = asyncio.ensure_future(self._drivers.call(tool, args, context))
        try:
            return await task
        except asyncio.CancelledError:
            # Who was cancelled from above has ended its task as well, whatever was asked of it besides.
            if key in self._stopped and not _cancelled_from_above():
                raise OutcomeUnknown("given up by its client while it acted: whether it took effect is unknown") from None
            raise
        finally:
            del self._acting[key]
            self._stopped.discard(key)

    def stop(self, tenant: str, session: str, call: str) -> bool:
        """End a call that acts; whether there was one that can be stopped."""
        task = self._acting.get((tenant, session, call))
        if task is None or task.done():
            return False
        self._stopped.add((tenant, session, call))
        task.cancel()
        return True

    async def reconcile(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Found | None:
        """See `drivers.port.Driver`."""
        return await self._drivers.reconcile(tool, args, context)

    async def release(self, session: str) -> None:
        """See `drivers.port.Driver`."""
        await self._drivers.release(session)

    async def close(self) -> None:
        """See `drivers.port.Driver`."""
        await self._drivers.close()


def _cancelled_from_above() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
