"""Hard budgets: what a call may use is reserved in every account that pays for it, and settled when its use is known.

    ledger = Ledger()
    ledger.limit(("tenant", "acme"), "tokens", 100_000)
    held = ledger.reserve([("session", "s-1"), ("tenant", "acme")], {"tokens": 900, "calls": 1})
    ledger.settle(held, {"tokens": 412, "calls": 1})

All accounts or none: a reservation that any of them cannot bear is refused and changes nothing. As every child of a delegation
also pays from the accounts of its ancestors, children at work at the same time cannot overdraw what they share. What a
reservation did not use comes back; what it used beyond, which happens when a provider counts otherwise than we do, is booked and
refuses the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

Account = tuple[str, ...]
"""Kind, name, and the UTC day where it is one day's: `("session", "s-1")`, `("tenant", "acme", "2026-11-21")`."""

UNITS: Final = ("tokens", "microdollars", "calls", "milliseconds", "bytes")
"""What can be limited: whole numbers of each."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is held for one call. `accounts` each once, `amounts` by unit."""

    number: int
    accounts: tuple[Account, ...]
    amounts: Mapping[str, int] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Why a reservation was refused: the first account that could not bear it."""

    account: Account
    unit: str
    limit: int
    used: int
    reserved: int
    wanted: int

    @property
    def left(self) -> int:
        """What can still be reserved."""
        return max(0, self.limit - self.used - self.reserved)

    @property
    def passing(self) -> bool:
        """Whether only reservations of others are in the way, which may come back unused."""
        return self.used + self.wanted <= self.limit

    def __str__(self) -> str:
        kind, name, *day = self.account
        whose = " ".join((kind, name, *(f"for {one}" for one in day)))
        return f"the budget of {whose} is {self.limit} {self.unit}: {self.left} are left, {self.wanted} are wanted"


class Ledger:
    """Accounts, their limits, and what is used and reserved of them. An account without a limit only counts."""

    def __init__(self) -> None:
        self._limits: dict[Account, Mapping[str, int]] = {}
        self._used: dict[Account, dict[str, int]] = {}
        self._reserved: dict[Account, dict[str, int]] = {}
        self._open: dict[int, Reservation] = {}
        self._last = 0

    def limit(self, account: Account, unit: str, amount: int | None) -> None:
        """Limit an account from now on; None: no longer. What is used stays, so a lower limit may refuse at once."""
        if unit not in UNITS:
            raise ValueError(f"{unit} is no unit of a budget")
        limits = {other: most for other, most in self._limits.get(account, _NONE).items() if other != unit}
        self._limits[account] = limits if amount is None else limits | {unit: amount}

    def declare(self, account: Account, limits: Mapping[str, int]) -> None:
        """Give an account these limits, by units among `UNITS`, in place of all that it had."""
        self._limits[account] = limits

    def unlimit(self) -> None:
        """Drop all limits."""
        self._limits.clear()

    def reserve(self, accounts: Sequence[Account], amounts: Mapping[str, int]) -> Reservation | Exceeded:
        """Hold `amounts` in every one of `accounts`, or in none. Raises ValueError for a negative amount or an unknown unit."""
        for account in accounts:
            for unit, most in self._limits.get(account, _NONE).items():
                amount = amounts.get(unit, 0)
                # What costs nothing is not refused, also where the budget is used up.
                if amount > 0 and (used := self.used(account, unit)) + (held := self.reserved(account, unit)) + amount > most:
                    return Exceeded(account, unit, most, used, held, amount)
        return self.hold(accounts, amounts)

    def hold(self, accounts: Sequence[Account], amounts: Mapping[str, int]) -> Reservation:
        """Hold `amounts` whatever the limits are: of a call that the log says was let through. Raises ValueError as `reserve`."""
        for unit, amount in amounts.items():
            if unit not in UNITS or amount < 0:
                raise ValueError(f"{amount} {unit} cannot be reserved")
        self._last += 1
        made = Reservation(self._last, tuple(dict.fromkeys(accounts)), MappingProxyType(dict(amounts)))
        self._open[made.number] = made
        for account in made.accounts:
            _add(self._reserved.setdefault(account, {}), amounts)
        return made

    def settle(self, reservation: Reservation, used: Mapping[str, int]) -> None:
        """Book what was used and give the rest back. Raises KeyError for a reservation that is settled already."""
        del self._open[reservation.number]
        back = {unit: -amount for unit, amount in reservation.amounts.items()}
        for account in reservation.accounts:
            _add(self._reserved[account], back)
            if used:
                _add(self._used.setdefault(account, {}), used)

    def cancel(self, reservation: Reservation) -> None:
        """Give everything back, of a call that was not made."""
        self.settle(reservation, _NONE)

    def book(self, accounts: Sequence[Account], used: Mapping[str, int]) -> None:
        """Book what the log says was used, as after a restart; it is refused nothing."""
        for account in dict.fromkeys(accounts):
            _add(self._used.setdefault(account, {}), used)

    def forget(self, account: Account) -> None:
        """Drop an account that nobody pays from any more; while something is held in it, it stays."""
        if any(self._reserved.get(account, _NONE).values()):
            return
        for kept in (self._limits, self._used, self._reserved):
            kept.pop(account, None)

    def used(self, account: Account, unit: str) -> int:
        """How much of `unit` an account has used."""
        return self._used.get(account, _NONE).get(unit, 0)

    def reserved(self, account: Account, unit: str) -> int:
        """How much of `unit` is held in an account now."""
        return self._reserved.get(account, _NONE).get(unit, 0)

    def left(self, account: Account, unit: str) -> int | None:
        """How much an account can still bear; None when it has no limit."""
        most = self._limits.get(account, _NONE).get(unit)
        return None if most is None else max(0, most - self.used(account, unit) - self.reserved(account, unit))

    def room(self, accounts: Iterable[Account]) -> dict[str, int]:
        """By unit, how much all of these can still bear; a unit in which none has a limit is left out."""
        found: dict[str, int] = {}
        for account in accounts:
            for unit, most in self._limits.get(account, _NONE).items():
                left = max(0, most - self.used(account, unit) - self.reserved(account, unit))
                found[unit] = min(found.get(unit, left), left)
        return found

    def limits(self) -> Iterator[tuple[Account, str, int]]:
        """Every limit there is."""
        for account, units in self._limits.items():
            for unit, amount in units.items():
                yield account, unit, amount

    def accounts(self) -> frozenset[Account]:
        """Every account in which something was used or held."""
        return frozenset((*self._used, *self._reserved))


_NONE: Final[Mapping[str, int]] = MappingProxyType({})


def _add(amounts: dict[str, int], more: Mapping[str, int]) -> None:
    for unit, amount in more.items():
        amounts[unit] = amounts.get(unit, 0) + amount
