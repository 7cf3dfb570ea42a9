"""What an allowed call does: a tool through its driver, the model through its provider.

An act is made before the decision and called after it. From its call to the driver nothing is awaited: what the gate has looked
at just before still holds when the driver is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from agentos.abi.syscall import Result
from agentos.drivers.port import CallContext, Driver, ModelProvider, ModelRequest, ToolSpec
from agentos.kernel import obligations
from agentos.kernel.journal import Journal
from agentos.kernel.port import Configuration
from agentos.kernel.reply import check_reply, recordable
from agentos.kernel.ruling import Ruling
from agentos.kernel.tools import offer
from agentos.kernel.workspace import Workspaces
from agentos.projections import context

Still = Callable[[], Awaitable[None]]
"""Returns while the session is ours; raises SequenceConflict when it may not be, LogUnavailable when that cannot be told."""

Act = Callable[[Ruling, Still], Awaitable[Result]]
"""Acts as a ruling says: with its arguments, inside its sandbox. A driver that had to prepare asks once more before it acts."""

STILL_US: Final = 2_000_000
"""Microseconds that a look at the log holds for: whoever has stood still for longer since looks again before it acts."""


class Acts:
    """Makes the acts of calls."""

    def __init__(self, drivers: Driver, models: ModelProvider, workspaces: Workspaces) -> None:
        self._drivers = drivers
        self._models = models
        self._workspaces = workspaces

    @property
    def profiles(self) -> frozenset[str]:
        """The sandbox profiles that tools can be called inside of."""
        return self._drivers.profiles

    def of_tool(self, journal: Journal, tool: ToolSpec, call: str) -> Act:
        """The act of a tool call."""

        async def act(ruling: Ruling, still: Still) -> Result:
            folder = self._workspaces.path(journal.tenant, journal.session)
            place = CallContext(journal.tenant, journal.session, call, folder, obligations.sandbox(ruling), still)
            return await self._drivers.call(tool, ruling.args, place)

        return act

    def of_model(self, journal: Journal, configuration: Configuration) -> Act:
        """The act of a model call; the `data` of its result is the reply."""
        agent = configuration.agents[journal.state.agent]

        async def ask(_ruling: Ruling, _still: Still) -> Result:
            request = ModelRequest(
                system=agent.instructions,
                messages=context.messages(journal.state),
                tools=[offer(configuration.tools[name]) for name in agent.tools],
            )
            reply = await self._models.complete(configuration.models[agent.model], request)
            check_reply(reply, taken=journal.state.calls)
            body = {
                "content": [recordable(block) for block in reply.content],
                "stop_reason": reply.stop_reason,
                "input_tokens": reply.input_tokens,
                "output_tokens": reply.output_tokens,
            }
            return Result(content="", data=body)

        return ask
