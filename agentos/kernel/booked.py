"""What the log says was reserved and used: the books of one tenant, folded from the headers of its events.

`Books.fold` takes the events of a session in order and those of different sessions in any. The live books and those that are read
again after a restart go through it, so they come to the same sums. It reads headers only: an erased payload changes nothing.

A call that was allowed and has no outcome counts as its whole reservation; so does one whose outcome nobody knows. A call is its
session and its id: one that was allowed again after a crash counts once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.errors import ChainBroken
from agentos.abi.event import Event, rfc3339
from agentos.abi.syscall import MODEL_CALL
from agentos.scheduler.budget import UNITS, Account, Ledger, Reservation

DEFAULT_PROGRAM: Final = "default"
"""The program of a call whose record names none."""

KEPT_DAYS: Final = 31
"""How many days, today among them, can be looked at."""

DAY_MS: Final = 86_400_000

HEARD: Final = frozenset({ev.SYSCALL_DECIDED, ev.SYSCALL_FINISHED, ev.SYSCALL_FAILED, ev.SYSCALL_UNKNOWN}) | ev.TERMINAL
"""Types of events that change the books."""

CallKey = tuple[str, str]
"""Session and call id."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the books need of an event. `day`: the UTC day of its time."""

    kind: str
    session: str
    seq: int
    day: str
    attributes: Mapping[str, Json] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Payer:
    """For whom a call is made. `lineage`: the sessions above it in a delegation, which pay too."""

    session: str
    agent: str
    program: str
    day: str
    lineage: tuple[str, ...] = ()

    def accounts(self) -> tuple[Account, ...]:
        """Every account that pays: the narrowest first, for all time before the day's."""
        wide = (("agent", self.agent), ("program", self.program), ("tenant", ""))
        return (
            *(("session", name) for name in (self.session, *self.lineage)),
            *wide,
            *((*account, self.day) for account in wide),
        )


def day_of(time_ms: int) -> str:
    """`2026-11-21`: the UTC day of a moment."""
    return rfc3339(time_ms)[:10]


def told_of(event: Event) -> Told:
    """An event as the books hear of it."""
    return Told(event.type, event.subject, event.seq, day_of(event.time_ms), event.attributes)


class Books:
    """The ledger of one tenant, and the calls that are open in it."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.open: dict[CallKey, Reservation] = {}
        """Calls that were allowed and have no outcome yet."""

    def fold(self, told: Told, ready: Reservation | None = None) -> None:
        """Take in an event. `ready`: what this very decision has reserved in this ledger already. Raises ChainBroken."""
        if told.kind in ev.TERMINAL:
            self._ended(told.session)
            return
        key = told.session, str(told.attributes.get("call", ""))
        if told.kind == ev.SYSCALL_DECIDED:
            self._decided(key, told, ready)
        elif (reservation := self.open.pop(key, None)) is not None:
            self.ledger.settle(reservation, _used(told, reservation))

    def _decided(self, key: CallKey, told: Told, ready: Reservation | None) -> None:
        earlier = self.open.pop(key, None)
        if told.attributes.get("decision") != "allow":
            if earlier is not None:
                # It may have been acted on before a crash, and is not let through again: nobody will say what it used.
                self.ledger.settle(earlier, earlier.amounts)
            return
        if earlier is not None:
            self.ledger.cancel(earlier)
        if ready is None:
            payer, amounts = reserved_in(told)
            ready = self.ledger.hold(payer.accounts(), amounts)
        self.open[key] = ready

    def _ended(self, session: str) -> None:
        for key in [key for key in self.open if key[0] == session]:
            reservation = self.open.pop(key)
            self.ledger.settle(reservation, reservation.amounts)
        self.ledger.forget(("session", session))

    def forget_days(self, now_ms: int) -> str:
        """Drop the accounts of days that are not looked at any more; return the first day that is kept."""
        first = day_of(max(0, now_ms - (KEPT_DAYS - 1) * DAY_MS))
        for account in self.ledger.accounts():
            if len(account) > 2 and account[2] < first:
                self.ledger.forget(account)
        return first


def reserved_in(told: Told) -> tuple[Payer, dict[str, int]]:
    """Who pays for an allowed call, and how much was reserved. A record from before there were budgets tells calls alone."""
    attributes = told.attributes
    body = _object(told, "reserved")
    if body is None:
        body = {"calls": 0 if attributes.get("tool") == MODEL_CALL else 1}
    lineage = str(body.get("lineage", ""))
    payer = Payer(
        told.session,
        str(attributes.get("agent", "")),
        str(body.get("program", DEFAULT_PROGRAM)),
        str(body.get("day", told.day)),
        tuple(lineage.split(",")) if lineage else (),
    )
    return payer, _amounts(body)


def _used(told: Told, reservation: Reservation) -> Mapping[str, int]:
    """What a call used: as the outcome says, else what can be told from the other attributes."""
    spent = _object(told, "spent")
    if spent is not None:
        return _amounts(spent)
    if told.kind == ev.SYSCALL_UNKNOWN:
        return reservation.amounts
    attributes = told.attributes
    tokens = _whole(attributes, "inputtokens") + _whole(attributes, "outputtokens")
    amounts = {
        "tokens": tokens,
        "calls": reservation.amounts.get("calls", 0),
        "milliseconds": -(-_whole(attributes, "durationus") // 1000),
    }
    return {unit: amount for unit, amount in amounts.items() if amount}


def _object(told: Told, name: str) -> dict[str, Json] | None:
    """An attribute that is JSON in a text. Raises ChainBroken for what is no object: overlooked, it would let more through."""
    text = told.attributes.get(name)
    if text is None:
        return None
    try:
        body = json.loads(str(text))
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ChainBroken(f"what was {name} cannot be told: no JSON object", where=f"{told.session}#{told.seq}")
    return body


def _amounts(body: Mapping[str, Json]) -> dict[str, int]:
    return {unit: amount for unit in UNITS if (amount := _whole(body, unit)) > 0}


def _whole(body: Mapping[str, Json], name: str) -> int:
    value = body.get(name)
    return max(0, value) if type(value) is int else 0
