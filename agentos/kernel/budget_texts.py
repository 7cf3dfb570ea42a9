"""The sentence that a call refused by a budget is told: which account, its limit, what is used, held, left and wanted, and who
can raise it."""

from __future__ import annotations

from typing import Final

from agentos.kernel.booked import Payer
from agentos.kernel.lineage import ALONE, Paying
from agentos.scheduler.budget import Exceeded

_FIELDS: Final = {"tokens": "tokens", "microdollars": "dollars", "calls": "calls", "milliseconds": "seconds", "bytes": "bytes"}
"""What a unit is called where budgets are declared."""


def refusal(exceeded: Exceeded, payer: Payer, tenant: str, paying: Paying = ALONE) -> str:
    """One sentence for a reservation that was refused. `paying`: who pays with a session that was delegated to."""
    unit = exceeded.unit
    held = f", {amount(unit, exceeded.reserved)} are held by calls under way" if exceeded.reserved else ""
    return (
        f"the budget of {_whose(exceeded, tenant)} is {amount(unit, exceeded.limit)} {_FIELDS[unit]}: "
        f"{amount(unit, exceeded.used)} are used{held}, {amount(unit, exceeded.left)} are left, "
        f"{amount(unit, exceeded.wanted)} are wanted; {_mend(exceeded, payer, tenant, paying)}"
    )


def amount(unit: str, value: int) -> str:
    """An amount as it is declared: dollars and seconds with their fractions, whole numbers of the rest."""
    parts = {"microdollars": 1_000_000, "milliseconds": 1000}.get(unit)
    if parts is None:
        return str(value)
    whole, rest = divmod(value, parts)
    digits = str(rest).rjust(len(str(parts)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def _whose(exceeded: Exceeded, tenant: str) -> str:
    kind, name, *day = exceeded.account
    return " ".join((kind, name or tenant, *(f"for {one} (UTC)" for one in day)))


def _mend(exceeded: Exceeded, payer: Payer, tenant: str, paying: Paying) -> str:
    kind, name, *_ = exceeded.account
    if kind == "session" and paying.given.get(name, {}).get(exceeded.unit) == exceeded.limit:
        return "so much was given with the task: whoever delegates can give more"
    return f"an operator can raise {_where(exceeded, payer, tenant, paying)}"


def _where(exceeded: Exceeded, payer: Payer, tenant: str, paying: Paying) -> str:
    kind, name, *day = exceeded.account
    period, field = "perDay" if day else "total", _FIELDS[exceeded.unit]
    match kind:
        case "session" if name == payer.session:
            return f"spec.budget.{field} of Agent {payer.agent}"
        case "session":
            return f"spec.budget.{field} of Agent {paying.agents.get(name, '(unknown)')}, which session {name} above it runs"
        case "agent":
            return f"spec.budget.{period}.{field} of Agent {name}"
        case "program":
            return f"spec.programs.{name}.budget.{period}.{field} of Tenant {tenant}"
        case _:
            return f"spec.budget.{period}.{field} of Tenant {tenant}"
