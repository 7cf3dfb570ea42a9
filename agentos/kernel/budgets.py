"""Budgets of the runtime: a call is reserved in every account that pays for it before its decision is recorded, and settled by
the record of its outcome.

Accounts of a call: its session and those above it in a delegation, its agent, its program, its tenant; the last three for all
time and for the UTC day of its decision. Reserved is an upper bound of what it may use, in five units:

    tokens          those of the request at most (`kernel.counted`), and the answer, which is cut to what is left
    microdollars    the same tokens at the declared price
    calls           1 of a tool, 0 of a model
    milliseconds    the time-out, which is cut to what is left
    bytes           the arguments of a tool that writes

The books are a projection of the log (`kernel.booked`), read from it before the first reservation and whenever they may differ
from it: of a session where only budgets of sessions are declared, of the whole tenant where any other is, or where the session
was delegated to or has delegated itself, as others then pay into its account. Where a tenant declares no budget, and a session
was given none, nothing is read, reserved or recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from agentos.abi.errors import LogUnavailable
from agentos.abi.event import SYSCALL_DECIDED, TERMINAL, Event
from agentos.kernel.booked import DAY_MS, HEARD, Books, CallKey, History, Payer, Told, day_of, told_of
from agentos.kernel.budget_texts import refusal
from agentos.kernel.budget_tree import Branch, read_tree
from agentos.kernel.journal import Journal
from agentos.kernel.lineage import ALONE, Amounts, Paying
from agentos.projections.session import Step
from agentos.scheduler.budget import UNITS, Account, Exceeded, Reservation
from agentos.scheduler.declared import Arbitration, Budget, Price

RULE: Final = "kernel.budget"
"""The rule of a denial because a budget is used up."""

RULE_HELD: Final = "kernel.budget-held"
"""The rule of a denial because calls under way hold what is left: asked again later, the call may go through."""


FREE: Final = Price()

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_NOTHING: Final[Mapping[str, Amounts]] = MappingProxyType({})

LEAST_MS: Final = 1000
"""A call that would have less time than this is not begun, unless its time-out is shorter anyhow."""


@dataclass(frozen=True, slots=True)
class Want:
    """What a call may use at most. `output`: tokens of an answer (0: none is given); it and the time-out can be cut."""

    input: int = 0
    output: int = 0
    price: Price = FREE
    calls: int = 0
    milliseconds: int = 0
    bytes: int = 0

    def amounts(self, output: int, milliseconds: int) -> dict[str, int]:
        """The amounts to hold, of the units that it uses."""
        found = {
            "tokens": self.input + output,
            "microdollars": self.price.cost(self.input, output),
            "calls": self.calls,
            "milliseconds": milliseconds,
            "bytes": self.bytes,
        }
        return {unit: amount for unit, amount in found.items() if amount}


@dataclass(frozen=True, slots=True)
class Held:
    """What is held for a call. `output` and `milliseconds` are what it may use of them; `cut`: less than it wanted."""

    tenant: str
    key: CallKey
    payer: Payer
    amounts: Mapping[str, int] = field(hash=False)
    output: int
    milliseconds: int
    cut: bool = False

    def told(self) -> dict[str, str | int]:
        """As it stands in the record of the decision: names and numbers."""
        body: dict[str, str | int] = {"program": self.payer.program, "day": self.payer.day, **self.amounts}
        if self.payer.lineage:
            body["lineage"] = ",".join(self.payer.lineage)
        return body


@dataclass(frozen=True, slots=True)
class Refused:
    """Why nothing is held: the rule of the denial, and its sentence."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Row:
    """One unit of one account. `day` None: for all time. `limit` and `left` None: not limited."""

    kind: str
    name: str
    day: str | None
    unit: str
    limit: int | None
    used: int
    reserved: int
    left: int | None


@dataclass(slots=True)
class _Pending:
    """A reservation whose decision is not recorded yet, and what the call had open before."""

    held: Held
    reservation: Reservation
    earlier: Reservation | None


