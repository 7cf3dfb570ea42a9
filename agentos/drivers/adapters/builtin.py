"""The builtin driver: runs the file primitives in a thread, so that a slow disk never holds up the event loop.

Who waits is answered at the deadline. Because a primitive asks its guard before it changes anything, "was it done?" has a sure
answer in all but one moment: between that question and the end of the rename. Only then the outcome is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.abi.syscall import Result
from agentos.drivers.guard import Guard, Stopped
from agentos.drivers.port import CallContext, Found, ToolSpec
from agentos.drivers.primitives import perform


class BuiltinDriver:
    """Performs `builtin: {primitive}` tools in the session's workspace. Keeps nothing warm."""

    async def call(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        """Run the primitive within the tool's deadline. Raises DriverError or OutcomeUnknown."""
        primitive = str(tool.driver["builtin"]["primitive"])
        guard = Guard()
        try:
            async with asyncio.timeout(tool.timeout_ms / 1000):
                return await asyncio.to_thread(perform, primitive, context.workspace, args, guard)
        except TimeoutError as error:
            if guard.stop():
                raise DriverError(
                    f"{tool.name} did not finish within {tool.timeout_ms} ms and changed nothing", where=tool.name
                ) from error
            raise OutcomeUnknown(f"{tool.name} did not finish within {tool.timeout_ms} ms", where=tool.name) from error
        except asyncio.CancelledError:
            guard.stop()
            raise
        except Stopped as error:
            raise DriverError(f"{tool.name} was stopped before it changed anything", where=tool.name) from error

    async def reconcile(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Found | None:
        """None: each primitive can be made again, and nobody asks."""
        del tool, args, context
        return None

    async def release(self, session: str) -> None:
        """Nothing is kept for a session."""

    async def close(self) -> None:
        """Nothing is kept."""
