"""Every verb, with parameters that name things: `<word>` stands for one of another tenant, or for one that nobody has.

A verb that names nothing has an empty list. A new verb must be put in here, or the test that reads this fails.
"""

from __future__ import annotations

from typing import Any

SESSION = {"session": "<session>"}
WHY = {"reason": "because"}
DATA = "aGVsbG8="
SHA = "sha256:" + "0" * 64

AGENT = {
    "apiVersion": "agentos/v1",
    "kind": "Agent",
    "metadata": {"name": "spy", "tenant": "acme"},
    "spec": {
        "instructions": "Look.",
        "model": "steps",
        "tools": ["write"],
        "governance": {"owner": "tests", "purpose": "testing", "risk": "minimal"},
    },
}


def declared(**spec: Any) -> dict[str, Any]:
    """An Agent of acme whose specification names something."""
    return {**AGENT, "spec": {**AGENT["spec"], **spec}}  # type: ignore[dict-item]


def tool(**spec: Any) -> dict[str, Any]:
    body = {"description": "Try.", "effect": "write", **spec}
    return {"apiVersion": "agentos/v1", "kind": "Tool", "metadata": {"name": "try", "tenant": "acme"}, "spec": body}


def trigger(**on: Any) -> dict[str, Any]:
    body = {"agent": "worker", "goal": "Try.", "on": on}
    return {"apiVersion": "agentos/v1", "kind": "Trigger", "metadata": {"name": "try", "tenant": "acme"}, "spec": body}


def manifest(kind: str, tenant: str | None, name: str, spec: Any) -> dict[str, Any]:
    metadata = {"name": name} if tenant is None else {"name": name, "tenant": tenant}
    return {"apiVersion": "agentos/v1", "kind": kind, "metadata": metadata, "spec": spec}


_MANIFESTS: list[list[dict[str, Any]]] = [
    [declared(model="<model>")],
    [declared(tools=["<lock>"])],
    [declared(sandbox="<agent>")],
    [declared(program="<program>")],
    [declared(standing={"goal": "Wait.", "after": ["<standing>"]})],
    [tool(driver={"builtin": {"primitive": "write", "space": "<space>"}})],
    [tool(driver={"delegate": {"agents": ["<agent>"]}})],
    [trigger(signal={"name": "go"}) | {"spec": {"agent": "<agent>", "goal": "Try.", "on": {"signal": {"name": "go"}}}}],
    [trigger(workspace={"space": "<space>", "glob": "*"})],
    [manifest("ToolGrant", "acme", "try", {"agents": ["<agent>"], "tools": ["write"]})],
    [manifest("Tenant", None, "<tenant>", {})],
    [manifest("Secret", "<tenant>", "<secret>", {"description": "Mine.", "env": "X", "hosts": ["127.0.0.1"]})],
    [manifest("ToolGrant", "<tenant>", "locks", {"agents": ["<agent>"], "tools": ["lock"]})],
]
_KEYS = (
    *("agent/<tenant>/<agent>", "secret/<tenant>/<secret>", "tenant/<tenant>", "tenant/*/<tenant>", "trigger/<trigger>"),
    *("agent/<agent>", "model/default/<model>"),
)
_PLACES: tuple[str, ...] = ("<session>", "space/<space>")
_ANSWER = {**WHY, "call": "<call>", "digest": "<digest>"}

