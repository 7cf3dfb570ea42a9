"""Desired state on a whole runtime: at once, broken, and behind the walls of tenants."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from house import WIDE, WORKER, Door, House, documents, policy

from agentos.abi.errors import AgentOSError, Conflict, Denied, IdentityError, ManifestError, NotFound, UsageError
from agentos.control.client import find_identity
from agentos.control.identity import Identity
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import create_seed, parse_seed


def tenant(name: str) -> dict[str, Any]:
    return {"apiVersion": "agentos/v1", "kind": "Tenant", "metadata": {"name": name}, "spec": {}}


async def test_of_two_who_apply_one_plan_each_the_second_is_told(door: Door, house: House) -> None:
    """Both planned on the same state: the second plan is stale, a Conflict, and changes nothing."""
    other = await door.as_identity(find_identity(house.root, None, None))
    mine = await door("registry.plan", manifests=[tenant("mine")])
    theirs = await other.call("registry.plan", {"manifests": [tenant("theirs")]})
    await door("registry.apply", plan=mine["plan"], **WIDE)
    with pytest.raises(Conflict):
        await other.call("registry.apply", {"plan": theirs["plan"], **WIDE})
    with pytest.raises(Conflict):
        await door("registry.apply", plan=mine["plan"], **WIDE)
    assert (await door("registry.list"))["tenants"] == ["default", "mine"]
    assert await door.revision() == 1


async def test_whoever_applies_at_once_nothing_is_lost(door: Door, house: House) -> None:
    """Each apply is one whole revision or a Conflict; what a Conflict refused is applied by trying again."""
    clients = [await door.as_identity(find_identity(house.root, None, None)) for _ in range(2)]
    names = [f"t-{number}" for number in range(6)]

    async def apply(place: int) -> str | None:
        try:
            await clients[place % 2].call("registry.apply", {"manifests": [tenant(names[place])], **WIDE})
        except Conflict:
            return names[place]
        return None

    refused = [name for name in await asyncio.gather(*map(apply, range(6))) if name is not None]
    stored = await door("registry.list")
    assert sorted(set(names) - set(refused)) == sorted(set(stored["tenants"]) - {"default"})
    assert stored["revision"] == 6 - len(refused) == len((await door("registry.history"))["revisions"])
    for name in refused:
        await door.apply(tenant(name))
    assert (await door("registry.list"))["tenants"] == ["default", *names]


BROKEN = {
    "no Rego at all": ("closed", "\tthis is not rego ("),
    "a path that no input has": ("closed", '\tinput.syscal.tool == "write"'),
    "a builtin that reaches out": ("closed", '\thttp.send({"url": "http://x", "method": "get"}).status_code == 200'),
    "a name that is not defined": ("closed", "\tundefined_thing == 1"),
}


@pytest.mark.parametrize("flaw", BROKEN)
async def test_a_broken_policy_changes_nothing(door: Door, flaw: str) -> None:
    """Refused with its place; the revision is the old one, and what runs is decided as before."""
    await door.apply(*documents(WORKER))
    with pytest.raises(AgentOSError) as caught:
        await door.apply(policy(*BROKEN[flaw]), *documents(WORKER.replace("three", "four")))
    told = f"{caught.value} {caught.value.where} {[fault.get('text') for fault in getattr(caught.value, 'faults', ())]}"
    assert "closed.rego:" in told
    assert caught.value.exit_code == 1
    stored = await door("registry.list")
    assert (stored["revision"], len(stored["items"])) == (1, 4)
    assert "three" in (await door("registry.get", kind="Agent", name="worker"))["resource"]["spec"]["instructions"]
    session = await door.run()
    assert (await door.until(session))["result"] == "3 of 3"


async def test_faults_of_all_declarations_are_told_and_none_is_stored(door: Door) -> None:
    """One good and two bad manifests: both faults in one answer, nothing applied."""
    agent, model = documents(WORKER)[2], documents(WORKER)[0]
    del agent["spec"]["governance"]
    model["spec"]["colour"] = "red"
    with pytest.raises(ManifestError) as caught:
        await door.apply(agent, model, tenant("fine"))
    texts = " ".join(str(fault["text"]) for fault in caught.value.faults)
    assert "governance" in texts
    assert "colour" in texts
    with pytest.raises(ManifestError, match="no-such-model"):
        await door.apply(*documents(WORKER.replace("model: steps", "model: no-such-model")))
    assert await door.revision() == 0


async def test_loud_words_are_needed_over_the_wire_too(door: Door) -> None:
    """What widens or deletes is refused without its word, whatever the client says of itself."""
    with pytest.raises(UsageError, match="widens permission"):
        await door("registry.apply", manifests=documents(WORKER))
    await door.apply(*documents(WORKER))
    with pytest.raises(UsageError, match="deletes 1"):
        await door("registry.delete", keys=["toolgrant/default/writes"])
    assert await door.revision() == 1


async def test_a_rollback_is_in_force_at_once(door: Door) -> None:
    """Back to the revision without the policy: its denial is gone with the next session."""
    await door.apply(*documents(WORKER))
    await door.apply(policy("closed", '\tinput.syscall.effect == "write"'))
    assert (await door.until(await door.run()))["result"] == "0 of 3"
    await door("registry.rollback", to=1, **WIDE)
    assert (await door.until(await door.run()))["result"] == "3 of 3"
    assert await door.revision() == 3


@pytest.fixture
async def two(door: Door) -> tuple[Door, Door]:
    """The operator at work in two tenants that declare the same names."""
    await door.apply(tenant("acme"), tenant("globex"))
    await door.apply(*documents(WORKER, tenant="acme"), *documents(WORKER, tenant="globex"))
    return await door.in_tenant("acme"), await door.in_tenant("globex")


async def test_sessions_of_two_tenants_do_not_meet(door: Door, two: tuple[Door, Door]) -> None:
    """Same agent, same goal: two logs, two read models, two workspaces; neither is found from the other."""
    acme, globex = two
    ours, theirs = await acme.run(goal="ours"), await globex.run(goal="theirs")
    await acme.until(ours)
    await globex.until(theirs)
    for side, mine, other in ((acme, ours, theirs), (globex, theirs, ours)):
        assert [row["id"] for row in await side("session.list", all=True)] == [mine]
        for verb in ("session.get", "session.events", "session.workspace"):
            with pytest.raises(NotFound):
                await side(verb, session=other)
        with pytest.raises(NotFound):
            await side("session.cancel", session=other, reason="x")
        assert {row["session"] for row in (await side("audit.query"))["rows"]} == {mine}
        with pytest.raises(NotFound):
            await side("evidence.export", sessions=[other])
    places = [
        (await acme("session.workspace", session=ours))["path"],
        (await globex("session.workspace", session=theirs))["path"],
    ]
    assert ["/acme/" in places[0], "/globex/" in places[1], places[0] != places[1]] == [True] * 3
    assert await door("session.list", all=True) == []


async def test_a_policy_of_one_tenant_binds_that_tenant(two: tuple[Door, Door]) -> None:
    """The other's sessions are decided by its own."""
    acme, globex = two
    closed = policy("closed", '\tinput.syscall.effect == "write"')
    closed["metadata"]["tenant"] = "acme"
    await acme.apply(closed)
    assert (await acme.until(await acme.run()))["result"] == "0 of 3"
    assert (await globex.until(await globex.run()))["result"] == "3 of 3"


