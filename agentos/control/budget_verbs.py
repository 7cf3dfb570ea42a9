"""The verb about budgets: budget.list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict

from agentos.abi.canonical import Json
from agentos.abi.ids import Clock
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.kernel.booked import KEPT_DAYS, day_of
from agentos.kernel.budgets import Budgets
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
        """`{days?, sessions?}` → `{tenant, day, accounts: [{kind, name, day, unit, limit, used, reserved, left}]}`.

        Agents, programs and the tenant, for all time (`day` null) and for each of the last `days` UTC days; of `sessions` those
        that are not over. Amounts are whole numbers of `unit`: tokens, microdollars, calls, milliseconds, bytes. `limit` and
        `left` are null where nothing is limited.
        """
        take = Params(params)
        days = take.number("days", default=1, lowest=1, highest=KEPT_DAYS)
        names = take.names("sessions")
        take.end()
        agents = {name: (await self._state(caller.tenant, name)).agent for name in names}
        now = self._clock.now_ms()
        arbitration = self._current(caller.tenant).arbitration
        rows = await self._budgets.rows(caller.tenant, arbitration, now, days=days, sessions=agents)
        return {"tenant": caller.tenant, "day": day_of(now), "accounts": [asdict(row) for row in rows]}