TABLE: dict[str, list[dict[str, Any]]] = {
    "approval.approve": [
        {"session": "<waiting>", **_ANSWER},
        {"session": "<session>", **_ANSWER},
        {"session": "<waiting>", **_ANSWER, "scope": "session"},
        {"session": "<waiting>", **_ANSWER, "scope": "standing", "dry_run": True},
    ],
    "approval.deny": [{"session": "<waiting>", **_ANSWER}, {"session": "<session>", **_ANSWER}],
    "approval.list": [],
    "audit.checkpoint": [],
    "audit.erase": [{"sessions": ["<session>"], "basis": "x"}, {"subject": "<session>", "basis": "x"}],
    "audit.erasure": [{"sessions": ["<session>"]}, {"sessions": ["<waiting>"], "cancel": True}, {"subject": "<session>"}],
    "audit.hold": [{"session": "<session>", **WHY}, {"agent": "<agent>", **WHY}],
    "audit.holds": [],
    "audit.keys": [],
    "audit.prove": [{"event": "<event>"}, {"event": "<session>#1"}, {"event": "<session>#9999"}, {"event": "<waiting>#1"}],
    "audit.query": [{"session": "<session>"}, {"agent": "<agent>"}, {"actor": "principal/<principal>"}],
    "audit.rebuild": [],
    "audit.release": [{"hold": "<hold>", **WHY}],
    "audit.retire": [{"period": "202001", "basis": "x", "packs": [{"digest": SHA, "sessions": ["<session>"]}]}],
    "audit.retirement": [],
    "audit.rotate": [],
    "audit.search": [{"words": ["posted"], "session": "<waiting>"}, {"words": ["hello"], "agent": "<agent>"}],
    "audit.verify": [{"run": "<run>"}],
    "backup.create": [],
    "budget.list": [{"sessions": ["<session>"]}, {"sessions": ["<waiting>"]}],
    "evidence.export": [{"sessions": ["<session>"]}, {"sessions": ["<waiting>", "<session>"]}],
    "evidence.key": [],
    "freeze.lift": [{"freeze": "<freeze>", **WHY}],
    "freeze.list": [],
    "freeze.set": [
        {"scope": {"kind": "agent", "name": "<agent>"}, **WHY},
        {"scope": {"kind": "program", "name": "<program>"}, **WHY},
        {"scope": {"kind": "tenant", "name": "<tenant>"}, **WHY},
        {"scope": {"kind": "fleet"}, **WHY},
    ],
    "fs.blame": [{"place": place, "path": "<file>"} for place in _PLACES],
    "fs.diff": [{"place": place, "path": "<file>"} for place in _PLACES],
    "fs.list": [{"place": place} for place in _PLACES],
    "fs.log": [{"place": place} for place in _PLACES],
    "fs.read": [
        *({"place": place, "path": "<file>"} for place in _PLACES),
        *({"place": place, "digest": "<content>"} for place in _PLACES),
        {"place": "<session>", "path": "../<session>/<file>"},
        {"place": "<session>", "path": "../../beta/<session>/<file>"},
    ],
    "fs.restore": [{"place": place, "path": "<file>", "at": 0} for place in _PLACES],
    "fs.undo": [{"place": place, "changes": [1]} for place in _PLACES],
    "fs.write": [{"place": place, "path": "x", "data": DATA} for place in _PLACES],
    "gateway.call": [{"session": "<served>", "tool": "post", "args": {}}, {"session": "<waiting>", "tool": "post", "args": {}}],
    "gateway.cancel": [{"session": "<served>", "call": "<call>"}],
    "gateway.close": [{"session": "<served>"}],
    "gateway.open": [
        {"agent": "<agent>", "client": {"name": "x", "version": "1"}},
        {"agent": "worker", "session": "<served>", "client": {"name": "x", "version": "1"}},
        {"agent": "<agent>", "session": "<served>", "client": {"name": "x", "version": "1"}},
    ],
    "gateway.result": [{"session": "<served>", "call": "<call>"}],
    "gateway.tools": [{"session": "<served>"}],
    "lock.break": [{"resource": "<lock>", **WHY}],
    "lock.list": [],
    "policy.facts": [],
    "policy.recorded": [{"sessions": ["<session>"]}, {"sessions": ["<waiting>"]}],
    "policy.status": [],
    "policy.why": [SESSION, {"session": "<waiting>", "call": "<call>"}, {"session": "<session>", "call": "#3"}],
    "principal.create": [
        {"name": "<principal>", "roles": ["auditor"], "tenant": "acme", "public_key": "U" + "A" * 55},
        {"name": "spy", "roles": ["operator"], "tenant": "<tenant>", "public_key": "U" + "A" * 55},
    ],
    "principal.list": [],
    "principal.revoke": [{"name": "<principal>", **WHY}],
    "principal.rotate": [{"name": "<principal>", "public_key": "U" + "A" * 55, **WHY}],
    "registry.apply": [{"manifests": one, "allow_widen": True, "dry_run": True} for one in _MANIFESTS],
    "registry.delete": [{"keys": [key], "allow_destroy": True} for key in _KEYS],
    "registry.get": [
        {"kind": "Agent", "name": "<agent>", "tenant": "<tenant>"},
        {"kind": "Agent", "name": "<agent>"},
        {"kind": "Model", "name": "<model>", "tenant": "default"},
        {"kind": "Secret", "name": "<secret>", "tenant": "<tenant>"},
        {"kind": "Tenant", "name": "<tenant>"},
        {"kind": "Trigger", "name": "<trigger>", "tenant": "<tenant>"},
    ],
    "registry.history": [],
    "registry.list": [{"tenant": "<tenant>"}, {"kind": "Tenant"}],
    "registry.plan": [*({"manifests": one} for one in _MANIFESTS), *({"delete": [key]} for key in _KEYS)],
    "registry.rollback": [],
    "runtime.shutdown": [],
    "runtime.status": [],
    "sched.top": [],
    "secret.check": [{"name": "<secret>"}],
    "secret.list": [],
    "session.cancel": [{"session": "<waiting>", **WHY}, {"session": "<session>", **WHY}],
    "session.create": [
        {"agent": "<agent>", "goal": "x"},
        {"agent": "worker", "goal": "x", "upload": "<upload>"},
        {"agent": "worker", "goal": "x", "after": ["<session>"]},
        {"agent": "worker", "goal": "x", "after_any": ["<waiting>"]},
    ],
    "session.events": [SESSION, {"session": "<waiting>", "position": 1}],
    "session.files": [SESSION, {"session": "<session>", "path": "<file>"}],
    "session.fork": [{"session": "<session>", "at": "3"}, {"session": "<session>", "at": "<event>"}],
    "session.get": [SESSION, {"session": "<waiting>"}, {"session": "<served>"}],
    "session.list": [{"parent": "<session>", "all": True}],
    "session.pause": [{"session": "<waiting>", **WHY}, {"session": "<session>", **WHY}],
    "session.reconcile": [{"session": "<waiting>", "call": "<call>", "outcome": "finished", "result": "x", **WHY}],
    "session.resume": [{"session": "<waiting>", **WHY}],
    "session.signal": [{"session": "<waiting>", "name": "go"}, {"session": "<session>", "name": "go"}],
    "session.upload": [{"upload": "<upload>", "data": DATA}],
    "session.workspace": [SESSION],
    "standing.disable": [{"agent": "<standing>", **WHY}],
    "standing.enable": [{"agent": "<standing>", **WHY}],
    "standing.get": [{"agent": "<standing>"}],
    "standing.list": [],
    "standing.restart": [{"agent": "<standing>", **WHY}],
    "standing.start": [{"agent": "<standing>", **WHY}],
    "standing.stop": [{"agent": "<standing>", **WHY}],
    "trigger.fire": [{"name": "<trigger>"}],
    "trigger.get": [{"name": "<trigger>"}],
    "trigger.list": [],
    "trigger.pause": [{"name": "<trigger>", **WHY}],
    "trigger.reset": [{"name": "<trigger>"}],
    "trigger.resume": [{"name": "<trigger>", **WHY}],
}
