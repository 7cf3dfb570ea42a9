"""Which refusals and questions a ToolGrant could settle, told from the ids of the rules that gave them.

A session that acts for others is also held to their grants (`policies/agentos/syscall/rules/grants`): what these say is settled
by a grant to another agent, or, where a delegation left the tool out, by none.
"""

from __future__ import annotations

from typing import Final

_GRANTS: Final = "grants."
_OF_OTHERS: Final = frozenset(
    {
        "grants.delegated",
        "grants.delegator",
        "grants.delegator-approval",
        "grants.delegator-approval-counted",
        "grants.delegator-counted",
        "grants.undelegated",
    }
)
_BY_NONE: Final = frozenset({"grants.chain", "grants.narrowed"})


def settled_by_grant(rule: str) -> bool:
    """Whether a ToolGrant could change what this rule said: one to the agent that calls, or to one that it acts for."""
    return rule.startswith(_GRANTS) and rule not in _BY_NONE


def settled_by_own_grant(rule: str) -> bool:
    """Whether a ToolGrant to the agent that calls could."""
    return settled_by_grant(rule) and rule not in _OF_OTHERS
