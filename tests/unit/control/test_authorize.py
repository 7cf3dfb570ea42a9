"""Who may knock: the question that policy is asked, and what counts as a yes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest

from agentos.abi.assets import asset
from agentos.abi.decision import Decision, Verdict, deny
from agentos.abi.errors import EngineUnavailable
from agentos.control.authorize import Authorize
from agentos.control.principal import Caller
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.decide import ControlDecider, Decider

SCHEMA = jsonschema.Draft202012Validator(json.loads((asset("schemas") / "v1" / "control-input.json").read_text()))


class Policy:
    """Says what it is told, and remembers what it was asked."""

    def __init__(self, decision: Decision) -> None:
        self.decision, self.asked = decision, []  # type: ignore[var-annotated]

    async def decide(self, document: Mapping[str, Any]) -> Decision:
        self.asked.append(document)
        return self.decision


@pytest.mark.parametrize(
    ("caller", "home"),
    [
        (Caller("olga", ("operator",), "acme", fleet=True), "*"),
        (Caller("olga", (), "default", fleet=True), "*"),
        (Caller("anna", ("auditor", "approver"), "acme", fleet=False), "acme"),
    ],
)
async def test_the_question_is_of_the_published_shape(caller: Caller, home: str) -> None:
    """Who asks, where that principal is at home, for what, and in which tenant."""
    policy = Policy(Decision(Verdict.ALLOW))
    assert await Authorize(policy)(caller, "session.list") is None
    SCHEMA.validate(policy.asked[0])
    assert policy.asked[0] == {
        "abi": "agentos/v1",
        "principal": {"name": caller.name, "roles": list(caller.roles), "tenant": home},
        "verb": "session.list",
        "tenant": caller.tenant,
    }


@pytest.mark.parametrize("effect", [Verdict.DENY, Verdict.ASK, Verdict.HALT])
async def test_only_an_allow_is_a_yes(effect: Verdict) -> None:
    """Also a question to a person is a no here: nobody waits at the door."""
    no = Decision(effect, ("r",), ("because",))
    assert await Authorize(Policy(no))(Caller("a", (), "default", fleet=False), "x") is no


ROLES = {
    "operator": {"registry.plan", "registry.apply", "session.create", "principal.create", "runtime.shutdown"},
    "approver": {"approval.approve", "approval.deny"},
    "auditor": {"audit.rebuild", "evidence.export"},
    "compliance": {"registry.plan", "evidence.export"},
}
VERBS = sorted({verb for verbs in ROLES.values() for verb in verbs})


async def test_the_real_policy_keeps_the_roles_apart() -> None:
    """With the shipped Rego: each role has its verbs and no other's; no role, an unknown verb and a foreign tenant have none."""
    decider = await ControlDecider.load(EmbeddedFactory())
    try:
        may = Authorize(decider)
        for role, verbs in ROLES.items():
            for verb in VERBS:
                refused = await may(Caller("a", (role,), "default", fleet=True), verb)
                assert (refused is None) == (verb in verbs), (role, verb)
        for verb in VERBS:
            refused = await may(Caller("a", (), "default", fleet=True), verb)
            assert refused is not None
            assert refused.reasons
        assert await may(Caller("a", ("operator",), "default", fleet=True), "registry.explode") is not None
        assert await may(Caller("a", ("operator",), "acme", fleet=False), "registry.apply") is None
        fleet_wide = await may(Caller("a", ("operator",), "acme", fleet=False), "principal.create")
        assert fleet_wide is not None
        assert "tenant.fleet" in fleet_wide.rules
    finally:
        decider.close()


async def test_without_an_engine_nobody_may_anything() -> None:
    """An installation without OPA denies every command, and says why."""
    decider = ControlDecider(Decider.denying(EngineUnavailable("no engine", mend="install it")))
    refused = await Authorize(decider)(Caller("a", ("operator",), "default", fleet=True), "registry.apply")
    assert refused is not None
    assert refused.effect is Verdict.DENY
    assert "no engine" in refused.reasons[0]


def test_denials_name_a_rule() -> None:
    """The runtime's own denial has the shape of one of policy's."""
    assert deny("kernel.x", "because").rules == ("kernel.x",)
