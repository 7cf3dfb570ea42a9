"""What the log says was reserved and used: the books of one tenant, folded from the headers of its events.

`Books.fold` takes the events of a session in order and those of different sessions in any. The live books and those that are read
again after a restart go through it, so they come to the same sums. It reads headers only: an erased payload changes nothing.

A month of the log that was retired is gone with its headers. What it had used stands in the event that says so, and is booked
from there (`balances`, `Books.fold`): of agents, programs and the tenant, in all, and for its last days.

A call that was allowed and has no outcome counts as its whole reservation; so does one whose outcome nobody knows. A call is its
session and its id: one that was allowed again after a crash counts once.

The account of a session goes when the session is over. Where it had delegated, it stays for another day: a descendant that has
not been stopped yet pays into it, and in the log its calls may come before or after the end of the session above.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.errors import ChainBroken
from agentos.abi.event import Event, rfc3339
from agentos.abi.syscall import PSEUDO
from agentos.scheduler.budget import UNITS, Account, Ledger, Reservation

DEFAULT_PROGRAM: Final = "default"
"""The program of a call whose record names none."""

KEPT_DAYS: Final = 31
"""How many days, today among them, can be looked at."""

DAY_MS: Final = 86_400_000

HEARD: Final = frozenset({ev.SYSCALL_DECIDED, ev.SYSCALL_FINISHED, ev.SYSCALL_FAILED, ev.SYSCALL_UNKNOWN}) | ev.TERMINAL
"""Types of events that change the books."""

CARRIED_DAYS: Final = 2
"""Of so many days, its last, a month that is retired hands on what was used: a session that began in it may have been at work
today."""

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


class History(Protocol):
    """Where the past of the books is."""

    def __call__(self, tenant: str, session: str | None = None) -> AsyncIterator[Told]:
        """Events of the types `HEARD` of a session, or of the whole tenant: those of one session in order.

        Raises LogUnavailable, ChainBroken.
        """


@dataclass(frozen=True, slots=True)
class Payer:
    """For whom a call is made. `lineage`: the sessions above it in a delegation, its parent first, which pay too."""

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
        self._above: set[str] = set()
        """Sessions that have delegated, and are not over."""
        self._over: dict[str, str] = {}
        """Sessions that had delegated, and the day on which they ended."""

    def fold(self, told: Told, ready: Reservation | None = None) -> None:
        """Take in an event. `ready`: what this very decision has reserved in this ledger already. Raises ChainBroken."""
        if told.kind in ev.TERMINAL:
            self._ended(told)
            return
        if told.kind == ev.AUDIT_RETIRED:
            self._carried(told)
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
        if told.attributes.get("children"):
            self._above.add(told.session)

    def _ended(self, told: Told) -> None:
        session = told.session
        for key in [key for key in self.open if key[0] == session]:
            reservation = self.open.pop(key)
            self.ledger.settle(reservation, reservation.amounts)
        if session in self._above:
            self._above.discard(session)
            self._over[session] = told.day
        else:
            self.ledger.forget(("session", session))

    def _carried(self, told: Told) -> None:
        """Book what a month had used that is gone. Raises ChainBroken for another shape."""
        try:
            for one in told.attributes["spent"]:
                account = (str(one["kind"]), str(one["name"]), *([str(one["day"])] if one["day"] is not None else []))
                self.ledger.book([account], _amounts(one["amounts"]))
        except (LookupError, TypeError, AttributeError) as error:
            said = f"what a month that was retired had used cannot be told: {error!r}"
            raise ChainBroken(said, where=f"{told.session}#{told.seq}") from error

    def balances(self) -> list[dict[str, Json]]:
        """What was used of the accounts that outlive sessions: `[{kind, name, day, amounts}]`, `day` null for all time.

        Of days only the last few. What is held counts as used.
        """
        wide = sorted(account for account in self.ledger.accounts() if account[0] != "session")
        last = sorted({account[2] for account in wide if len(account) > 2})[-CARRIED_DAYS:]
        found: list[dict[str, Json]] = []
        for account in wide:
            day = account[2] if len(account) > 2 else None
            amounts = {unit: self.ledger.used(account, unit) + self.ledger.reserved(account, unit) for unit in UNITS}
            if (day is None or day in last) and any(amounts.values()):
                kept = {unit: amount for unit, amount in amounts.items() if amount}
                found.append({"kind": account[0], "name": account[1], "day": day, "amounts": kept})
        return found

    def forget_days(self, now_ms: int) -> str:
        """Drop the accounts of days that are not looked at any more; return the first day that is kept."""
        first, yesterday = (day_of(max(0, now_ms - days * DAY_MS)) for days in (KEPT_DAYS - 1, 1))
        for account in self.ledger.accounts():
            if len(account) > 2 and account[2] < first:
                self.ledger.forget(account)
        for session in [session for session, day in self._over.items() if day < yesterday]:
            del self._over[session]
            self.ledger.forget(("session", session))
        return first


def reserved_in(told: Told) -> tuple[Payer, dict[str, int]]:
    """Who pays for an allowed call, and how much was reserved. A record from before there were budgets tells calls alone."""
    attributes = told.attributes
    body = _object(told, "reserved")
    if body is None:
        body = {"calls": 0 if attributes.get("tool") in PSEUDO else 1}
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
