"""Every role, of every tenant, at every verb: what is another tenant's is not there, and nothing tells it from what never was."""

from __future__ import annotations

import asyncio
import json

import pytest
from adversarial_table import AGENT, TABLE, manifest
from adversarial_world import OF_ACME, OF_BETA, ROLES, World

from agentos.audit.checkpoint import Checkpoint
from agentos.audit.recheck import Recheck, Rechecked
from agentos.control import proof_verbs

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_table_knows_every_verb(world: World) -> None:
    """A verb that is added is tried by all the tests below, or they fail."""
    assert world.verbs() == TABLE.keys()


async def test_a_thing_of_another_tenant_is_as_one_that_never_was(world: World) -> None:
    """The same bytes and headers for both, whatever the role and the verb; afterwards nothing of beta has changed."""
    before = await world.of_beta()
    different: list[str] = []
    tried = 0
    for role in ROLES:
        knock = await world.knock(role, OF_ACME)
        for verb, templates in sorted(TABLE.items()):
            for template in templates:
                theirs, nobodys = [await knock(verb, world.filled(template, names)) for names in (world.real, world.ghost)]
                tried += 1
                names = (*world.real.values(), *world.ghost.values())
                # What is done to names of one's own tenant alone (a hold, say) is told with new ids.
                both = [one.text(*names) if one.code else one.plain(*names) for one in (theirs, nobodys)]
                if both[0] != both[1] or theirs.code in {"error", "nobody"}:
                    different.append(f"{role} {verb} {template}\n  theirs:  {theirs.body}\n  nobodys: {nobodys.body}")
    assert not different, "\n".join(different)
    assert tried >= len(ROLES) * sum(map(len, TABLE.values()))
    assert await world.of_beta() == before


async def test_naming_another_tenant_is_refused_in_the_same_words(world: World) -> None:
    """A tenant that is there, the fleet, and a name that nobody has: denied before anything is looked at, for every verb."""
    before = await world.of_beta()
    for role in ROLES:
        knock = await world.knock(role, OF_ACME)
        for verb in sorted(TABLE):
            asked = TABLE[verb][0] if TABLE[verb] else {}
            others = (OF_BETA, world.ghost["tenant"], "*")
            answers = [await knock(verb, world.filled(asked, world.real), tenant=name) for name in others]
            assert {answer.code for answer in answers} <= {"denied", "refused"}, (role, verb)
            texts = {answer.text(f"act on {name}") for answer, name in zip(answers, others, strict=True)}
            assert len(texts) == 1, (role, verb, texts)
    assert await world.of_beta() == before


async def test_a_crowd_of_one_tenant_is_not_seen_by_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What acme's principals are told about the runtime does not change when beta is at work."""
    knock = await world.knock("auditor", OF_ACME)
    drivers = world.door.runtime.drivers
    monkeypatch.setattr(drivers, "call", drivers.call)  # put back after the test

    def told(body: dict[str, object]) -> dict[str, object]:
        return {key: value for key, value in body.items() if key != "uptime_s"}

    before = (await knock("runtime.status")).body["result"]
    gate = world.door.hold(lambda _tool, _args: True)
    sessions = [await world.beta.run() for _ in range(3)]
    for _ in sessions:
        await gate.begun.acquire()
    during = (await knock("runtime.status")).body["result"]
    assert told(during) == told(before)
    assert "beta" not in (top := await knock("sched.top")).text()
    assert top.code == ""
    for session in sessions:
        await world.beta("session.cancel", session=session, reason="enough")
        assert (await world.beta.until(session, "cancelled"))["state"] == "cancelled"


async def test_uploads_of_one_name_are_not_anothers(world: World) -> None:
    """The id of an upload is worth nothing to whoever is not its owner, not even a principal of the same tenant."""
    first, second = await world.knock("operator", OF_BETA), await world.knock("operator", OF_ACME)
    upload = (await first("session.upload", {"data": "aGVsbG8="})).body["result"]["upload"]
    assert (await second("session.upload", {"data": "aGVsbG8=", "upload": upload})).code == "not-found"
    assert (await first("session.upload", {"data": "aGVsbG8=", "upload": upload})).body["result"]["bytes"] == 10


async def test_tenants_at_once_do_not_mix(world: World) -> None:
    """Two tenants ask the same things at the same time: each gets its own."""
    acme, beta = await world.knock("operator", OF_ACME), await world.knock("operator", OF_BETA)
    of_acme = {row["id"] for row in (await acme("session.list", {"all": True})).body["result"]}
    pairs = await asyncio.gather(
        *(asyncio.gather(acme("session.list", {"all": True}), beta("session.list", {"all": True})) for _ in range(20))
    )
    for mine, theirs in pairs:
        assert {row["id"] for row in mine.body["result"]} == of_acme
        assert {row["id"] for row in theirs.body["result"]} >= {world.real["session"], world.real["waiting"]}
        assert of_acme.isdisjoint(row["id"] for row in theirs.body["result"])


async def test_a_revision_of_another_tenant_is_as_one_that_never_was(world: World) -> None:
    """Why a change of beta alone was let in, and one that is not there: acme is told the same of both, and beta is told why."""
    await world.door.apply(manifest("Agent", OF_BETA, "later", {**AGENT["spec"], "instructions": "Look again."}))
    number = await world.door.revision()
    for role in ("operator", "auditor"):
        acme, beta = await world.knock(role, OF_ACME), await world.knock(role, OF_BETA)
        told = {
            (await acme("policy.why", {"revision": asked})).text(f"revision {asked}") for asked in (number, number + 1, 10**9)
        }
        assert len(told) == 1
        assert "not-found" in told.pop()
        assert (await beta("policy.why", {"revision": number})).code == ""


async def test_a_plan_and_its_history_are_bound_to_nothing_of_another_tenant(world: World) -> None:
    """A change of beta moves the number of revisions, and nothing else that acme's operator is told of a plan or of the past."""
    acme = await world.knock("operator", OF_ACME)

    async def seen() -> str:
        plan = (await acme("registry.plan", {"manifests": [AGENT]})).body["result"]["plan"]
        history = (await acme("registry.history")).body["result"]
        return json.dumps([plan["changes"], plan["base"]["digest"], history], sort_keys=True)

    before = await seen()
    await world.door.apply(manifest("Agent", OF_BETA, "other", {**AGENT["spec"], "instructions": "Look away."}))
    assert await seen() == before
    assert '"tree"' not in before


async def test_a_verification_of_another_tenant_keeps_nobody_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many logs as there are tenants are read at one time, and who begins is never told of the others."""
    go = asyncio.Event()
    run = Recheck.run

    async def held(recheck: Recheck, number: int, witness: Checkpoint | None) -> Rechecked:
        await go.wait()
        return await run(recheck, number, witness)

    monkeypatch.setattr(proof_verbs, "KEPT", 1)
    monkeypatch.setattr(Recheck, "run", held)
    knocks = [await world.knock("auditor", tenant) for tenant in (OF_BETA, OF_ACME, "*")]
    begun = await asyncio.gather(*(knock("audit.verify") for knock in knocks))
    assert [one.code for one in begun] == [""] * 3
    assert (await knocks[1]("audit.verify")).code == "conflict"
    go.set()
    for knock, one in zip(knocks, begun, strict=True):
        run_id = one.body["result"]["run"]
        while not (answer := await knock("audit.verify", {"run": run_id})).body["result"]["done"]:
            pass
        assert answer.code == ""
    assert (await knocks[1]("audit.verify", {"run": begun[0].body["result"]["run"]})).code == "not-found"
