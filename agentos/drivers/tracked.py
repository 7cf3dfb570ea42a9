"""Tracked: files that a tool's process changes are recorded as changes of its call, by whoever keeps versions.

    await tracking.before(tool, context, mask)        # what has changed by itself since the last look is nobody's
    ...                                               # the call
    number = await tracking.after(tool, context, mask)

A process says nothing of what it writes, so the workspace is looked at around each call of a tool whose process can write there,
whatever effect the tool is declared to have. Two calls that are at work at the same time cannot be told apart: what both changed
is the change of whichever ends first, and it names the other one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from agentos.abi.errors import AgentOSError
from agentos.drivers.editing import author_of, place_of
from agentos.drivers.port import CallContext, ToolSpec, starts_process
from agentos.files.guard import Guard, Stopped
from agentos.files.quota import QuotaExceeded
from agentos.files.versions import FOUND, Author, Change, Op, Place, Versions
from agentos.sandbox.profile import Access, Isolation

log = logging.getLogger(__name__)

Mask = Callable[[bytes], bytes]
"""Takes leased values out of a content. May be called from any thread."""


class Tracked(Protocol):
    """Looks at the workspace around calls whose process can change it; for other calls it does nothing."""

    async def before(self, tool: ToolSpec, context: CallContext, mask: Mask | None) -> None:
        """Record what has changed since it was last looked at, as nobody's. Raises DriverError when that cannot be kept, and
        QuotaExceeded where nothing more may be written.

        `mask` None: there is nothing to mask, and no file is read for that.
        """

    async def after(self, tool: ToolSpec, context: CallContext, mask: Mask | None) -> int | None:
        """Record what the call has changed, and give the number of that change; None: nothing.

        Changed files that hold a leased value are masked first, in the workspace; so they are before a call. Raises DriverError
        when it cannot be kept, QuotaExceeded when it was, and is more than the tenant may have.
        """


class Tracking:
    """`Tracked` by `versions`."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._at_work: dict[Place, dict[str, set[str]]] = {}
        """The calls that are at work in a place, each with those that were at work meanwhile."""

    async def before(self, tool: ToolSpec, context: CallContext, mask: Mask | None) -> None:
        """See `Tracked.before`."""
        if not can_write(tool, context):
            return
        place, guard = place_of(context), Guard()
        try:
            await asyncio.to_thread(self._capture, place, context, FOUND, guard, mask)
            self._versions.require(place)
        except BaseException:
            guard.stop()
            raise
        others = self._at_work.setdefault(place, {})
        for meanwhile in others.values():
            meanwhile.add(context.call)
        others[context.call] = set(others)

    async def after(self, tool: ToolSpec, context: CallContext, mask: Mask | None) -> int | None:
        """See `Tracked.after`. Whoever stops waiting does not stop it: what was done has to be told of."""
        if not can_write(tool, context):
            return None
        place = place_of(context)
        calls = self._at_work.get(place, {})
        meanwhile = calls.pop(context.call, set())
        if not calls:
            self._at_work.pop(place, None)
        note = f"at work at the same time: {', '.join(sorted(meanwhile))}" if meanwhile else ""
        looking = asyncio.ensure_future(asyncio.to_thread(self._capture, place, context, author_of(context, note), Guard(), mask))
        try:
            change = await asyncio.shield(looking)
        except asyncio.CancelledError:
            looking.add_done_callback(_told)
            raise
        number = None if change is None else change.number
        try:
            self._versions.require(place)
        except QuotaExceeded as error:
            # It stays what it did: taking it back is for those who decide what goes.
            told = QuotaExceeded(f"the call was made, and now {error.message}", where=error.where, mend=error.mend)
            told.acted = {} if number is None else {"change": number}
            raise told from error
        return number

    def ended(self, tenant: str, session: str) -> None:
        """The session is over: let go of what is held open for it."""
        place = Place(tenant, "session", session)
        if place not in self._at_work:
            self._versions.release(place)

    def _capture(self, place: Place, context: CallContext, author: Author, guard: Guard, mask: Mask | None) -> Change | None:
        op: Op = "found" if author is FOUND else "write"
        try:
            return self._versions.capture(place, context.workspace, author, guard, op=op, mask=mask)
        except Stopped:
            return None


def can_write(tool: ToolSpec, context: CallContext) -> bool:
    """Whether a call starts, or reaches, a process that can write in the workspace."""
    if not starts_process(tool):
        return False
    # Where nothing is set apart, nothing keeps a process from writing.
    return context.profile.workspace is Access.WRITE or context.profile.isolation is Isolation.UNSAFE_NONE


def _told(looking: asyncio.Future[Change | None]) -> None:
    if not looking.cancelled() and isinstance(error := looking.exception(), AgentOSError):
        log.warning("what a stopped call has changed could not be recorded: %s", error.message)
