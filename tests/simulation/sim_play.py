"""What the simulated world plays with: dice, tools, a model, and a policy for the simulation alone.

Everything follows from the seed by name: `dice(seed, "model", …)` is the same wherever it is rolled.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentos.abi.decision import FAILED, Decision, Verdict, deny
from agentos.abi.errors import DriverError
from agentos.abi.obligation import Obligation
from agentos.abi.syscall import ToolEffect
from agentos.drivers.port import ModelReply, ModelRequest, ModelSpec, ModelUnavailable, ToolSpec
from agentos.kernel.arguments import compile_check
from agentos.kernel.consent import APPROVED
from agentos.kernel.port import AgentSpec, Configuration
from agentos.sandbox.profile import standard

if TYPE_CHECKING:
    from sim_world import World

EPOCH_MS = 1_700_000_000_000
APPROVAL_TIMEOUT_MS = 300_000
APPROVAL_VALID_MS = 120_000

SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["path"],
    "additionalProperties": False,
}


def dice(seed: int, *name: object) -> random.Random:
    """Dice of their own for everything that has a name."""
    return random.Random("/".join(map(str, (seed, *name))))


def _tool(
    name: str, effect: ToolEffect, *, idempotent: bool = False, labels: tuple[str, ...] = (), commutes: bool = False
) -> ToolSpec:
    driver = {"mcp": {"server": {"command": ["x"]}, "tool": name}}
    return ToolSpec(name, name, effect, idempotent, SCHEMA, driver, labels, commutes=commutes)


TOOLS = {
    one.name: one
    for one in (
        _tool("look", ToolEffect.READ, labels=("seen",), commutes=True),
        _tool("peek", ToolEffect.READ, commutes=True),
        _tool("read", ToolEffect.READ, commutes=True),
        _tool("put", ToolEffect.WRITE, idempotent=True),
        _tool("send", ToolEffect.EXTERNAL),
        _tool("pay", ToolEffect.EXTERNAL),
        _tool("gift", ToolEffect.EXTERNAL),
        _tool("sign", ToolEffect.EXTERNAL),
        _tool("post", ToolEffect.EXTERNAL),
        _tool("ping", ToolEffect.EXTERNAL, idempotent=True),
        _tool("forbidden", ToolEffect.EXTERNAL),
        _tool("stop", ToolEffect.READ, commutes=True),
    )
}
CHECKS = {name: compile_check(tool.input_schema) for name, tool in TOOLS.items()}
CHOICES = [name for name in TOOLS for _ in range(1 if name == "stop" else 8)]
READS = [name for name in CHOICES if TOOLS[name].commutes] + ["send"]

APPROVERS = {"send": 1, "sign": 2, "post": 1, "read": 1}
"""How many people the simulated policy wants for a call of a tool (of `send` and `read` only for some)."""

RATE = {"name": "pays", "limit": 2, "seconds": 120}
GRANTS = ({"name": "small", "digest": "sha256:small", "maximum": 1}, {"name": "large", "digest": "sha256:large", "maximum": 2})


def reply(world: World, request: ModelRequest) -> ModelReply:
    """What the model says. It is a function of the goal, of how many replies there were, and of how often it was asked."""
    goal = request.messages[0]["content"][0]["text"]
    number = sum(1 for message in request.messages if message["role"] == "assistant")
    tries = world.count(f"model {goal} {number}")
    roll = dice(world.seed, "model", goal, number)
    if world.fault("model", 0.04):
        raise ModelUnavailable("overloaded", retry_after=2.0)
    if tries == 1 and roll.random() < 0.01:
        raise DriverError("the model makes no sense")
    if number >= 1 + int(goal.rpartition(" ")[2]) % 4 + roll.randrange(2):
        return ModelReply([{"type": "text", "text": "done"}], "end_turn", 7, 3)
    content: list[dict[str, Any]] = [{"type": "text", "text": f"turn {number}"}]
    choices, many = (READS, (2, 3, 5)) if roll.random() < 0.2 else (CHOICES, (1, 1, 2, 3, 4))
    content += [{"type": "tool_use", **_proposal(roll, choices, number, place)} for place in range(roll.choice(many))]
    return ModelReply(content, "tool_use", 7, 3)


def _proposal(roll: random.Random, choices: Sequence[str], number: int, place: int) -> dict[str, Any]:
    call = f"c{number}-{place}"
    name = roll.choice(choices)
    args: dict[str, Any] = {"path": roll.choice("ab"), "n": roll.randrange(40)}
    odd = roll.random()
    if odd < 0.02:
        args = {"n": "none"}
    elif odd < 0.03:
        args["n"] = 2**60
    elif odd < 0.04:
        name = "nothing"
    elif odd < 0.045:
        call = "c0-0"
    return {"id": call, "name": name, "input": args}


@dataclass(frozen=True, slots=True)
class Knobs:
    """One revision of the simulated desired state."""

    revision: int
    per: str = "tenant"
    policy: int = 0
    """Which policy is in force; another one makes the yeses of before worthless."""
    agent: bool = True

    @property
    def digest(self) -> str:
        return f"sha256:{self.policy:064x}"


class SimulationPolicy:
    """A decider for the simulation only: a pure function of the question, in place of Rego (which has tests of its own)."""

    engine = "the policy of the simulation"
    data_digest = "sha256:" + "d" * 64

    def __init__(self, seed: int, knobs: Knobs) -> None:
        self._seed = seed
        self._knobs = knobs

    async def decide_syscall(self, document: Mapping[str, Any]) -> Decision:
        asked = document["syscall"]
        tool, n = asked["tool"], asked["args"].get("n", 0)
        roll = dice(self._seed, "policy", asked["args_digest"], document["now"])
        if roll.random() < 0.01:
            return deny(FAILED, "policy gave no answer")
        match tool:
            case "forbidden":
                return deny("rules.forbidden", "nobody may")
            case "read" if n % 8 == 1:
                return _asked(document, 1)
            case "stop" if n < 20:
                return Decision(Verdict.HALT, ("rules.stop",), ("that is enough",))
            case "put" if n > 20:
                return _allow({"kind": "cap", "path": "/n", "maximum": 20}, {"kind": "label", "labels": ["capped"]})
            case "ping":
                return _allow(
                    {"kind": "rate", "per": "session", **RATE, "name": "pings"}, {"kind": "sandbox", "profile": "closed"}
                )
            case "pay":
                rate = {"kind": "rate", "per": self._knobs.per, **RATE}
                return _allow(rate, {"kind": "notify", "to": ["ann"], "text": "paid"})
            case "gift":
                left = [grant for grant in GRANTS if grant["digest"] not in document["spent"]]
                return _allow({"kind": "uses", "grants": left}) if left else deny("grants.none", "all are used up")
            case "send" if n % 3:
                return _allow()
            case "send" | "sign" | "post":
                return _asked(document, APPROVERS[tool])
            case _:
                return _allow()

    async def approve(self, document: Mapping[str, Any]) -> Decision:
        by = document["approval"]["by"]
        if by == document["session"]["actor"]:
            return deny("approval.requester", "who started the session never approves")
        if any(one["by"] == by for one in document["approvals"]):
            return deny("approval.distinct", "the same person counts once")
        return Decision(Verdict.ALLOW)


def _allow(*obligations: dict[str, Any]) -> Decision:
    bound = tuple(Obligation(one["kind"], "rules.bound", {k: v for k, v in one.items() if k != "kind"}) for one in obligations)
    return Decision(Verdict.ALLOW, ("grants.allow",), (), (), bound)


def _asked(document: Mapping[str, Any], count: int) -> Decision:
    """As `policies/agentos/syscall/main.rego`: enough different people, of this policy, in time, for this call or its rule."""
    asked = document["syscall"]
    rule = f"rules.{asked['tool']}"
    people = {
        one["by"]
        for one in document["approvals"]
        if one["tool"] == asked["tool"]
        and one["policy_digest"] == document["policy_digest"]
        and one["expires"] > document["now"]
        and (
            one["args_digest"] == asked["args_digest"]
            if one["scope"] == "once"
            else one["uses_left"] > 0 and rule in one["rules"]
        )
    }
    bound = (Obligation("approvers", rule, {"count": count}),)
    if len(people) >= count:
        return Decision(Verdict.ALLOW, ("grants.allow", rule, APPROVED), ("people have approved",), (), bound)
    return Decision(Verdict.ASK, (rule,), ("people are to say",), (), bound)


def configuration(seed: int, knobs: Knobs) -> Configuration:
    """What is in force at one revision."""
    agents = {"worker": AgentSpec("worker", "m", "You work.", tuple(TOOLS), {})} if knobs.agent else {}
    return Configuration(
        tenant="default",
        revision=knobs.revision,
        policy_digest=knobs.digest,
        max_sessions=100,
        agents=agents,
        tools=TOOLS,
        models={"m": ModelSpec("m", "simulated", {})},
        checks=CHECKS,
        decider=SimulationPolicy(seed, knobs),
        sandboxes={"closed": standard("closed")},
        approval_timeout_ms=APPROVAL_TIMEOUT_MS,
        approval_valid_ms=APPROVAL_VALID_MS,
    )
