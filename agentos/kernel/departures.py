"""Requests that leave, on behalf of one call: each is a syscall of its own, `net-request`, and passes the gate like any other.

Whoever makes a request (the proxy of a sandbox, the `http` driver, a client of an MCP server) asks first, and tells how it ended.
In between the gate waits, as it does for a driver. Once the call is over nothing more may leave for it, and what was under way
is given up, so that everything stands in the log before the outcome of the call does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, DriverError, Frozen, LogUnavailable, SequenceConflict
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
        await self._end(lambda: self._outcome.set_result(Result("", data)))

    async def failed(self, message: str) -> None:
        """See `Permit.failed`."""
        await self._end(lambda: self._outcome.set_exception(DriverError(message[:1000])))

    async def _end(self, tell: Callable[[], None]) -> None:
        if not self._outcome.done():
            tell()
        await self.ended()

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
        self._made = 0
        self._open: set[Departure] = set()
        self._over = False
        self._broken: AgentOSError | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over = True
        for departure in tuple(self._open):
            await departure.failed(_OVER)
        if self._broken is not None and error is None:
            # The log has more than we know of, or cannot be told anything: the call's own outcome would fail as well.
            raise self._broken

    async def ask(self, request: NetRequest) -> Departure:
        """See `Gatekeeper.ask`."""
        if self._over:
            raise NetDenied(_OVER)
        if len(self._open) >= MOST:
            raise NetDenied(f"{MOST} requests are under way for this call already")
        if self._made >= MOST_IN_ALL:
            raise NetDenied(f"the call has made {MOST_IN_ALL} requests already")
        self._made += 1
        departure = Departure()
        name = f"{NET_IDS}{self._number}-{self._made}"
        work = self._perform(name, {**self._about, **request.args()}, departure.act)
        departure.task = asyncio.ensure_future(work)
        self._open.add(departure)
        departure.task.add_done_callback(lambda _: self._open.discard(departure))
        try:
            call = await departure.decided()
        except Frozen as error:
            raise NetDenied(error.message) from error
        except (LogUnavailable, SequenceConflict) as error:
            self._broken = self._broken or error
            raise
        except asyncio.CancelledError:
            await departure.failed("nobody waits for it any more")
            raise
        if call is None:
            return departure
        raise NetDenied(_why(call, request))


def _why(call: Call, request: NetRequest) -> str:
    """What is said of a request that may not be made: the words of policy, which stand in the log as well."""
    if call.decision is not None and call.step in {Step.DENIED, Step.ASKED}:
        rules, reasons = ", ".join(call.decision["rules"]), "; ".join(call.decision["reasons"])
        return f"denied by policy ({rules}): {reasons}"
    if call.error is not None:
        return str(call.error["message"])
    return f"the request to {request.host} may not be made"
