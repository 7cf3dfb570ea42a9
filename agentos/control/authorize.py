"""Who may ask for what: decided by Rego (`agentos.control`), before a verb runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from agentos.abi.canonical import Json
from agentos.abi.decision import Decision, Verdict
from agentos.abi.ids import FLEET
from agentos.control.principal import Caller


class Decide(Protocol):
    """The policy of the control service."""

    async def decide(self, document: Mapping[str, Json]) -> Decision:
        """Decide one command (`schemas/v1/control-input.json`); what cannot be decided is denied."""


class Authorize:
    """Asks policy. A fleet principal's home is `*`; a tenant's principal carries its tenant."""

    def __init__(self, policy: Decide) -> None:
        self._policy = policy

    async def __call__(self, caller: Caller, verb: str) -> Decision | None:
        """None if `caller` may perform `verb`, else the decision that says no."""
        home = FLEET if caller.fleet else caller.tenant
        decision = await self._policy.decide(
            {
                "abi": "agentos/v1",
                "principal": {"name": caller.name, "roles": list(caller.roles), "tenant": home},
                "verb": verb,
                "tenant": caller.tenant,
            }
        )
        return None if decision.effect is Verdict.ALLOW else decision
