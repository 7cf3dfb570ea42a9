"""Signals to sessions: told by people, by agents where they are granted it, and waited for at no cost.

A signal is an event in the log of whoever is told: what is not recorded was not said. A session that waits for one holds no
harness and no place as soon as somebody else needs them; what is in memory of it is a future. After a crash the call is made
again, and finds in the log what came meanwhile; its time goes on counting from when it was first allowed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from agentos.abi import event as ev
from agentos.abi.canonical import Json, NotCanonical
from agentos.abi.errors import (
    AgentOSError,
    Conflict,
    DriverError,
    LogUnavailable,
    NotFound,
    PayloadErased,
    SequenceConflict,
    UsageError,
)
from agentos.drivers.port import CallContext
from agentos.drivers.signals import STOP, UNTRUSTED, Sent, Signal, SignalLate, SignalStopped, Target
from agentos.kernel.firing import hops_from
from agentos.kernel.journal import Journal
from agentos.kernel.port import ConfigurationSource, Timer
from agentos.kernel.seat import Displaced
from agentos.projections.session import OPEN, SessionState

log = logging.getLogger(__name__)

MOST: Final = 1000
"""Signals that a session is told at most: each stays in its view."""

MOST_BY_AGENTS: Final = 900
"""Beyond so many, agents tell it nothing more: what is left is for people, who may want it to stop."""

_Key = tuple[str, str]
"""Tenant and session."""


class Triggers(Protocol):
    """What signals can start."""

    async def signal(
        self,
        tenant: str,
        name: str,
        data: str,
        by: str,
        *,
        id: str,  # noqa: A002 - the word that it has there
        labels: tuple[str, ...] = (),
        hops: int = 0,
    ) -> Sequence[object]:
        """Fire the triggers that wait for `name`, once for each `id`."""


class Told(Protocol):
    """The sessions, as signals need them."""

    def journal(self, tenant: str, session: str) -> AbstractAsyncContextManager[Journal]:
        """The session's one journal. Raises NotFound, LogUnavailable."""

    async def state(self, tenant: str, session: str) -> SessionState:
        """The session as it stands. Raises NotFound."""


@dataclass(slots=True, eq=False)
class _Waiter:
    call: str
    name: str
    told: asyncio.Future[Signal]
    patience: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Desk:
    """What is waited for in one session."""

    waiters: list[_Waiter] = field(default_factory=list)
    given: dict[int, str] = field(default_factory=dict)
    """By number: which call has got the signal. The log says so once that call has its outcome."""


