"""What surrounds every call of a driver: its credentials are lent to it, and no more of them comes back than went in.

    guarded = Guarded(broker, tracked)
    result = await guarded.call(tool, context, lambda lent: driver.call(tool, args, lent))

In order: leases for what the tool's `credentials` name; a look at the workspace; the call; a look at what it has changed; the
masks of the session over its result, or over the error that it ended with; the check of the declared output. The log is told what
was used.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, TypeVar

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, DriverError, OutcomeUnknown
from agentos.abi.syscall import Result
from agentos.credentials.broker import Broker
from agentos.credentials.lease import CredentialUnavailable
from agentos.credentials.mask import Masker
from agentos.drivers.discreet import Discreet
from agentos.drivers.port import CallContext, Found, ToolSpec
from agentos.drivers.result_schema import misfit
from agentos.drivers.tracked import Mask, Tracked
from agentos.files.quota import QuotaExceeded

log = logging.getLogger(__name__)

T = TypeVar("T")
Act = Callable[[CallContext], Awaitable[T]]

_LARGE: Final = 64 * 1024
"""Bytes of a result from which on it is masked in a thread, so that others go on meanwhile."""


class Guarded:
    """See the module. Without a `broker` no tool with credentials can be called; without `tracked` nobody looks at files."""

    def __init__(self, broker: Broker | None, tracked: Tracked | None) -> None:
        self._broker = broker
        self._tracked = tracked

    async def call(self, tool: ToolSpec, context: CallContext, act: Act[Result]) -> Result:
        """Perform a call by `act`. Raises what it raises, masked; CredentialUnavailable before anything was done."""
        async with self._lent(tool, context) as lent:
            result, change = await self._quiet(tool, lent, lambda given: self._watched(tool, given, act))
            masker = self._masker(context)
            if not masker.empty:
                result = await _apart(result, lambda: _masked(result, masker))
            told = _acted(result, lent, change)
            reason = None if tool.output_schema is None or result.is_error else misfit(tool.output_schema, result.data)
            if reason is not None:
                content = f"the tool was called, and its result is not as it is declared: {reason}\n{result.content}"
                return replace(result, content=content, data=None, is_error=True, acted=told)
            return replace(result, acted=told)

    async def ask(self, tool: ToolSpec, context: CallContext, act: Act[Found | None]) -> Found | None:
        """Ask by `act` what came of an earlier call."""
        async with self._lent(tool, context) as lent:
            found = await self._quiet(tool, lent, act)
            masker = self._masker(context)
            if found is None or masker.empty:
                return found
            return replace(found, reason=masker.text(found.reason), result=masker.text(found.result))

    def _masker(self, context: CallContext) -> Masker:
        return Masker() if self._broker is None else self._broker.masker(context.tenant, context.session)

    def _mask(self, context: CallContext) -> Mask | None:
        masker = self._masker(context)
        return None if masker.empty else masker.bytes

    @asynccontextmanager
    async def _lent(self, tool: ToolSpec, context: CallContext) -> AsyncIterator[CallContext]:
        broker = self._broker
        if broker is not None and context.lent:
            await broker.recall(context.tenant, context.session, context.lent)
        if broker is not None and context.net is not None:
            context = replace(context, net=Discreet(context.net, lambda: self._masker(context)))
        if not tool.credentials:
            yield context
            return
        if broker is None:
            raise CredentialUnavailable
        refs = {one.secret: context.secrets.get(one.secret) for one in tool.credentials}
        async with broker.lease(context.tenant, context.session, context.call, context.decided[1], refs) as held:
            yield replace(context, leases=held)

    async def _watched(self, tool: ToolSpec, context: CallContext, act: Act[Result]) -> tuple[Result, int | None]:
        tracked = self._tracked
        if tracked is None:
            return await act(context), None
        await tracked.before(tool, context, self._mask(context))
        try:
            result = await act(context)
        except BaseException:
            # What it changed until then is its change all the same; how it ended is what the call says.
            try:
                await tracked.after(tool, context, self._mask(context))
            except AgentOSError as error:
                said = self._masker(context).text(error.message)
                log.warning("what a call of tool %s that failed has changed could not be recorded: %s", tool.name, said)
            raise
        try:
            change = await tracked.after(tool, context, self._mask(context))
        except QuotaExceeded:
            # Recorded, and too much: the call has failed, and its caller is told why.
            raise
        except DriverError as error:
            message = f"the call was made, and what it changed could not be recorded: {error.message}"
            raise OutcomeUnknown(message, where=error.where, mend=error.mend) from error
        return result, change

    async def _quiet(self, tool: ToolSpec, context: CallContext, act: Act[T]) -> T:
        """What `act` gives; what it raises says no leased value, nor does what that was raised from."""
        try:
            return await act(context)
        except AgentOSError as error:
            masker = self._masker(context)
            if not masker.empty:
                silence(error, masker)
                raise error from None
            raise
        except Exception as error:
            masker = self._masker(context)
            if masker.empty:
                raise
            log.error("tool %s failed in an unexpected way: %s", tool.name, masker.text(traceback.format_exc()))  # noqa: TRY400
            told = masker.text(f"{type(error).__name__}: {error}")
        raise RuntimeError(f"the driver of tool {tool.name} failed in an unexpected way: {told}")


def silence(error: AgentOSError, masker: Masker) -> None:
    """Mask all that an error says, and cut it off from the errors that it came of."""
    for name, value in vars(error).items():
        if isinstance(value, tuple):
            setattr(error, name, tuple(masker.json(list(value))))
        elif isinstance(value, Mapping):
            setattr(error, name, masker.json(dict(value)))
        elif isinstance(value, (str, int, list)):
            setattr(error, name, masker.json(value))
    error.args = tuple(masker.text(one) if isinstance(one, str) else one for one in error.args)
    error.__notes__ = [masker.text(one) for one in getattr(error, "__notes__", ())]
    error.__cause__ = error.__context__ = None


def _masked(result: Result, masker: Masker) -> Result:
    acted: dict[str, Json] = masker.json(dict(result.acted))
    return replace(result, content=masker.text(result.content), data=masker.json(result.data), acted=acted)


def _acted(result: Result, context: CallContext, change: int | None) -> Mapping[str, Json]:
    acted: dict[str, Json] = dict(result.acted)
    if change is not None:
        acted["change"] = change
    if context.leases is not None and context.leases.leases:
        acted["leases"] = [lease.to_dict() for lease in context.leases.leases]
    seq, digest = context.decided
    if acted and digest:
        acted["decision"] = {"seq": seq, "hash": digest}
    return acted


async def _apart(result: Result, work: Callable[[], T]) -> T:
    # How much structured data there is only writing it down would tell.
    return await asyncio.to_thread(work) if len(result.content) > _LARGE or result.data is not None else work()
