"""Other policy evaluators on an equivalent of our grants. Runs in their environment: `python peers.py GRANTS` prints JSON.

Each decides whether an agent may call a tool: Cedar by one permit per agent, the toolkit by one equality rule per agent, as its
rules have a single condition.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 500


def cedar(grants: int) -> Callable[[], bool]:
    """Parsed permits, as fast as Cedar gets from Python."""
    cedarpy: Any = importlib.import_module("cedarpy")
    permits = "\n".join(
        f'permit(principal == Agent::"worker-{number}", action == Action::"call", resource == Tool::"write")'
        ' when { context.path like "out/*" };'
        for number in range(grants)
    )
    policies, entities = cedarpy.PolicySet.from_str(permits), cedarpy.Entities.from_json_str("[]")
    request = {
        "principal": f'Agent::"worker-{grants // 2}"',
        "action": 'Action::"call"',
        "resource": 'Tool::"write"',
        "context": {"path": "out/1.txt"},
    }
    return lambda: bool(cedarpy.is_authorized(request, policies, entities).allowed)


def toolkit(grants: int) -> Callable[[], bool]:
    """The rule that matches is halfway down the list, as a rule is on average."""
    schema: Any = importlib.import_module("agent_os.policies.schema")
    evaluator: Any = importlib.import_module("agent_os.policies.evaluator")
    rules = [
        schema.PolicyRule(
            name=f"worker-{number}",
            condition=schema.PolicyCondition(field="agent", operator="eq", value=f"worker-{number}"),
            action="allow",
        )
        for number in range(grants)
    ]
    engine = evaluator.PolicyEvaluator([schema.PolicyDocument(name="grants", rules=rules)])
    context = {"agent": f"worker-{grants // 2}", "tool_name": "write", "path": "out/1.txt"}
    return lambda: bool(engine.evaluate(context).allowed)


def measure(decide: Callable[[], bool]) -> dict[str, float]:
    """Microseconds of a decision."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        allowed = decide()
        times.append((time.perf_counter_ns() - started) / 1000)
        if not allowed:
            raise RuntimeError("the peer did not decide what it was meant to")
    times.sort()
    return {"p50": statistics.median(times), "p99": times[int(len(times) * 0.99)], "count": len(times)}


def main(grants: int) -> None:
    """Print the figures by name."""
    found = {
        f"`cedarpy`, {grants:,} permits (no Rego, no reasons, no second rule, no durability)": measure(cedar(grants)),
        f"`agent-governance-toolkit`, {grants:,} equality rules (no Rego, one condition a rule, no durability)": measure(
            toolkit(grants)
        ),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
