"""The verbs of desired state, as clients call them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.assets import asset
from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Conflict, Denied, NotFound, UsageError
from agentos.control.principal import Caller, Handler
from agentos.control.registry_verbs import handlers
from agentos.registry.apply import Applier

SCHEMA = jsonschema.Draft202012Validator(json.loads((asset("schemas") / "v1" / "revision.json").read_text()))
WORDS = {"allow_destroy": True, "allow_widen": True}


@pytest.fixture
def verbs(applier: Applier) -> dict[str, Handler]:
    return handlers(applier)


async def fill(verbs: dict[str, Handler], alice: Caller, new: SimpleNamespace) -> None:
    """A model, an agent with a grant and a policy in `default`, an agent in `acme`, and the Tenant acme."""
    play = {"provider": "scripted", "scripted": {"play": {"rules": []}}}
    resources = [
        new.resource("Tenant", "acme", {}),
        new.resource("Model", "fast", play),
        new.agent(team="x"),
        new.grant(approval="required"),
        new.resource("Policy", "egress", {"target": "syscall", "mode": "warn", "modules": []}),
        new.agent("own", tenant="acme"),
    ]
    await verbs["registry.apply"](alice, {"manifests": [one.to_dict() for one in resources], **WORDS, "reason": "start"})


async def test_plan_then_apply(verbs: dict[str, Handler], alice: Caller, new: SimpleNamespace) -> None:
    """The plan that was answered can be applied as it is, once, and every answer is plain JSON."""
    proposal: Any = await verbs["registry.plan"](alice, {"manifests": [new.grant().to_dict()]})
    assert (proposal["counts"], proposal["needs"]) == ({"create": 1, "update": 0, "delete": 0, "widen": 1}, ["allow_widen"])
    sent = json.loads(json.dumps(proposal["plan"]))
    assert await verbs["registry.plan"](alice, {"plan": sent}) == proposal
    done: Any = await verbs["registry.apply"](alice, {"plan": sent, "allow_widen": True, "reason": "why"})
    assert (done["revision"]["revision"], done["revision"]["reason"], done["dry_run"]) == (1, "why", False)
    with pytest.raises(Conflict):
        await verbs["registry.apply"](alice, {"plan": sent, "allow_widen": True})
    again: Any = await verbs["registry.apply"](alice, {"manifests": [new.grant().to_dict()]})
    assert again["revision"] is None


async def test_get_and_list(verbs: dict[str, Handler], alice: Caller, new: SimpleNamespace) -> None:
    """What is there is listed in order, by kind, tenant and label; one resource comes with all that concerns it."""
    await fill(verbs, alice, new)
    listed: Any = await verbs["registry.list"](alice, {})
    assert [item["key"] for item in listed["items"]] == [
        "tenant/*/acme",
        "model/default/fast",
        "agent/acme/own",
        "agent/default/triage",
        "toolgrant/default/triage-read",
        "policy/default/egress",
    ]
    assert [item["key"] for item in (await verbs["registry.list"](alice, {"selector": "team=x"}))["items"]] == [
        "agent/default/triage"
    ]
    assert len((await verbs["registry.list"](alice, {"kind": "Agent", "tenant": "acme"}))["items"]) == 1
    one: Any = await verbs["registry.get"](alice, {"kind": "Agent", "name": "triage"})
    assert (one["by"], one["revision"], one["resource"]) == ("principal/alice", 1, new.agent(team="x").to_dict())
    assert [(row["relation"], row["key"], row["detail"]) for row in one["related"]] == [
        ("names", "model/default/fast", "model"),
        ("names", "tool/default/read", "tools"),
        ("granted by", "toolgrant/default/triage-read", "triage may call read, after approval"),
        ("judged by", "policy/default/egress", "syscall, warn"),
    ]
    with pytest.raises(NotFound):
        await verbs["registry.get"](alice, {"kind": "Agent", "name": "nobody"})


async def test_delete(verbs: dict[str, Handler], alice: Caller, new: SimpleNamespace) -> None:
    """Deleting needs its word; a key may leave out the tenant."""
    await fill(verbs, alice, new)
    with pytest.raises(UsageError, match="deletes"):
        await verbs["registry.delete"](alice, {"keys": ["toolgrant/triage-read"]})
    done: Any = await verbs["registry.delete"](
        alice, {"keys": ["toolgrant/triage-read", "agent/acme/own"], "allow_destroy": True}
    )
    assert done["revision"]["counts"]["delete"] == 2
    with pytest.raises(NotFound):
        await verbs["registry.delete"](alice, {"keys": ["toolgrant/triage-read"], "allow_destroy": True})
    with pytest.raises(NotFound):
        await verbs["registry.plan"](alice, {"delete": ["toolgrant/triage-read"]})
    with pytest.raises(UsageError):
        await verbs["registry.delete"](alice, {"keys": ["nonsense"]})


async def test_history_and_rollback(verbs: dict[str, Handler], alice: Caller, new: SimpleNamespace) -> None:
    """The history is told newest first; a rollback does what its plan showed."""
    await fill(verbs, alice, new)
    await verbs["registry.apply"](alice, {"manifests": [new.agent(calls=5).to_dict()]})
    shown: Any = await verbs["registry.plan"](alice, {"to": 1})
    done: Any = await verbs["registry.rollback"](alice, {"to": 1, "expect": shown["plan"]["digest"], **WORDS})
    assert (done["revision"]["restores"], done["revision"]["reason"]) == (1, "rollback to revision 1")
    rows = (await verbs["registry.history"](alice, {}))["revisions"]
    assert [row["revision"] for row in rows] == [3, 2, 1]
    assert rows[0]["tree"] == rows[2]["tree"]
    assert len((await verbs["registry.history"](alice, {"limit": 1}))["revisions"]) == 1
    with pytest.raises(NotFound):
        await verbs["registry.rollback"](alice, {"to": 9})


async def test_a_tenants_principal_sees_its_tenant(
    verbs: dict[str, Handler], alice: Caller, bob: Caller, new: SimpleNamespace
) -> None:
    """To a principal of one tenant other tenants, their revisions and the Tenants themselves are not there."""
    await fill(verbs, alice, new)
    await verbs["registry.apply"](alice, {"manifests": [new.agent(calls=5).to_dict()]})
    assert [item["key"] for item in (await verbs["registry.list"](bob, {}))["items"]] == ["agent/acme/own"]
    assert [item["key"] for item in (await verbs["registry.list"](bob, {"tenant": "default"}))["items"]] == []
    for asked in ({"kind": "Agent", "name": "triage", "tenant": "default"}, {"kind": "Tenant", "name": "acme"}):
        with pytest.raises(NotFound):
            await verbs["registry.get"](bob, asked)
    assert (await verbs["registry.get"](bob, {"kind": "Agent", "name": "own"}))["key"] == "agent/acme/own"
    rows = (await verbs["registry.history"](bob, {}))["revisions"]
    assert [(row["revision"], row["tenants"], list(row["admission"])) for row in rows] == [(1, ["acme"], ["acme"])]
    done: Any = await verbs["registry.apply"](bob, {"manifests": [new.agent("own", tenant="acme", calls=4).to_dict()], **WORDS})
    for row in (*rows, done["revision"]):
        assert {"tree", "parent"}.isdisjoint(row)
        SCHEMA.validate(row)
    with pytest.raises(NotFound):
        await verbs["registry.delete"](bob, {"keys": ["agent/default/triage"], **WORDS})
    with pytest.raises(Denied):
        await verbs["registry.plan"](bob, {"delete": ["agent/default/triage"]})


async def test_a_tenants_principal_sees_what_its_agents_may_name(
    verbs: dict[str, Handler], alice: Caller, bob: Caller, new: SimpleNamespace
) -> None:
    """Priority classes, and the names of the models that its tenant was lent; it changes neither."""
    await fill(verbs, alice, new)
    nightly = new.resource("PriorityClass", "nightly", {"rank": -50})
    lent = [new.resource("Tenant", "acme", {"models": ["fast"]}), new.resource("Tenant", "globex", {"models": ["fast"]}), nightly]
    await verbs["registry.apply"](alice, {"manifests": [one.to_dict() for one in lent], **WORDS})
    seen: Any = await verbs["registry.list"](bob, {})
    assert ([item["key"] for item in seen["items"]], seen["lent"]) == (
        ["priorityclass/*/nightly", "agent/acme/own"],
        {"acme": ["fast"]},
    )
    assert (await verbs["registry.list"](alice, {}))["lent"] == {"acme": ["fast"], "globex": ["fast"]}
    assert (await verbs["registry.get"](bob, {"kind": "PriorityClass", "name": "nightly"}))["resource"] == nightly.to_dict()
    for asked in ({"manifests": [nightly.to_dict()]}, {"delete": ["priorityclass/nightly"]}):
        with pytest.raises(Denied):
            await verbs["registry.plan"](bob, asked)


async def test_who_uses_a_model_or_a_class(verbs: dict[str, Handler], alice: Caller, new: SimpleNamespace) -> None:
    """By a class, by lending, by an agent of a tenant that was lent it."""
    await fill(verbs, alice, new)
    agent = new.agent("night", tenant="acme", model="fast")
    resources = [
        new.resource("Tenant", "acme", {"models": ["fast"], "priorityClasses": ["nightly", "standard"]}),
        new.resource("PriorityClass", "nightly", {"rank": -50}),
        new.resource("ModelClass", "any", {"routes": [{"models": ["fast"]}, {"models": ["fast"], "when": {"maxTokens": 1}}]}),
        new.agent("chooser", model="any"),
        new.resource("Agent", "night", {**agent.spec, "priorityClass": "nightly"}, tenant="acme"),
    ]
    await verbs["registry.apply"](alice, {"manifests": [one.to_dict() for one in resources], **WORDS})

    async def relations(kind: str, name: str, *, tenant: str = "default") -> list[tuple[str, str]]:
        found: Any = await verbs["registry.get"](alice, {"kind": kind, "name": name, "tenant": tenant})
        return [(row["relation"], row["key"]) for row in found["related"] if row["relation"] != "judged by"]

    assert await relations("Model", "fast") == [
        ("used by", "agent/acme/night"),
        ("used by", "agent/acme/own"),
        ("used by", "agent/default/triage"),
        ("used by", "modelclass/default/any"),
        ("used by", "tenant/*/acme"),
    ]
    assert await relations("ModelClass", "any") == [("names", "model/default/fast"), ("used by", "agent/default/chooser")]
    assert await relations("PriorityClass", "nightly") == [("used by", "agent/acme/night"), ("used by", "tenant/*/acme")]
    assert ("names", "model/default/fast") in await relations("Tenant", "acme")
    named = await relations("Agent", "night", tenant="acme")
    assert named[:3] == [
        ("names", "model/default/fast"),
        ("names", "tool/acme/read"),
        ("names", "priorityclass/*/nightly"),
    ]


VERBS = ["plan", "apply", "get", "list", "delete", "history", "rollback"]
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)
PARAMS = st.dictionaries(
    st.sampled_from(
        ["manifests", "plan", "to", "keys", "kind", "name", "tenant", "limit", "reason", "dry_run", "selector", "odd"]
    ),
    JSONS,
    max_size=4,
)


@given(st.sampled_from(VERBS), PARAMS)
async def test_odd_words_are_refused(verb: str, params: dict[str, Json]) -> None:
    """Whatever words a client sends, the answer is an answer or an AgentOSError."""
    from agentos.eventlog.adapters.memory import MemoryLog
    from agentos.registry.store import Registry

    class Still:
        def now_ms(self) -> int:
            return 0

        def token(self, size: int) -> bytes:
            return bytes(size)

    def validate(manifest: Json) -> Any:
        raise AgentOSError(f"no manifest: {manifest}")

    async def nothing(*_: Any) -> Any:
        raise AssertionError("nothing valid was declared")

    applier = Applier(Registry(MemoryLog(), Still(), Still()), validate=validate, check=nothing, admit=nothing)
    caller = Caller("alice", ("operator",), "default", fleet=True)
    try:
        await handlers(applier)[f"registry.{verb}"](caller, params)
    except AgentOSError as error:
        assert error.message  # noqa: PT017 - either outcome is fine, another exception is not