class _Book:
    """What is known of one tenant."""

    def __init__(self) -> None:
        self.loading = asyncio.Lock()
        self.whole = False
        """Whether the books are those of the whole tenant; else they are those of the sessions in `known`."""
        self.known: set[str] = set()
        self.books = Books()
        self.pending: dict[CallKey, _Pending] = {}
        self.tail: list[Told] | None = None
        """While the log is read: what has been recorded meanwhile."""
        self.day = ""
        self.since = ""
        """The first day that is kept: what was used on an earlier one is forgotten."""
        self.declared: Arbitration | None = None
        """Whose limits stand in the ledger."""

    def hear(self, told: Told) -> None:
        if self.tail is not None:
            self.tail.append(told)
        decided = told.kind == SYSCALL_DECIDED
        pending = self.pending.pop((told.session, str(told.attributes.get("call"))), None) if decided else None
        if not self.knows(told.session):
            if pending is not None:
                self.books.ledger.cancel(pending.reservation)
            return
        if told.kind in TERMINAL:
            self.known.discard(told.session)
        if pending is None:
            self.books.fold(told)
        elif told.attributes.get("decision") == "allow":
            self.books.fold(told, pending.reservation)
        else:
            self._undo(pending)
            self.books.fold(told)

    def turn(self, day: str, now_ms: int) -> None:
        """It is another day: forget those that are not looked at any more."""
        self.day, self.since = day, max(self.since, self.books.forget_days(now_ms))

    def knows(self, session: str | None) -> bool:
        """Whether the books are those of `session`; None: of the whole tenant."""
        return self.whole or session in self.known

    def become(self, books: Books, *, whole: bool) -> None:
        """Go on with these books. Of a call that is on its way into the log, they hold what the ones before held."""
        pending, self.pending = self.pending, {}
        self.books, self.whole, self.declared, self.since = books, whole, None, ""
        self.known.clear()
        for one in pending.values():
            self.hold(one.held, one.held.payer.accounts(), force=True)

    def drop(self, key: CallKey) -> None:
        """Give back what is held for a call that was surely not let through."""
        pending = self.pending.pop(key, None)
        if pending is not None:
            self._undo(pending)

    def _undo(self, pending: _Pending) -> None:
        self.books.ledger.cancel(pending.reservation)
        if pending.earlier is not None:
            again = self.books.ledger.hold(pending.earlier.accounts, pending.earlier.amounts)
            self.books.open[pending.held.key] = again

    def hold(self, held: Held, accounts: tuple[Account, ...], *, force: bool = False) -> Exceeded | None:
        """Reserve; None when it is held. An earlier reservation of the same call makes room for it."""
        ledger, earlier = self.books.ledger, self.books.open.pop(held.key, None)
        if earlier is not None:
            ledger.cancel(earlier)
        made = ledger.hold(accounts, held.amounts) if force else ledger.reserve(accounts, held.amounts)
        if isinstance(made, Exceeded):
            if earlier is not None:
                self.books.open[held.key] = ledger.hold(earlier.accounts, earlier.amounts)
            return made
        self.pending[held.key] = _Pending(held, made, earlier)
        return None


def is_budgeted(arbitration: Arbitration, paying: Paying = ALONE) -> bool:
    """Whether a tenant declares any budget, or a session has one that it was given, or that one above it was."""
    return bool(arbitration.per_session or arbitration.per_day or arbitration.in_all or paying.given)


def at_most(limits: Amounts, given: Amounts) -> dict[str, int]:
    """The lower of two limits in each unit."""
    return {unit: min(one[unit] for one in (limits, given) if unit in one) for unit in UNITS if unit in limits or unit in given}


async def no_history(tenant: str, session: str | None = None) -> AsyncIterator[Told]:
    """A past that cannot be read."""
    raise LogUnavailable(f"what {session or f'tenant {tenant}'} has used so far cannot be read here")
    yield  # makes it an iterator


