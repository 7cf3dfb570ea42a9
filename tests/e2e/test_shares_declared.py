"""Classes, lent models and budgets as an operator declares them: applied in one go, shown, and refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

from e2e_runtime import Cli

FLEET = """
apiVersion: agentos/v1
kind: PriorityClass
metadata: {name: nightly}
spec: {description: Read in the morning, rank: -50, preemptible: true}
---
apiVersion: agentos/v1
kind: Model
metadata: {name: fast}
spec:
  provider: scripted
  scripted: {play: {name: steps, rules: [{id: done, when: "true", say: "done"}]}}
  limits: {concurrency: 2}
  price: {inputPerMillion: "3.00", outputPerMillion: "15.00"}
---
apiVersion: agentos/v1
kind: Tenant
metadata: {name: acme}
spec:
  weight: 3
  models: [fast]
  priorityClasses: [nightly, standard]
  programs: {reports: {weight: 2}}
  budget: {perDay: {dollars: "20.00"}}
---
apiVersion: agentos/v1
kind: ModelClass
metadata: {name: any, tenant: acme}
spec: {routes: [{models: [fast]}]}
"""
AGENT = """
apiVersion: agentos/v1
kind: Agent
metadata: {name: report, tenant: acme}
spec:
  instructions: Report.
  model: %s
  program: reports
  priorityClass: %s
  governance: {owner: tests, purpose: testing, risk: minimal}
"""


def put(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_tenant_uses_what_it_was_lent(up: Cli, tmp_path: Path) -> None:
    """An agent of one tenant thinks with the default tenant's model, by its name and by a class, with its own declarations."""
    fleet = put(tmp_path, "fleet.yaml", FLEET)
    assert "may use fast of tenant default" in up("apply", fleet, "--yes", expect=64).out
    up("apply", fleet, "--yes", "--allow-widen")
    # Alone, the file names a model and a class of the fleet that only the runtime knows of.
    up("apply", put(tmp_path, "agent.yaml", AGENT % ("fast", "nightly")), "--yes")
    done = json.loads(up("--tenant", "acme", "run", "report", "go", "--wait", "-o", "json").out)
    assert (done["state"], done["result"], done["tenant"]) == ("finished", "done", "acme")
    shown = up("get", "pc").out.splitlines()
    assert [line.split()[0] for line in shown[1:]] == ["nightly"]
    assert [item["metadata"]["name"] for item in json.loads(up("get", "mc", "-o", "json").out)] == ["any"]
    assert "used by" in up("describe", "model", "fast").out


def test_a_class_that_the_tenant_may_not_have_is_denied(up: Cli, tmp_path: Path) -> None:
    """Whether an agent asks for one, or the Tenant takes one back that an agent has: admission policy says no."""
    up("apply", put(tmp_path, "fleet.yaml", FLEET), "--yes", "--allow-widen")
    refused = up("apply", put(tmp_path, "agent.yaml", AGENT % ("fast", "interactive")), "--yes", expect=3)
    assert "priority.refused" in refused.err
    up("apply", put(tmp_path, "agent.yaml", AGENT % ("fast", "nightly")), "--yes")
    narrower = FLEET.replace("priorityClasses: [nightly, standard]", "priorityClasses: [standard]")
    assert (
        "agent report is of the priority class nightly"
        in up("apply", put(tmp_path, "fleet.yaml", narrower), "--yes", expect=3).err
    )


def test_what_is_in_use_stays(up: Cli, tmp_path: Path) -> None:
    """A lent model, and a class that an agent has, cannot be deleted; nothing is changed."""
    up("apply", put(tmp_path, "all.yaml", FLEET + "---" + AGENT % ("any", "nightly")), "--yes", "--allow-widen")
    for kind, name, users in (("model", "fast", "tenant/acme"), ("priorityclass", "nightly", "agent/report, tenant/acme")):
        assert f"still named by {users}" in up("delete", kind, name, "--yes", "--allow-destroy", expect=1).err
    assert json.loads(up("status", "-o", "json").out)["revision"] == 1
