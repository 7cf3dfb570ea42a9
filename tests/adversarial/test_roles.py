"""Which role has which verb, asked of a whole runtime by principals of a tenant, of its neighbour, and of the fleet."""

from __future__ import annotations

import asyncio

import pytest
from adversarial_roles import WHO, may
from adversarial_world import OF_ACME, OF_BETA, ROLES, Knock, World

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOMES = {OF_ACME: (None,), OF_BETA: (None,), "*": (None, OF_ACME, OF_BETA)}
"""Where a principal belongs, and the tenants that it names."""

ODD = {"no-such-word": True}
"""A parameter that no verb has: who may use the verb is told so, and nothing is done."""


async def _told(knock: Knock, verb: str, tenant: str | None) -> str:
    answer = await knock(verb, ODD, tenant)
    if answer.code == "denied":
        rules = answer.body["error"]["rules"]
        return "no" if {rule.split(".")[0] for rule in rules} <= {"roles", "tenant"} else f"denied by {rules}"
    # The server itself lets nothing through that no role of the principal has.
    return {"usage": "yes", "refused": "no"}.get(answer.code, f"{answer.code or 'performed'}: {answer.body}")


async def _wrong(world: World, role: str, home: str) -> list[str]:
    knock = await world.knock(role, home)
    found = []
    for tenant in HOMES[home]:
        for verb in sorted(WHO):
            told, right = await _told(knock, verb, tenant), "yes" if may(role, verb, fleet=home == "*") else "no"
            if told != right:
                found.append(f"{knock.name} {verb} in {tenant or home}: {told}, and {right} is right")
    return found


async def test_the_table_of_roles_knows_every_verb(world: World) -> None:
    """A verb that is added has a line there, or this fails."""
    assert world.verbs() == WHO.keys()


async def test_each_role_has_its_verbs_and_no_others(world: World) -> None:
    """As the table says, in one's own tenant and for the fleet's principals in every tenant; nothing is performed by asking."""
    before = await world.of_beta()
    asked = [(role, home) for home in HOMES for role in ROLES if (role, home) != ("publisher", "*")]
    wrong = await asyncio.gather(*(_wrong(world, *one) for one in asked))
    assert [line for found in wrong for line in found] == []
    assert await world.of_beta() == before
