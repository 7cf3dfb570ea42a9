"""An agent framework as the brain of an agent: its environment is mounted, its calls go through the gate."""

from __future__ import annotations

import re
import shutil
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from e2e_runtime import ROOT, Cli

EXAMPLE = ROOT / "examples" / "framework-harness"

DECLARED = """
apiVersion: agentos/v1
kind: Sandbox
metadata: {{name: brain}}
spec:
  workspace: none
  mounts:
    - {{path: {environment}, at: {environment}}}
    - {{path: {program}, at: /opt/harness.py}}
---
apiVersion: agentos/v1
kind: Model
metadata: {{name: steps}}
spec:
  provider: scripted
  scripted:
    play:
      name: steps
      rules:
        - id: look
          when: "not results"
          say: I look at both.
          call: [{{tool: read, args: {{path: input/a.txt}}}}, {{tool: read, args: {{path: input/none.txt}}}}]
        - {{id: write, when: "results | length < 3", call: [{{tool: write, args: {{path: b.txt, content: "{{{{ goal }}}}"}}}}]}}
        - {{id: done, when: "true", say: "{{{{ results | ok | length }}}} of {{{{ results | length }}}}"}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {{name: read}}
spec: {{description: Read a file., effect: read, driver: {{builtin: {{primitive: read}}}}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {{name: write}}
spec: {{description: Write a file., effect: write, idempotent: true, driver: {{builtin: {{primitive: write}}}}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {{name: worker}}
spec:
  instructions: Look, then write.
  model: steps
  tools: [read, write]
  harness: {{command: [{environment}/bin/python, -I, /opt/harness.py], sandbox: brain}}
  governance: {{owner: tests, purpose: testing, risk: minimal}}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {{name: reads}}
spec: {{agents: [worker], tools: [read]}}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {{name: writes}}
spec: {{agents: [worker], tools: [write], approval: required}}
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment of what `requirements/framework.txt` names and nothing else, copied from that of the tests."""
    made = tmp_path / "framework"
    venv.create(made, symlinks=True)
    packages = next(made.glob("lib/python*/site-packages"))
    for line in (ROOT / "requirements" / "framework.txt").read_text().splitlines():
        named = re.match(r"([a-z0-9-]+)==(\S+)(.*)", line)
        if named is None or "== 'emscripten'" in named[3]:
            continue
        found = distribution(named[1])
        assert found.version == named[2]
        for file in found.files or ():
            if not file.parts[0].startswith(".."):
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(found.locate_file(file), packages / file)
    return made


def test_a_framework_drives_a_session_that_waits_for_a_person(up: Cli, environment: Path, tmp_path: Path) -> None:
    """It leaves when the write waits for a yes; later a process that knows nothing of it finds the call in the view."""
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "a.txt").write_text("hello")
    manifests = tmp_path / "framework.yaml"
    manifests.write_text(DECLARED.format(environment=environment, program=EXAMPLE / "harness.py"))
    up("apply", str(manifests), "--yes", "--allow-widen")
    up("principal", "create", "ann", "--role", "approver")
    session = up("run", "worker", "the goal", "--input", str(tmp_path / "input"), "--wait", "-o", "name", expect=5).out.strip()
    waiting = up("session", "show", session, "-o", "json").json
    assert (waiting["state"], waiting["calls"]) == ("waiting", 2)
    up("--as", "ann", "approvals", "approve", session, "--reason", "fine")
    up("wait", session)
    ended = up("session", "show", session, "-o", "json").json
    assert (ended["state"], ended["result"], ended["calls"]) == ("finished", "2 of 3", 3)
    decided = [event["data"] for event in up("logs", session, "-o", "json").json if event["type"] == "agentos.syscall.decided"]
    assert [one["decision"]["effect"] for one in decided if one["tool"] == "write"] == ["ask", "allow"]
