"""Meeting obligations beside the rewriting of arguments: sandbox, withheld results, people to tell.

What cannot be met denies the call before it is made; what comes back from a call is cut rather than trusted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from agentos.abi.canonical import Json, NotCanonical, canonical, parse_strict
from agentos.abi.decision import parse_decision
from agentos.abi.obligation import REDACTED, Obligation, parse_obligation
from agentos.abi.syscall import MODEL_CALL, NET_REQUEST, Result
from agentos.kernel.rewrite import rewrite
from agentos.kernel.ruling import Ruling
from agentos.projections.session import Call, ObligedCall

_REPLY: Final = frozenset({"content", "stop_reason", "input_tokens", "output_tokens", "*"})
"""First steps that lead into a model's reply: a reply is kept as the model gave it, or not asked for."""


def feasible(ruling: Ruling, tool: str, profiles: Collection[str]) -> Ruling:
    """The ruling, denied if its call cannot be made as it obliges to. `profiles`: sandboxes that the tool's driver can force."""
    wanted = {one.fields["profile"]: one.rule for one in ruling.obliged("sandbox")}
    for profile, rule in wanted.items():
        if len(wanted) > 1:
            return ruling.denied("sandbox", f"no call is made inside several sandboxes at once: {', '.join(sorted(wanted))}")
        if profile not in profiles:
            able = ", ".join(sorted(profiles)) or "none"
            reason = f"rule {rule} wants sandbox {profile} for tool {tool}, which its driver cannot force (it can: {able})"
            return ruling.denied("sandbox", reason)
    if tool == MODEL_CALL:
        for one in ruling.in_result:
            if one.fields["path"].split("/")[1] in _REPLY:
                return ruling.denied(one.kind, f"rule {one.rule} obliges to what cannot be done: {one.kind} a model's reply")
    return ruling


_UNASKED: Final = {
    MODEL_CALL: ("kernel.model-ask", "a call of the model cannot wait for a person; let the rule deny it or ask about the tools"),
    NET_REQUEST: ("kernel.net-ask", "a request that leaves cannot wait for a person; let the rule deny it or ask about the tool"),
}


def unasked(ruling: Ruling, tool: str) -> Ruling:
    """The ruling about a call that no person can be asked about, denied.

    Each try of a model call is another call with another digest of its input, so that no yes would ever be about the one that is
    made; and whoever makes a request waits for its answer, not for a person's.
    """
    rule, reason = _UNASKED[tool]
    denied = ruling.denied("ask", reason)
    return replace(denied, decision=replace(denied.decision, rules=(rule,)))


def sandbox(ruling: Ruling) -> str | None:
    """The profile that the call is to be made in."""
    return next((str(one.fields["profile"]) for one in ruling.obliged("sandbox")), None)


def withhold(result: Result, obligations: Sequence[Obligation]) -> tuple[Result, list[str]]:
    """`result` as `obligations` (redact and mask) let it be kept and told; JSON Pointers into it of what was replaced.

    Their paths are those of the structured data. Of the text nobody knows what stands where: unless it is that data as JSON it
    goes, whether or not a path was found in the data. Raises NotCanonical for data that cannot be recorded anyhow.
    """
    if not obligations:
        return result, []
    if result.data is None:
        return replace(result, content=REDACTED), ["/content"]
    new = rewrite(result.data, obligations)
    places = [f"/data{change.path}" for change in new.changes]
    if _mirrors(result.content, result.data) and not places:
        return result, []
    content = canonical(new.value).decode()
    return replace(result, content=content, data=new.value), [*places, "/content"]


def withheld(obligations: Sequence[Obligation]) -> str:
    """What is said of a failure whose words are withheld."""
    return f"the tool failed; what it said is withheld ({', '.join(sorted({one.rule for one in obligations}))})"


def binding(call: Call, *kinds: str) -> tuple[Obligation, ...]:
    """The obligations of these kinds that bind a recorded call: of its decision, then those carried over a rewrite."""
    if call.decision is None or not isinstance(call, ObligedCall):
        return ()
    carried = (parse_obligation(one) for one in call.carried)
    return (
        *parse_decision(dict(call.decision)).obliged(*kinds),
        *(one for one in carried if one is not None and one.kind in kinds),
    )


def notices(call: Call) -> list[dict[str, Json]]:
    """The payloads of `agentos.policy.notified` that are still to be recorded of the last decision: whom to tell what."""
    told = dict(call.notified) if isinstance(call, ObligedCall) else {}
    left: list[dict[str, Json]] = []
    for one in binding(call, "notify"):
        if told.get(one.rule, 0):
            told[one.rule] -= 1
            continue
        to, text = list(one.fields["to"]), one.fields["text"]
        left.append({"call": call.call, "tool": call.tool, "rule": one.rule, "to": to, "text": text})
    return left


def _mirrors(text: str, data: Json) -> bool:
    try:
        return canonical(parse_strict(text)) == canonical(data)
    except NotCanonical:
        return False
