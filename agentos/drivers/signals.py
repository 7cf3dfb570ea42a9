"""Signals: what a session is told while it runs; the values, and the port that the primitives `wait` and `signal` call.

    told = await signals.wait(place, "go", wait_ms=60_000)
    sent = await signals.send(place, Target(agent="writer"), "go", "the figures are in")

A signal is an event in the log of the session that is told. The model sees it as a message at its next turn, unless a call of
`wait` has got it before. What an agent says is `untrusted`, and carries the labels of its session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.abi.syscall import Result
from agentos.drivers.port import CallContext, ToolSpec

LONGEST_NAME: Final = 63
LONGEST_DATA: Final = 64 * 1024
"""Characters that a signal says at most."""

LONGEST_WAIT_S: Final = 30 * 86_400

STOP: Final = "stop"
"""The signal that asks a session to come to an end; whoever waits for something else is told so at once."""

UNTRUSTED: Final = "untrusted"
"""The label of what an agent says to another one."""


class SignalLate(DriverError):
    """The signal did not come in time. Waiting again can help."""

    code = "signal.late"
    retryable = True


class SignalStopped(DriverError):
    """The session was asked to stop while it waited for something else."""

    code = "signal.stop"


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that a session was told: the `number`-th one, from 1. `by` is who sent it."""

    number: int
    name: str
    data: str
    by: str


@dataclass(frozen=True, slots=True)
class Target:
    """Who is told: exactly one of a session, all live sessions of an agent, or the triggers that wait for the signal."""

    session: str = ""
    agent: str = ""
    triggers: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """Who was told. `left`: those of an agent's sessions that ended meanwhile, or were told too much."""

    sessions: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Signals(Protocol):
    """What the primitives call."""

    async def wait(self, place: CallContext, name: str, *, wait_ms: int) -> Signal:
        """The oldest signal of that name that no call has got, or the next one that comes.

        The time counts from when the call was first allowed, over restarts too. Raises SignalLate, SignalStopped, LogUnavailable
        (the same call may be made again).
        """

    async def send(self, place: CallContext, target: Target, name: str, data: str) -> Sent:
        """Tell others of the tenant. The same call made again tells nobody twice. Raises DriverError, LogUnavailable."""


def target_of(args: Mapping[str, Json]) -> Target:
    """Whom the arguments of a call name. Raises DriverError unless that is one."""
    target = Target(str(args.get("session", "")), str(args.get("agent", "")), args.get("triggers") is True)
    if sum(map(bool, (target.session, target.agent, target.triggers))) != 1:
        raise DriverError("a signal goes to one of: `session`, `agent`, `triggers`")
    return target


def consumed_by(tool: ToolSpec | None, result: Result) -> int | None:
    """The number of the signal that a call of `tool` has got by waiting; None where it is no such call."""
    waits = tool is not None and tool.driver.get("builtin", {}).get("primitive") == "wait"
    if not waits or result.is_error or not isinstance(result.data, Mapping):
        return None
    number: int = result.data["number"]
    return number
