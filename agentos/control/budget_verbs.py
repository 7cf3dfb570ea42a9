"""The verb about budgets: budget.list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict

from agentos.abi.canonical import Json
from agentos.abi.ids import Clock
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.kernel.booked import KEPT_DAYS, day_of
from agentos.kernel.budget_tree import Branch
from agentos.kernel.budgets import Budgets
from agentos.kernel.lineage import paying_with
from agentos.kernel.port import Configuration
from agentos.projections.session import SessionState


class BudgetVerbs:
    """`current` gives a tenant's configuration in force, `state` a session of a tenant (raises NotFound)."""

    def __init__(
        self,
        budgets: Budgets,
        current: Callable[[str], Configuration],
        state: Callable[[str, str], Awaitable[SessionState]],
        clock: Clock,
    ) -> None:
        self._budgets = budgets
        self._current = current
        self._state = state
        self._clock = clock

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {"budget.list": self.list}

    async def list(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{days?, sessions?}` → `{tenant, day, accounts: [{kind, name, day, unit, limit, used, reserved, left}], trees}`.

        Agents, programs and the tenant, for all time (`day` null) and for each of the last `days` UTC days; of `sessions` those
        that are not over. Amounts are whole numbers of `unit`: tokens, microdollars, calls, milliseconds, bytes. `limit` and
        `left` are null where nothing is limited.

        `trees`: for each of `sessions`, over or not, `{session, over, whole, parts: [{session, parent, depth, agent, own, total,
        reserved}]}`: itself and all that it delegated to, each behind its parent; amounts by unit. `own` is what a session's own
        calls used, `total` and `reserved` are with all that is below it. `whole` is false where there are more than 1,000.
        """
        take = Params(params)
        days = take.number("days", default=1, lowest=1, highest=KEPT_DAYS)
        names = take.names("sessions")
        take.end()
        states = [await self._state(caller.tenant, name) for name in dict.fromkeys(names)]
        open_ = [state for state in states if not state.over]
        given = {state.id: own for state in open_ if (own := paying_with(state).given.get(state.id)) is not None}
        now = self._clock.now_ms()
        arbitration = self._current(caller.tenant).arbitration
        agents = {state.id: state.agent for state in open_}
        rows = await self._budgets.rows(caller.tenant, arbitration, now, days=days, sessions=agents, given=given)
        trees = []
        for state in states:
            branches, whole = await self._budgets.tree(caller.tenant, state.id)
            trees.append({"session": state.id, "over": state.over, "whole": whole, "parts": [_part(one) for one in branches]})
        return {"tenant": caller.tenant, "day": day_of(now), "accounts": [asdict(row) for row in rows], "trees": trees}


def _part(branch: Branch) -> dict[str, Json]:
    return {
        "session": branch.session,
        "parent": branch.parent,
        "depth": branch.depth,
        "agent": branch.agent,
        "own": dict(branch.own),
        "total": branch.total,
        "reserved": branch.held,
    }