class Budgets:
    """The books of all tenants."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._books: dict[str, _Book] = {}

    async def reserve(
        self,
        tenant: str,
        call: str,
        payer: Payer,
        want: Want,
        arbitration: Arbitration,
        now_ms: int,
        *,
        paying: Paying = ALONE,
        first: bool = False,
        shares: bool = False,
    ) -> Held | Refused | None:
        """Hold what a call may use, in all of its accounts or in none. None: the tenant declares no budget.

        `paying`: what is known of the sessions in `payer.lineage`, and what any of them and the session itself was given.
        `first`: the session has made no call so far. `shares`: it has delegated, so others pay into its account. Raises
        LogUnavailable or ChainBroken when the past cannot be read; nothing is held then.
        """
        if not is_budgeted(arbitration, paying):
            return None
        shared = bool(arbitration.per_day or arbitration.in_all or payer.lineage or shares)
        book = await self._read(tenant, None if shared else payer.session, now_ms, empty=first)
        # Nothing is awaited from here on, so nobody comes between the look and the reservation.
        if book.day != payer.day:
            book.turn(payer.day, now_ms)
        ledger, accounts, key = book.books.ledger, payer.accounts(), (payer.session, call)
        if book.declared is not arbitration:
            book.declared = arbitration
            ledger.unlimit()
        running = {payer.session: payer.agent, **paying.agents}
        for account in accounts:
            if limits := _limits_of(account, running, paying.given, arbitration):
                ledger.declare(account, limits)
        room = ledger.room(accounts)
        if (again := book.books.open.get(key)) is not None:
            room = {unit: left + again.amounts.get(unit, 0) for unit, left in room.items()}
        output, milliseconds = _cut(want, room.get("tokens"), room.get("microdollars"), room.get("milliseconds"))
        cut = (output, milliseconds) != (want.output, want.milliseconds)
        held = Held(tenant, key, payer, want.amounts(output, milliseconds), output, milliseconds, cut)
        exceeded = book.hold(held, accounts)
        if exceeded is None:
            return held
        return Refused(RULE_HELD if exceeded.passing else RULE, refusal(exceeded, payer, tenant, paying))

    def release(self, held: Held | None) -> None:
        """Give back what is held for a call whose decision was surely not recorded; of one that was, nothing."""
        if held is not None:
            self._books[held.tenant].drop(held.key)

    def hear(self, event: Event) -> None:
        """Take in an event that was recorded."""
        book = self._books.get(event.tenant)
        if book is not None and event.type in HEARD:
            book.hear(told_of(event))

    def agree(self, journal: Journal) -> None:
        """Compare the books with a session that was read from the log, none of whose calls is under way here.

        Where they differ, as when the log did not say whether it had stored an event, all is read again before the next call.
        """
        book = self._books.get(journal.tenant)
        if book is None:
            return
        doubtful = [key for key in book.pending if key[0] == journal.session]
        for key in doubtful:
            book.drop(key)
        known = {key[1] for key in book.books.open if key[0] == journal.session}
        calls = journal.state.calls.values()
        allowed = {call.call for call in calls if call.step is Step.ALLOWED and call.call not in journal.inherited}
        if doubtful or (book.knows(journal.session) and known != allowed):
            book.become(Books(), whole=False)

    async def rows(
        self,
        tenant: str,
        arbitration: Arbitration,
        now_ms: int,
        *,
        days: int = 1,
        sessions: Mapping[str, str] = _NONE,
        given: Mapping[str, Amounts] = _NOTHING,
    ) -> list[Row]:
        """The accounts of a tenant: those with a limit, and those in which something was used.

        `days`: so many, today among them. `sessions`: those to be listed that are not over, with the agent that each runs;
        `given`: what of these was given when it was delegated to. Raises as `reserve`.
        """
        book = await self._read(tenant, None, now_ms)
        ledger, agents = book.books.ledger, sessions
        dates = {day_of(max(0, now_ms - number * DAY_MS)) for number in range(days)}
        today = day_of(now_ms)
        declared: set[Account] = {*arbitration.in_all, *((*account, today) for account in arbitration.per_day)}
        found = []
        for account in sorted({*declared, *ledger.accounts(), *(("session", name) for name in agents)}):
            if (account[0] == "session" and account[1] not in agents) or (len(account) > 2 and account[2] not in dates):
                continue
            limits = _limits_of(account, agents, given, arbitration)
            for unit in UNITS:
                used, reserved, limit = ledger.used(account, unit), ledger.reserved(account, unit), limits.get(unit)
                if limit is None and not used and not reserved:
                    continue
                left = None if limit is None else max(0, limit - used - reserved)
                day = account[2] if len(account) > 2 else None
                found.append(Row(account[0], account[1] or tenant, day, unit, limit, used, reserved, left))
        return found

    async def tree(self, tenant: str, session: str) -> tuple[list[Branch], bool]:
        """A session and those that it has delegated to, directly or through others, what each used; whether these are all."""
        return await read_tree(self._history, tenant, session)

    async def _read(self, tenant: str, session: str | None, now_ms: int, *, empty: bool = False) -> _Book:
        """The tenant's book, in which `session` is known (None: all of them); `empty`: there is nothing to read of it."""
        book = self._books.get(tenant)
        if book is None:
            book = self._books[tenant] = _Book()
        if day_of(now_ms) < book.since:
            # The clock was far ahead, and today was forgotten: the log knows what was used on it.
            book.become(Books(), whole=False)
        while not book.knows(session):
            if session is not None and empty:
                book.known.add(session)
                break
            async with book.loading:
                if not book.knows(session):
                    await self._load(book, tenant, session, now_ms)
        return book

    async def _load(self, book: _Book, tenant: str, session: str | None, now_ms: int) -> None:
        fresh, seen = Books() if session is None else book.books, dict[str, int]()
        past: list[Told] = []
        tail: list[Told] = []
        book.tail = tail
        try:
            async for told in self._history(tenant, session):
                seen[told.session] = told.seq
                if session is None:
                    fresh.fold(told)
                else:
                    past.append(told)
        finally:
            book.tail = None
        later = [told for told in tail if told.seq > seen.get(told.session, 0) and session in {None, told.session}]
        if session is None:
            for told in later:
                fresh.fold(told)
            book.become(fresh, whole=True)
            book.turn(day_of(now_ms), now_ms)
        elif fresh is book.books and not book.knows(session):
            # At once, and only into the books that did not know the session: they may be others by now.
            for told in (*past, *later):
                fresh.fold(told)
            book.known.add(session)


def _cut(want: Want, tokens: int | None, microdollars: int | None, milliseconds: int | None) -> tuple[int, int]:
    """Tokens of the answer and milliseconds that fit into what is left; the least there is, where even that does not fit."""
    output = want.output
    if tokens is not None:
        output = min(output, tokens - want.input)
    if microdollars is not None and want.price.output:
        output = min(output, (microdollars * 1_000_000 - want.input * want.price.input) // want.price.output)
    time = want.milliseconds if milliseconds is None else min(want.milliseconds, milliseconds)
    return max(output, min(1, want.output)), max(time, min(LEAST_MS, want.milliseconds))


def _limits_of(
    account: Account, agents: Mapping[str, str], given: Mapping[str, Amounts], arbitration: Arbitration
) -> Mapping[str, int]:
    """What is declared for an account, and of a session no more than it was given."""
    kind, name, *day = account
    if kind != "session":
        return _limits((arbitration.per_day if day else arbitration.in_all).get((kind, name)))
    limits = _limits(arbitration.per_session.get(agents.get(name, "")))
    return at_most(limits, given[name]) if name in given else limits


@lru_cache(maxsize=4096)
def _limits(budget: Budget | None) -> Mapping[str, int]:
    return {} if budget is None else budget.limits()
