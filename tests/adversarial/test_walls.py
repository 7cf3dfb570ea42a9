"""Every role, of every tenant, at every verb: what is another tenant's is not there, and nothing tells it from what never was."""

from __future__ import annotations

import asyncio

from adversarial_table import TABLE
from adversarial_world import OF_ACME, OF_BETA, ROLES, World


async def _state_of_beta(world: World) -> dict[str, object]:
    """All of beta that a knock could have changed."""
    beta, real = world.beta, world.real
    sessions = await beta("session.list", all=True)
    return {
        "sessions": {row["id"]: row["state"] for row in sessions},
        "waiting": (await beta("session.get", session=real["waiting"]))["seq"],
        "locks": [row["resource"] for row in (await beta("lock.list"))["locks"]],
        "triggers": [(row["name"], row["paused"], row["started"]) for row in (await beta("trigger.list"))["triggers"]],
        "freezes": [row["freeze"] for row in await beta("freeze.list")],
        "holds": [row["hold"] for row in await beta("audit.holds")],
        "files": (await beta("fs.list", place="space/betaspace"))["files"],
        "resources": [row["digest"] for row in (await beta("registry.list", tenant=OF_BETA))["items"]],
    }


async def test_the_table_knows_every_verb(world: World) -> None:
    """A verb that is added is tried by all the tests below, or they fail."""
    assert world.verbs() == TABLE.keys()


async def test_a_thing_of_another_tenant_is_as_one_that_never_was(world: World) -> None:
    """The same bytes and headers for both, whatever the role and the verb; afterwards nothing of beta has changed."""
    before = await _state_of_beta(world)
    different: list[str] = []
    tried = 0
    for role in ROLES:
        knock = await world.knock(role, OF_ACME)
        for verb, templates in sorted(TABLE.items()):
            for template in templates:
                theirs, nobodys = [await knock(verb, world.filled(template, names)) for names in (world.real, world.ghost)]
                tried += 1
                names = (*world.real.values(), *world.ghost.values())
                # What is done to names of one's own tenant alone (a hold, say) is told with new ids; then the shape must be one.
                same = theirs.text(*names) == nobodys.text(*names) if theirs.code else theirs.shape() == nobodys.shape()
                if not same or theirs.code in {"error", "nobody"}:
                    different.append(f"{role} {verb} {template}\n  theirs:  {theirs.body}\n  nobodys: {nobodys.body}")
    assert not different, "\n".join(different)
    assert tried >= len(ROLES) * sum(map(len, TABLE.values()))
    assert await _state_of_beta(world) == before


async def test_naming_another_tenant_is_refused_in_the_same_words(world: World) -> None:
    """A tenant that is there, the fleet, and a name that nobody has: denied before anything is looked at, for every verb."""
    before = await _state_of_beta(world)
    for role in ROLES:
        knock = await world.knock(role, OF_ACME)
        for verb in sorted(TABLE):
            asked = TABLE[verb][0] if TABLE[verb] else {}
            others = (OF_BETA, world.ghost["tenant"], "*")
            answers = [await knock(verb, world.filled(asked, world.real), tenant=name) for name in others]
            assert {answer.code for answer in answers} <= {"denied", "refused"}, (role, verb)
            texts = {answer.text(f"act on {name}") for answer, name in zip(answers, others, strict=True)}
            assert len(texts) == 1, (role, verb, texts)
    assert await _state_of_beta(world) == before


async def test_a_crowd_of_one_tenant_is_not_seen_by_another(world: World) -> None:
    """What acme's principals are told about the runtime does not change when beta is at work."""
    knock = await world.knock("auditor", OF_ACME)

    def told(body: dict[str, object]) -> dict[str, object]:
        return {key: value for key, value in body.items() if key != "uptime_s"}

    before = (await knock("runtime.status")).body["result"]
    gate = world.door.hold(lambda _tool, _args: True)
    sessions = [await world.beta.run() for _ in range(3)]
    for _ in sessions:
        await gate.begun.acquire()
    during = (await knock("runtime.status")).body["result"]
    assert told(during) == told(before)
    assert (await knock("sched.top")).code == ""
    for session in sessions:
        await world.beta("session.cancel", session=session, reason="enough")


async def test_uploads_of_one_name_are_not_anothers(world: World) -> None:
    """The id of an upload is worth nothing to whoever is not its owner, not even a principal of the same tenant."""
    first, second = await world.knock("operator", OF_BETA), await world.knock("operator", OF_ACME)
    upload = (await first("session.upload", {"data": "aGVsbG8="})).body["result"]["upload"]
    assert (await second("session.upload", {"data": "aGVsbG8=", "upload": upload})).code == "not-found"
    assert (await first("session.upload", {"data": "aGVsbG8=", "upload": upload})).body["result"]["bytes"] == 10


async def test_tenants_at_once_do_not_mix(world: World) -> None:
    """Two tenants ask the same things at the same time: each gets its own."""
    acme, beta = await world.knock("operator", OF_ACME), await world.knock("operator", OF_BETA)
    pairs = await asyncio.gather(
        *(asyncio.gather(acme("session.list", {"all": True}), beta("session.list", {"all": True})) for _ in range(20))
    )
    for mine, theirs in pairs:
        assert mine.body["result"] == []
        assert {row["id"] for row in theirs.body["result"]} >= {world.real["session"], world.real["waiting"]}
