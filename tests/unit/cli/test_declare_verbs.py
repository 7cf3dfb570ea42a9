"""plan, apply, get, describe, delete, history and rollback at the command line, over a registry in memory."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from agentos.abi.canonical import Json
from agentos.abi.decision import Decision, Verdict, deny
from agentos.abi.resource import Resource
from agentos.cli import apply as apply_module
from agentos.cli import command
from agentos.cli.main import main
from agentos.control.principal import Caller
from agentos.control.registry_verbs import handlers
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.registry.apply import Applier
from agentos.registry.store import Registry

DECLARED = """\
apiVersion: agentos/v1
kind: Model
metadata: {name: fast}
spec: {provider: scripted, scripted: {play: {name: p, rules: [{id: done, when: "true", say: done}]}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: read}
spec: {description: read a file, effect: read, driver: {builtin: {primitive: read}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: triage, labels: {team: support}}
spec:
  instructions: |
    Sort the inbox.
    Never send anything.
  model: fast
  tools: [read]
  governance: {owner: ops, purpose: triage, risk: limited}
"""
GRANT = """\
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: triage-read}
spec: {agents: [triage], tools: [read], args: {path: {glob: "inbox/**"}}}
"""

HANDS = """\
apiVersion: agentos/v1
kind: Sandbox
metadata: {name: github}
spec:
  mounts: [{path: /opt/models, at: /models}]
  network: {allow: [{host: api.github.com, methods: [GET]}], inspect: true}
  limits: {memoryMiB: 512}
---
apiVersion: agentos/v1
kind: Secret
metadata: {name: github}
spec: {env: GITHUB_TOKEN, hosts: [api.github.com]}
---
apiVersion: agentos/v1
kind: Secret
metadata: {name: crm}
spec: {vault: {address: "https://vault.acme.example:8200", path: agents/crm, field: token}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: clone}
spec:
  description: Clone a repository.
  effect: external
  sandbox: github
  credentials: [{secret: github, header: Authorization, format: "Bearer {}"}]
  inputSchema: {type: object, required: [url], properties: {url: {type: string}}}
  driver: {exec: {command: [git, clone, --, {arg: url}]}}
"""


class Ticks:
    """A clock that stands still, and bytes that never repeat."""

    def __init__(self) -> None:
        self.used = 0

    def now_ms(self) -> int:
        return 1_763_713_800_000

    def token(self, size: int) -> bytes:
        self.used += 1
        return self.used.to_bytes(size, "big")


class Fake:
    """A client whose runtime is in this process; `decision` is what admission policy says."""

    def __init__(self) -> None:
        self.decision = Decision(Verdict.ALLOW)
        ticks = Ticks()
        registry = Registry(MemoryLog(), ticks, ticks)
        self.verbs = handlers(Applier(registry, validate=Resource.from_dict, check=self._check, admit=self._admit))

    async def call(self, verb: str, params: dict[str, Json], **_: Any) -> Json:
        caller = Caller("alice", ("operator",), "default", fleet=True)
        answer = await self.verbs[verb](caller, json.loads(json.dumps(params)))
        return json.loads(json.dumps(answer))

    async def _check(self, *_: Any) -> None:
        return None

    async def _admit(self, *_: Any) -> Decision:
        return self.decision


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()

    def with_client(work: Callable[[Fake], Awaitable[Json]]) -> Json:
        async def run() -> Json:
            return await work(fake)

        return asyncio.run(run())

    monkeypatch.setattr(command, "with_client", with_client)
    return fake


@pytest.fixture
def run(fake: Fake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run one command in a folder that holds `agents.yaml` and `grant.yaml`; gives exit code, stdout and stderr."""
    del fake
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGENTOS_TENANT", raising=False)
    (tmp_path / "agents.yaml").write_text(DECLARED)
    (tmp_path / "grant.yaml").write_text(GRANT)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def masked(text: str) -> str:
    """`text` without digests."""
    return re.sub(r"[0-9a-f]{64}|\b[0-9a-f]{12}\b", "<digest>", text)


def test_the_whole_story(run: Run, snapshot: SnapshotAssertion) -> None:
    """Declare, look, change, go back: what each verb prints on standard output."""
    story = []
    for words in (
        ("plan", "."),
        ("apply", ".", "--yes", "--allow-widen", "--reason", "start"),
        ("plan", "."),
        ("get", "all"),
        ("get", "agents", "-o", "wide"),
        ("get", "agents", "-l", "team=other"),
        ("get", "grant", "triage-read", "-o", "yaml"),
        ("get", "all", "-o", "name"),
        ("describe", "agent", "triage"),
        ("delete", "toolgrant", "triage-read", "--yes", "--allow-destroy"),
        ("rollback", "--to", "1", "--yes", "--allow-widen"),
        ("history",),
        ("history", "-n", "1", "-o", "wide"),
    ):
        code, out, err = run(*words)
        story.append(f"$ agentos {' '.join(words)}\n{out}[{code}] {err}")
    assert masked("\n".join(story)) == snapshot


def test_hands_are_declared_as_all_else_is(run: Run, snapshot: SnapshotAssertion, tmp_path: Path) -> None:
    """A Sandbox, Secrets and a Tool with both: planned, listed and described, and a plan says what a change of them permits."""
    (tmp_path / "hands.yaml").write_text(HANDS)
    (tmp_path / "wider.yaml").write_text(HANDS.replace("methods: [GET]", "methods: [GET, POST]").replace("512", "1024"))
    story = []
    for words in (
        ("apply", "hands.yaml", "--yes", "--allow-widen", "--reason", "start"),
        ("get", "sandboxes,secrets,tools"),
        ("describe", "sandbox", "github"),
        ("describe", "tool", "clone"),
        ("plan", "wider.yaml"),
    ):
        code, out, err = run(*words)
        story.append(f"$ agentos {' '.join(words)}\n{out}[{code}] {err}")
    assert masked("\n".join(story)) == snapshot


def test_yes_covers_neither_deleting_nor_widening(run: Run, snapshot: SnapshotAssertion) -> None:
    """Each refusal names what is missing, and nothing is changed."""
    said = [run("apply", ".", "--yes"), run("apply", "."), run("apply", "agents.yaml")]
    run("apply", ".", "--yes", "--allow-widen")
    said += [run("delete", "grant", "triage-read", "--yes"), run("delete", "grant", "triage-read", "--allow-destroy")]
    assert [(code, err) for code, _, err in said] == snapshot
    assert run("history", "-o", "name")[1] == "1\n"


@pytest.mark.parametrize(("answer", "code", "revisions"), [("yes\n", 0, "1\n"), ("y\n", 1, ""), ("", 1, "")])
def test_a_typed_yes_covers_what_the_plan_lists(
    run: Run, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, revisions: str
) -> None:
    """At a terminal a typed `yes`, and nothing else, applies a plan that widens."""
    asked: list[str] = []

    def confirm(question: str) -> bool:
        asked.append(question)
        return answer.strip() == "yes"

    monkeypatch.setattr(apply_module, "interactive", lambda: True)
    monkeypatch.setattr(apply_module, "confirm", confirm)
    assert run("apply", ".")[0] == code
    assert asked == ["Apply this plan (widen permission as listed)?"]
    assert run("history", "-o", "name")[1] == revisions


def test_saved_plan(run: Run, tmp_path: Path) -> None:
    """A saved plan applies what it says, once; edited or stale it is refused with the exit code of its reason."""
    assert run("plan", "agents.yaml", "-o", "a.plan")[0] == 2
    assert run("plan", ".", "-o", "b.plan")[0] == 2
    body = json.loads((tmp_path / "a.plan").read_text())
    body["changes"][0]["resource"]["spec"]["provider"] = "anthropic"
    (tmp_path / "edited.plan").write_text(json.dumps(body))
    code, _, err = run("apply", "--plan", "edited.plan", "--yes")
    assert (code, "was altered after it was made" in err) == (64, True)
    assert run("apply", "--plan", "a.plan", "--yes")[0] == 0
    code, _, err = run("apply", "--plan", "a.plan", "--yes")
    assert (code, "already applied as revision 1 by principal/alice" in err) == (4, True)
    code, _, err = run("apply", "--plan", "b.plan", "--yes", "--allow-widen")
    assert (code, "plan again: yours was made from revision 0" in err) == (4, True)
    (tmp_path / "no.plan").write_text("apiVersion: agentos/v1")
    assert run("apply", "--plan", "no.plan")[0] == 64
    assert run("apply", "--plan", "absent.plan")[0] == 1
    assert run("apply", ".", "--plan", "a.plan")[0] == 64


def test_dry_run(run: Run) -> None:
    """A dry run says that all checks passed, asks nothing and changes nothing."""
    code, _, err = run("apply", ".", "--dry-run", "--allow-widen")
    assert (code, "nothing was changed" in err) == (0, True)
    assert run("apply", ".", "--dry-run")[0] == 64
    assert run("history", "-o", "name")[1] == ""


def test_policy_refuses_at_the_line(run: Run, fake: Fake) -> None:
    """What admission policy refuses is shown with the place of the declaration that it speaks of, exit code 3."""
    fake.decision = deny("owner.unknown", "agent triage is owned by nobody that we know")
    code, _, err = run("apply", "agents.yaml", "--yes")
    assert code == 3
    assert "agents.yaml:11:1: policy refuses: owner.unknown: agent triage is owned by nobody" in err
    assert "  owner.unknown: agents.yaml:11:1: agent triage is owned" in err
    code, _, err = run("plan", "agents.yaml")
    assert (code, "policy refuses" in err) == (2, True)


def test_what_was_applied_may_be_named(run: Run) -> None:
    """A declaration may name what an earlier one declared; what nobody declared is a fault with its line."""
    code, _, err = run("plan", "grant.yaml")
    assert code == 1
    assert 'grant.yaml:4:17: toolgrant/triage-read: spec.agents[0]: there is no agent "triage"' in err
    assert run("apply", "agents.yaml", "--yes")[0] == 0
    assert run("plan", "grant.yaml")[0] == 2


def test_prune(run: Run, tmp_path: Path) -> None:
    """Prune deletes what carries the labels and is declared no more, and needs its word."""
    run("apply", "agents.yaml", "--yes")
    (tmp_path / "agents.yaml").write_text(DECLARED[: DECLARED.rindex("---")])
    assert run("plan", "agents.yaml")[0] == 0
    code, out, _ = run("plan", "agents.yaml", "--prune", "team=support")
    assert (code, "- agent/default/triage will be DELETED" in out) == (2, True)
    assert run("apply", "agents.yaml", "--prune", "team=support", "--yes")[0] == 64
    assert run("apply", "agents.yaml", "--prune", "team=support", "--yes", "--allow-destroy")[0] == 0
    assert run("get", "agents", "-o", "name")[1] == ""
    assert run("plan", "agents.yaml", "--prune", "team")[0] == 64


def test_machine_output(run: Run) -> None:
    """JSON stands alone on standard output."""
    code, out, _ = run("plan", ".", "--format", "json")
    assert (code, json.loads(out)["needs"]) == (2, ["allow_widen"])
    run("apply", ".", "--yes", "--allow-widen")
    assert [item["kind"] for item in json.loads(run("get", "all", "-o", "json")[1])] == ["Model", "Tool", "Agent", "ToolGrant"]
    assert json.loads(run("describe", "agent", "triage", "-o", "json")[1])["revision"] == 1
    assert json.loads(run("history", "-o", "json")[1])[0]["revision"] == 1


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("plan",), 64, "nothing to read"),
        (("get", "agnet"), 64, "did you mean agent?"),
        (("get", "agent", "nobody"), 1, "no such resource"),
        (("get", "all", "x"), 64, "a name already says"),
        (("delete", "agent", "nobody"), 1, "no such resource"),
        (("rollback", "--to", "7"), 1, "there is no revision 7"),
        (("plan", "absent.yaml"), 1, "absent.yaml"),
    ],
)
def test_mistakes(run: Run, words: tuple[str, ...], code: int, text: str) -> None:
    """Each mistake has its exit code and a sentence."""
    got, _, err = run(*words)
    assert got == code
    assert text in err
