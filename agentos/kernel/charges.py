"""Charges: atomic counters for the obligations `rate` and `uses`, so that sessions at once never get more than there is.

A call is charged between the decision that lets it through and the durable record of that decision, and gets its charge back if
that record surely was not stored. The record names what was charged: the counters are a projection of the log, read from it
before the first charge of a tenant. A call is its session and its id: however often it is charged, it counts once.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.event import SYSCALL_DECIDED, Event, rfc3339
from agentos.abi.obligation import Obligation

CHARGED: Final = ("rate", "uses")
"""The kinds of obligations that are charged."""

SWEEP: Final = 4096
"""After so many charges whatever no window reaches any more is dropped."""


NEVER_MS: Final = 253_402_300_800_000
"""The year 10000, where dates end."""


class History(Protocol):
    """Where the past of the counters is."""

    def __call__(self, tenant: str) -> AsyncIterator[Event]:
        """The tenant's events that name a charge (others may be among them), in any order. Raises LogUnavailable, ChainBroken."""


@dataclass(frozen=True, slots=True)
class Payer:
    """The call that is charged, and for whom."""

    tenant: str
    session: str
    agent: str
    call: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call could not be charged: the kind of the obligation, and a sentence; of `uses` also the digests of the grants."""

    kind: str
    reason: str
    spent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a call was charged: `charged` as recorded in its `decided` event (empty: nothing)."""

    charged: tuple[Mapping[str, Json], ...] = ()
    undo: tuple[tuple[_Counter, int | None], ...] = field(default=(), repr=False)
    payer: Payer | None = None


NOTHING: Final = Receipt()

_Call = tuple[str, str]
"""Session and call id."""

_Rate = tuple[str, str, str]
"""Name of a rate, what it is per, and whose counter it is."""


class _Counter:
    """The calls that were charged, and when (milliseconds), earliest first."""

    __slots__ = ("calls", "forgotten_until", "reach")

    def __init__(self) -> None:
        self.calls: dict[_Call, int] = {}
        self.reach = 0
        """Length of the longest window that was asked about; what is older than that is dropped."""
        self.forgotten_until = 0
        """Of earlier charges some may have been dropped."""

    def put(self, call: _Call, now: int) -> int | None:
        """Charge `call`; return when it was charged before. The clock may go back, the order does not."""
        before = self.calls.pop(call, None)
        latest = next(reversed(self.calls.values()), 0)
        self.calls[call] = max(now, latest, before or 0)
        return before

    def restore(self, call: _Call, before: int | None) -> None:
        self.calls.pop(call, None)
        if before is not None:
            self.merge({call: before})

    def merge(self, found: Mapping[_Call, int]) -> None:
        for call, time in found.items():
            self.calls[call] = max(time, self.calls.get(call, 0))
        self.calls = dict(sorted(self.calls.items(), key=lambda item: item[1]))

    def others(self, call: _Call, since: int) -> list[int]:
        """When other calls were charged after `since`, latest first."""
        found = []
        for other, time in reversed(self.calls.items()):
            if time <= since:
                break
            if other != call:
                found.append(time)
        return found

    def prune(self, now: int) -> None:
        """Drop what no window reaches any more."""
        since = now - self.reach
        if next(iter(self.calls.values()), now) <= since:
            self.calls = {call: time for call, time in self.calls.items() if time > since}
            self.forgotten_until = max(self.forgotten_until, since)


class _Book:
    """The counters of one tenant."""

    def __init__(self) -> None:
        self.loading = asyncio.Lock()
        self.loaded = False
        self.rates: dict[_Rate, _Counter] = {}
        self.uses: defaultdict[tuple[str, str], _Counter] = defaultdict(_Counter)
        self.forgotten: dict[tuple[str, str], int] = {}
        """By name and `per` of a rate: until when its counters that were empty and are gone may have forgotten charges."""
        self.since_sweep = 0

    def rate(self, key: _Rate) -> _Counter:
        if key not in self.rates:
            self.rates[key] = _Counter()
            self.rates[key].forgotten_until = self.forgotten.get(key[:2], 0)
        return self.rates[key]

    def lacks(self, payer: Payer, rates: Sequence[Obligation], now: int) -> bool:
        """Whether the log has to be read before these can be charged: never yet, or a window is longer than what was kept."""
        return not self.loaded or any(
            max(0, now - _window(one)) < self.rate(_rate_key(one.fields, payer)).forgotten_until for one in rates
        )

    def sweep(self, now: int) -> None:
        """Once in a while: forget what no window reaches, and the counters that are empty then."""
        self.since_sweep += 1
        if self.since_sweep < SWEEP:
            return
        self.since_sweep = 0
        for key, counter in list(self.rates.items()):
            counter.prune(now)
            if not counter.calls:
                self.forgotten[key[:2]] = max(self.forgotten.get(key[:2], 0), counter.forgotten_until)
                del self.rates[key]


