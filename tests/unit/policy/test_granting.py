"""Which rules a ToolGrant could settle: every id of the rule `grants` is told apart, and no other's."""

from __future__ import annotations

from agentos.policy.bundle import axioms
from agentos.policy.explain import rules_of
from agentos.policy.granting import settled_by_grant, settled_by_own_grant

OF_OTHERS = {
    "grants.delegated",
    "grants.delegator",
    "grants.delegator-approval",
    "grants.delegator-approval-counted",
    "grants.delegator-counted",
    "grants.undelegated",
}
BY_NONE = {"grants.chain", "grants.narrowed"}


def test_a_grant_settles_what_grants_said() -> None:
    """To the caller what its own lack; to another what those lack that it acts for; none what a delegation left out."""
    ids = {rule.rule for rule in rules_of(axioms("syscall"), "syscall")}
    grants = {name for name in ids if name.startswith("grants.")}
    assert grants > OF_OTHERS | BY_NONE
    assert {name for name in ids if settled_by_grant(name)} == grants - BY_NONE
    assert {name for name in ids if settled_by_own_grant(name)} == grants - BY_NONE - OF_OTHERS