class SignalDesk:
    """`drivers.signals.Signals`, and how people signal. `live_of` gives the live sessions of an agent."""

    def __init__(
        self,
        sessions: Told,
        source: ConfigurationSource,
        timer: Timer,
        live_of: Callable[[str, str], Awaitable[Sequence[str]]],
    ) -> None:
        self._sessions = sessions
        self._source = source
        self._timer = timer
        self._live_of = live_of
        self.idle: Callable[[str, asyncio.Future[Any]], Awaitable[None]] = _alone
        """How a session waits for something: in a place that may be needed by another one, by which Displaced is raised."""
        self.triggers: Triggers | None = None
        self._desks: dict[_Key, _Desk] = {}

    async def signal(
        self,
        tenant: str,
        session: str,
        name: str,
        data: str = "",
        *,
        actor: str,
        labels: Sequence[str] = (),
        call: str | None = None,
    ) -> SessionState:
        """Tell a session something; durable when it returns. `call` is the one that says it, which is told once however often.

        `labels` come into the session with it. Raises NotFound, Conflict when it is over or was told too much, UsageError for
        words that cannot be recorded, LogUnavailable.
        """
        async with self._sessions.journal(tenant, session) as journal:
            state = journal.state
            if call is not None and any(one.get("id") == call for one in state.signals):
                return state
            most = MOST_BY_AGENTS if actor.startswith("agent/") else MOST
            if not state.over and len(state.signals) >= most:
                raise Conflict(f"session {session} was told {len(state.signals)} signals, and {most} is the most")
            told: dict[str, Json] = {"name": name, **({"data": data} if data else {})}
            told |= {"labels": sorted(set(labels))} if labels else {}
            told |= {"id": call} if call is not None else {}
            try:
                state = await journal.record_under(self._source.current(tenant), ev.SESSION_SIGNALLED, told, actor)
            except NotCanonical as error:
                raise UsageError(f"the signal cannot be recorded: {error}") from error
            self._look((tenant, session), state)
            return state

    async def wait(self, place: CallContext, name: str, *, wait_ms: int) -> Signal:
        """See `drivers.signals.Signals.wait`. Raises Displaced when the place of the session is needed meanwhile: the same call,
        made again, goes on waiting where it was."""
        key = (place.tenant, place.session)
        desk = self._desks.setdefault(key, _Desk())
        waiter = next((one for one in desk.waiters if one.call == place.call), None)
        if waiter is None:
            waiter = _Waiter(place.call, name, asyncio.get_running_loop().create_future())
            desk.waiters.append(waiter)
        displaced = False
        try:
            if waiter.patience is None:
                state = await self._sessions.state(*key)
                self._look(key, state)
                left_ms = _since(state, place.call) + wait_ms - self._timer.now_ms()
                patience = self._give_up(waiter, left_ms)
                waiter.patience = asyncio.create_task(patience, name=f"patience of {place.session}")
            await self.idle(place.session, waiter.told)
            return waiter.told.result()
        except Displaced:
            displaced = True
            raise
        finally:
            if not displaced:
                self._drop(key, waiter)

    async def send(self, place: CallContext, target: Target, name: str, data: str) -> Sent:
        """See `drivers.signals.Signals.send`."""
        actor, labels = f"agent/{place.agent}", tuple(sorted({*place.labels, UNTRUSTED}))
        if target.triggers:
            if self.triggers is None:
                raise DriverError("there are no triggers here")
            try:
                state = await self._sessions.state(place.tenant, place.session)
                hops = await hops_from(state, partial(self._sessions.state, place.tenant))
                await self.triggers.signal(place.tenant, name, data, actor, id=place.key, labels=labels, hops=hops)
            except (DriverError, LogUnavailable, SequenceConflict):
                raise
            except AgentOSError as error:
                # Whatever keeps a trigger from firing (a freeze, too many sessions) is news for the model, and not its end.
                raise DriverError(error.message, mend=error.mend) from error
            return Sent()
        named = [target.session] if target.session else await self._live_of(place.tenant, target.agent)
        if not named:
            raise DriverError(f"agent {target.agent} has no live session")
        told, left = [], []
        for session in named:
            try:
                await self.signal(place.tenant, session, name, data, actor=actor, labels=labels, call=place.key)
            except SequenceConflict as error:
                # Of the session that is told, and no sign that the one that tells is not ours.
                raise LogUnavailable(f"session {session} is written by another runtime", mend="repeating is safe") from error
            except (NotFound, PayloadErased, Conflict, UsageError) as error:
                if target.session:
                    raise DriverError(error.message, mend=error.mend) from error
                left.append(session)
            else:
                told.append(session)
        return Sent(tuple(told), tuple(left))

    def ended(self, tenant: str, session: str) -> None:
        """A session is over: nobody waits for it any more. May be told more than once."""
        desk = self._desks.pop((tenant, session), None)
        for waiter in desk.waiters if desk is not None else ():
            _forget(waiter)

    async def close(self) -> None:
        """Wait for nothing any more; after a restart the calls are made again."""
        patience = [one.patience for desk in self._desks.values() for one in desk.waiters if one.patience is not None]
        for key in list(self._desks):
            self.ended(*key)
        if patience:
            await asyncio.wait(patience)

    def _look(self, key: _Key, state: SessionState) -> None:
        """Give signals to those who wait for them, in the order in which both came."""
        desk = self._desks.get(key)
        if desk is None:
            return
        desk.given = {
            number: call for number, call in desk.given.items() if call in state.calls and state.calls[call].step in OPEN
        }
        for waiter in desk.waiters:
            if waiter.told.done():
                continue
            open_ = [
                (number, one)
                for number, one in enumerate(state.signals, 1)
                if "consumed" not in one and desk.given.get(number, waiter.call) == waiter.call
            ]
            found = next((pair for pair in open_ if pair[1]["name"] == waiter.name), None)
            if found is not None:
                number, one = found
                desk.given[number] = waiter.call
                waiter.told.set_result(Signal(number, one["name"], one["data"], one["by"]))
            elif any(one["name"] == STOP for _, one in open_):
                waiter.told.set_exception(SignalStopped(f"this session was asked to stop while it waited for {waiter.name}"))

    def _drop(self, key: _Key, waiter: _Waiter) -> None:
        desk = self._desks.get(key)
        if desk is not None and waiter in desk.waiters:
            desk.waiters.remove(waiter)
        _forget(waiter)

    async def _give_up(self, waiter: _Waiter, left_ms: int) -> None:
        """End a wait once its time is over."""
        if left_ms > 0:
            await self._timer.sleep(left_ms / 1000)
        if not waiter.told.done():
            waiter.told.set_exception(SignalLate(f"the signal {waiter.name} did not come in time"))


def _since(state: SessionState, call: str) -> int:
    """When a call was first allowed; now if the session does not know it."""
    known = state.calls.get(call)
    return state.since.get(call, known.decided_ms if known is not None else 0)


def _forget(waiter: _Waiter) -> None:
    if waiter.patience is not None:
        waiter.patience.cancel()
    if not waiter.told.done():
        waiter.told.cancel()
    elif not waiter.told.cancelled():
        waiter.told.exception()  # it has been looked at


async def _alone(session: str, done: asyncio.Future[Any]) -> None:
    """Wait for `done` where places are not shared."""
    del session
    await asyncio.wait((done,))