class Charges:
    """The counters of all tenants."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._books: defaultdict[str, _Book] = defaultdict(_Book)

    async def charge(self, payer: Payer, obligations: Sequence[Obligation], now_ms: int) -> Receipt | Refusal:
        """Charge a call for every `rate` and `uses` among `obligations`, or for none: then the Refusal says which is used up.

        Raises LogUnavailable when the past cannot be read; nothing is charged then.
        """
        rates = [one for one in obligations if one.kind == "rate"]
        book = self._books[payer.tenant]
        for one in rates:
            counter = book.rate(_rate_key(one.fields, payer))
            counter.reach = max(counter.reach, _window(one))
        if book.lacks(payer, rates, now_ms):
            async with book.loading:
                if book.lacks(payer, rates, now_ms):
                    await self._load(book, payer.tenant)
        # Nothing is awaited from here on, so nobody comes between the look and the charge.
        call = payer.session, payer.call
        plan: list[tuple[_Counter, dict[str, Json]]] = []
        for one in rates:
            counter = book.rate(_rate_key(one.fields, payer))
            spent = counter.others(call, now_ms - _window(one))
            if len(spent) >= one.fields["limit"]:
                return Refusal("rate", _over(one, spent))
            plan.append((counter, {"kind": "rate", **{key: one.fields[key] for key in ("name", "per", "limit", "seconds")}}))
        for one in (one for one in obligations if one.kind == "uses"):
            paying = _paying(book, one.fields["grants"], call)
            if paying is None:
                return Refusal("uses", _used_up(one), tuple(grant["digest"] for grant in one.fields["grants"]))
            plan.append((book.uses[_use_key(paying)], {"kind": "uses", "grant": paying["name"], "digest": paying["digest"]}))
        undo = [(counter, counter.put(call, now_ms)) for counter, _ in plan]
        book.sweep(now_ms)
        return Receipt(tuple(entry for _, entry in plan), tuple(undo), payer)

    def refund(self, receipt: Receipt) -> None:
        """Take a charge back: its call was surely not let through."""
        for counter, before in reversed(receipt.undo):
            if receipt.payer is not None:
                counter.restore((receipt.payer.session, receipt.payer.call), before)

    async def _load(self, book: _Book, tenant: str) -> None:
        rates: defaultdict[_Rate, dict[_Call, int]] = defaultdict(dict)
        uses: defaultdict[tuple[str, str], dict[_Call, int]] = defaultdict(dict)
        async for event in self._history(tenant):
            if event.type != SYSCALL_DECIDED:
                continue
            # Of the header, which stays when the payload is erased.
            told = event.attributes
            payer = Payer(tenant, event.subject, str(told["agent"]), str(told["call"]))
            call = payer.session, payer.call
            for entry in json.loads(str(told.get("charged", "[]"))):
                found = rates[_rate_key(entry, payer)] if entry["kind"] == "rate" else uses[entry["grant"], entry["digest"]]
                found[call] = max(event.time_ms, found.get(call, 0))
        # Merged at once: calls that were charged meanwhile are in both, and count once.
        for key, calls in rates.items():
            book.rate(key).merge(calls)
        for use, calls in uses.items():
            book.uses[use].merge(calls)
        for counter in book.rates.values():
            counter.forgotten_until = 0
        book.forgotten.clear()
        book.loaded = True


def _window(rate: Obligation) -> int:
    return int(rate.fields["seconds"]) * 1000


def _rate_key(rate: Mapping[str, Json], payer: Payer) -> _Rate:
    owner = {"session": payer.session, "agent": payer.agent, "tenant": ""}[rate["per"]]
    return rate["name"], rate["per"], owner


def _use_key(grant: Mapping[str, Json]) -> tuple[str, str]:
    return grant["name"], grant["digest"]


def _paying(book: _Book, grants: Sequence[Mapping[str, Json]], call: _Call) -> Mapping[str, Json] | None:
    """The grant that has paid for this call already, else the first with a use left."""
    for grant in grants:
        if call in book.uses[_use_key(grant)].calls:
            return grant
    return next((grant for grant in grants if len(book.uses[_use_key(grant)].calls) < grant["maximum"]), None)


def _over(rate: Obligation, spent: Sequence[int]) -> str:
    limit, seconds = rate.fields["limit"], rate.fields["seconds"]
    what = f"rule {rate.rule} lets {limit} calls through per {rate.fields['per']} in {seconds} s ({rate.fields['name']})"
    if limit == 0:
        return f"{what}: none"
    free = sorted(spent)[len(spent) - limit] + _window(rate)
    when = f"at {rfc3339(free)}" if free < NEVER_MS else "in no time that can be written"
    return f"{what}, and {len(spent)} were made: the next may be made {when}"


def _used_up(uses: Obligation) -> str:
    named = ", ".join(f"{grant['name']} ({grant['maximum']})" for grant in uses.fields["grants"])
    return f"the uses of the grants that cover this call are used up: {named}; an operator can renew a ToolGrant"
