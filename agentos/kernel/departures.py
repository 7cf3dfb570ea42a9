"""Requests that leave, on behalf of one call: each is a syscall of its own, `net-request`, and passes the gate like any other.

Whoever makes a request (the proxy of a sandbox, the `http` driver, a client of an MCP server) asks first, and tells how it ended.
In between the gate waits, as it does for a driver. Once the call is over nothing more may leave for it, and what was under way
is given up, so that everything stands in the log before the outcome of the call does. Where policy halts the session because of
a request, the call is stopped, and the session is over once the outcome of the call is recorded (`kernel.gate`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from types import TracebackType
from typing import Any, Final, Self

from agentos.abi.canonical import Json
from agentos.abi.decision import Verdict
from agentos.abi.errors import AgentOSError, DriverError, Frozen, LogUnavailable, OutcomeUnknown, SequenceConflict
from agentos.abi.syscall import NET_REQUEST, Result, ToolEffect
from agentos.drivers.port import ToolSpec
from agentos.egress.asking import NetDenied, NetRequest
from agentos.projections.session import Call, Step

NET_IDS: Final = "net-"
"""How the ids of these calls begin; what follows is the number of the decision they belong to, and their own."""

MOST: Final = 256
"""Requests of one call that may be under way at one time."""

MOST_IN_ALL: Final = 10_000
"""Requests of one call."""

MOST_DENIED: Final = 1000
"""Requests of one call that may be denied: whoever goes on behind that only wants to fill the log."""

MOST_TEXT: Final = 4 * 1024 * 1024
"""Characters of hosts and paths that the requests of one call may have together: all of them stand in the log."""

REQUEST: Final = ToolSpec(
    name=NET_REQUEST,
    description="A request that leaves.",
    effect=ToolEffect.EXTERNAL,
    idempotent=False,
    input_schema={},
    driver={"net": {}},
)
"""What the gate knows of them: they are no Tool that anybody could declare or call."""

Go = Callable[[], Awaitable[Result]]
"""Lets a request go, and waits for what comes of it."""

Perform = Callable[[str, dict[str, Json], Go], Awaitable[Call]]
"""Takes a request through the gate: its id, its arguments, and what is done once it is allowed."""

_OVER: Final = "the call that it was made for is over"
_HALTED: Final = "policy has halted the session"


class Departure:
    """One request that was allowed: `agentos.egress.asking.Permit`."""

    def __init__(self) -> None:
        self._granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outcome: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[Call] | None = None

    async def act(self) -> Result:
        """What the gate does with it: let it go, and wait for word."""
        if not self._granted.done():
            self._granted.set_result(None)
        return await self._outcome

    async def decided(self) -> Call | None:
        """Wait for the decision: None if it may go."""
        if self.task is None:
            raise RuntimeError("it was not asked for")
        waited: set[asyncio.Future[Any]] = {self._granted, self.task}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        return None if self._granted.done() else self.task.result()

    async def finished(self, *, status: int | None, sent: int, received: int, address: str) -> None:
        """See `Permit.finished`."""
        data: dict[str, Json] = {"sent": sent, "received": received, "address": address}
        if status is not None:
            data["status"] = status
        if not self._outcome.done():
            self._outcome.set_result(Result("", data))
        await self.ended()

    async def failed(self, message: str) -> None:
        """See `Permit.failed`."""
        self.give_up(message)
        await self.ended()

    def give_up(self, message: str) -> None:
        """The same, without waiting until the log has it."""
        if not self._outcome.done():
            self._outcome.set_exception(DriverError(message[:1000]))
            self._outcome.exception()  # nobody waits for it where the request is not allowed after all

    async def ended(self) -> None:
        """Return once the log has its outcome, or will not have it."""
        if self.task is not None:
            await asyncio.wait({self.task})


class Departures:
    """The way out for one call: `agentos.egress.asking.Gatekeeper` while the block is entered."""

    def __init__(self, perform: Perform, number: int, about: dict[str, Json]) -> None:
        """`number` is that of the decision about the call; `about` says which call, tool and sandbox they are made for."""
        self._perform = perform
        self._number = number
        self._about = about
        self._made = self._denied = self._text = 0
        self._open: set[Departure] = set()
        self._over = ""
        """Why nothing may leave any more."""
        self._broken: AgentOSError | None = None
        self._halted = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over = self._over or _OVER
        # All of them are told before any is waited for: whoever is cancelled while it waits leaves none open.
        for departure in self._open:
            departure.give_up(self._over)
        await _all_ended([departure.task for departure in self._open if departure.task is not None])
        if self._broken is not None and error is None:
            # The log has more than we know of, or cannot be told anything: the call's own outcome would fail as well.
            raise self._broken

    async def during(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What `work` gives, which makes the requests. Raises OutcomeUnknown when it was stopped, as policy halts the session."""
        working = asyncio.ensure_future(work)
        halting = asyncio.ensure_future(self._halted.wait())
        try:
            await asyncio.wait((working, halting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            halting.cancel()
            stopped = not working.done()
            if stopped:
                working.cancel()
                await asyncio.wait((working,))
        if stopped and (working.cancelled() or working.exception() is not None):
            raise OutcomeUnknown(f"it was stopped: {_HALTED} because of a request that it made")
        return working.result()

    async def ask(self, request: NetRequest) -> Departure:
        """See `Gatekeeper.ask`."""
        self._check(request)
        self._made += 1
        departure = Departure()
        name = f"{NET_IDS}{self._number}-{self._made}"
        work = self._perform(name, {**self._about, **request.args()}, departure.act)
        departure.task = asyncio.ensure_future(work)
        self._open.add(departure)
        departure.task.add_done_callback(lambda task: self._done(departure, task))
        try:
            call = await departure.decided()
        except Frozen as error:
            raise NetDenied(error.message) from error
        except asyncio.CancelledError:
            await departure.failed("nobody waits for it any more")
            raise
        if call is None:
            return departure
        self._denied += 1
        if call.decision is not None and call.decision["effect"] == Verdict.HALT:
            self._over = _HALTED
            self._halted.set()
        raise NetDenied(_why(call, request))

    def _check(self, request: NetRequest) -> None:
        """Raise NetDenied if nothing more may leave for the call."""
        if self._over:
            raise NetDenied(self._over)
        if len(self._open) >= MOST:
            raise NetDenied(f"{MOST} requests are under way for this call already")
        if self._made >= MOST_IN_ALL:
            raise NetDenied(f"the call has made {MOST_IN_ALL} requests already")
        if self._denied >= MOST_DENIED:
            raise NetDenied(f"the call was denied {MOST_DENIED} requests already")
        self._text += len(request.host) + len(request.path or "")
        if self._text > MOST_TEXT:
            raise NetDenied("the requests of the call have named too much already")

    def _done(self, departure: Departure, task: asyncio.Task[Call]) -> None:
        self._open.discard(departure)
        if not task.cancelled() and isinstance(error := task.exception(), (LogUnavailable, SequenceConflict)):
            self._broken = self._broken or error


async def _all_ended(tasks: Collection[asyncio.Task[Call]]) -> None:
    """Wait for all of them, also when the caller is cancelled meanwhile; then let the cancellation through."""
    cancelled: asyncio.CancelledError | None = None
    while left := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(left)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _why(call: Call, request: NetRequest) -> str:
    """What is said of a request that may not be made: the words of policy, which stand in the log as well."""
    if call.decision is not None and call.step in {Step.DENIED, Step.ASKED}:
        rules, reasons = ", ".join(call.decision["rules"]), "; ".join(call.decision["reasons"])
        return f"denied by policy ({rules}): {reasons}"
    if call.error is not None:
        return str(call.error["message"])
    return f"the request to {request.host} may not be made"