async def test_a_principal_of_a_tenant_sees_and_changes_that_tenant(door: Door, two: tuple[Door, Door]) -> None:
    """Its registry, its sessions, nothing of the other's; not its own roles, not the fleet."""
    _, globex = two
    theirs = await globex.run()
    anna = await door.as_principal("anna", ["operator", "approver", "auditor"], "acme")
    listed = await anna.call("registry.list", {})
    assert listed["tenants"] == ["acme"]
    assert {item["key"].split("/")[1] for item in listed["items"]} == {"acme"}
    assert (await anna.call("registry.history", {}))["revisions"][0]["tenants"] == ["acme"]
    with pytest.raises(NotFound):
        await anna.call("registry.get", {"kind": "Agent", "name": "worker", "tenant": "globex"})
    with pytest.raises(NotFound):
        await anna.call("session.get", {"session": theirs})
    with pytest.raises(Denied):
        await anna.call("registry.apply", {"manifests": documents(WORKER.replace("three", "six"), tenant="globex"), **WIDE})
    with pytest.raises(Denied):
        await anna.call("registry.apply", {"manifests": [tenant("more")], **WIDE})
    for verb in ("principal.list", "runtime.shutdown", "audit.rebuild"):
        with pytest.raises(Denied):
            await anna.call(verb, {})
    await anna.call("registry.apply", {"manifests": documents(WORKER.replace("three", "six"), tenant="acme"), **WIDE})
    changed = await door("registry.get", kind="Agent", name="worker", tenant="acme")
    assert (changed["by"], "six" in changed["resource"]["spec"]["instructions"]) == ("principal/anna", True)


async def test_a_principals_key_opens_its_own_door_only(door: Door, two: tuple[Door, Door], house: House) -> None:
    """On the server itself: no stream, no event, no other's subject; after the revocation nothing at all."""
    key = create_seed(door.runtime.random)
    await door("principal.create", name="anna", roles=["auditor"], tenant="acme", public_key=key.public_key)
    refused: asyncio.Queue[str] = asyncio.Queue()
    nc = await connect(door.runtime.url, parse_seed(key.seed), name="anna", inbox_prefix="_INBOX.anna")

    async def told(error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            refused.put_nowait(str(error))

    nc._error_cb = told
    try:
        for subject in ("ev.>", ">", "ctl.>", "_INBOX.>", "_INBOX.operator.>", "$JS.>"):
            await nc.subscribe(subject)
        for subject in (
            "ev.0.s-1",
            "reg.revision",
            "ctl.operator.runtime.shutdown",
            "$JS.API.STREAM.DELETE.EV_0",
            "_INBOX.operator.x",
        ):
            await nc.publish(subject, b"{}", reply="_INBOX.anna.x")
        async with asyncio.timeout(10):
            for _ in range(11):
                await refused.get()
    finally:
        await nc.close()
    await door("principal.revoke", name="anna", reason="left")
    with pytest.raises(IdentityError):
        await door.as_identity(Identity("anna", "acme", key.seed))
    assert (await door("runtime.status"))["principal"] == "operator"


async def test_who_is_no_operator_cannot_apply(door: Door) -> None:
    """An auditor may look and not touch; the denial names the role that could."""
    olga = await door.as_principal("olga", ["auditor"], "*")
    with pytest.raises(Denied) as caught:
        await olga.call("registry.apply", {"manifests": documents(WORKER), **WIDE})
    assert "role operator can" in caught.value.reasons[0]
    assert caught.value.exit_code == 3
    assert (await olga.call("registry.list", {}))["items"] == []
