"""The question whether a person's yes counts, made from the folded session (`schemas/v1/approval-input.json`).

Policy of the target `approval` is asked it before an approval is recorded; the answer is recorded with the approval.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentos.abi.canonical import Json
from agentos.projections.session import Call, SessionState

_TOLD = ("by", "reason", "at", "expires", "scope")


def approval_question(
    state: SessionState, call: Call, *, agent: Mapping[str, Json], approval: Mapping[str, Json], now_ms: int
) -> dict[str, Json]:
    """The input for a yes to `call`, which waits for people.

    `agent` is `{name, labels}`; `approval` is `{by, roles, reason, scope, expires, max_uses}`, the yes that is being given. Of
    earlier yeses those to this very question are told: one under another policy counts no more, so its giver may be asked again.
    """
    decision = call.decision or {}
    return {
        "abi": "agentos/v1",
        "approval": dict(approval),
        "call": {
            "call": call.call,
            "tool": call.tool,
            "effect": call.effect,
            "args": dict(call.args),
            "args_digest": call.args_digest,
            "rules": list(decision.get("rules", ())),
            "reasons": list(decision.get("reasons", ())),
            "decided_at": call.decided_ms,
        },
        "agent": dict(agent),
        "session": {
            "id": state.id,
            "tenant": state.tenant,
            "actor": state.actor,
            "labels": sorted(state.labels),
            "delegation": list(state.delegated["lineage"]) if state.delegated is not None else [],
        },
        "approvals": [{key: one[key] for key in _TOLD} for one in call.approvals if _same_question(one, call)],
        "now": now_ms,
    }


def _same_question(approval: Mapping[str, Json], call: Call) -> bool:
    if (approval["args_digest"], approval["policy_digest"]) != (call.args_digest, call.policy_digest or ""):
        return False
    # A yes to fewer rules than ask now counts no more, and its giver may say yes to the others too.
    return set((call.decision or {}).get("rules", ())) <= set(approval["rules"])
