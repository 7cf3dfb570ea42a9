"""The delegate driver: a call of its tools is done by other sessions.

It keeps nothing and starts nothing: `drivers.delegating.Delegations` does, which knows sessions. A call can be made again at any
time, because its children are found by their ids.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentos.abi.canonical import Json
from agentos.abi.syscall import Result
from agentos.drivers.delegating import DelegationFailed, Delegations
from agentos.drivers.port import CallContext, Found, ToolSpec


class DelegateDriver:
    """Performs `delegate: {agents}` tools on `delegations`."""

    def __init__(self, delegations: Delegations | None = None) -> None:
        self._delegations = delegations

    async def call(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        """Have the children do it. Raises DriverError; see `Delegations.delegate` for who has to leave its place meanwhile."""
        if self._delegations is None:
            raise DelegationFailed("nothing is delegated here", where=tool.name)
        return await self._delegations.delegate(tool, args, context)

    async def reconcile(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Found | None:
        """None: the call is made again instead."""
        del tool, args, context
        return None

    async def release(self, session: str) -> None:
        """Nothing is kept for a session here."""

    async def close(self) -> None:
        """Nothing is kept."""
