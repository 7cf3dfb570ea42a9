"""Deferred sessions on a whole runtime: begun after others and at a time, over restarts, shown in every answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from house import WORKER, Door, House, documents
from jsonschema import Draft202012Validator

from agentos.abi.assets import asset
from agentos.abi.errors import NotFound, UsageError


def schema(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((asset("schemas") / "v1" / f"{name}.json").read_text()))


async def later(door: Door, **words: Any) -> str:
    answer = await door("session.create", agent="worker", goal="later", **words)
    schema("session").validate(answer)
    assert answer["state"] == "deferred"
    return str(answer["session"])


async def row(door: Door, session: str) -> dict[str, Any]:
    rows = await door("session.list", all=True)
    for one in rows:
        schema("session-row").validate(one)
    return next(one for one in rows if one["id"] == session)


async def test_deferred_sessions_survive_a_restart_in_between(house: House) -> None:
    """What they wait for ends before, while and after the runtime is down; each begins once, or fails saying why."""
    async with house.open() as door:
        await door.apply(*documents(WORKER))
        gate = door.hold(lambda _tool, args: args["path"] == "n0.txt")
        first = await door.run(goal="first")
        await gate.begun.acquire()
        chained = await later(door, after=[first])
        behind = await later(door, after=[chained], priority="interactive")
        timed = await later(door, begin_in_ms=3_600_000)
        doomed = await later(door, after=[timed])
        found = await row(door, chained)
        assert (found["state"], found["deferred"]) == ("deferred", {"after": [first]})
        waits = (await door("lock.list"))["waits"]
        assert {"waiter": behind, "holder": chained, "reason": "to begin"} in waits
        assert {"waiter": chained, "holder": first, "reason": "to begin"} in waits
    async with house.open() as door:
        assert {first, chained, behind, timed, doomed} <= door.runtime.sessions.live("default")
        # The call that was under way when the runtime stopped is idempotent, so the first one goes on.
        assert (await door.until(behind, "finished", "failed"))["state"] == "finished"
        assert (await door.types(chained)).count("session.begun") == 1
        assert await door.types(timed) == ["session.created"]
        await door("session.cancel", session=timed, reason="not tonight")
        ended = await door.until(doomed, "failed")
        words = f"session {timed} was cancelled, and this one was to begin after it had finished"
        assert ended["error"] == {"code": "precondition", "message": words}
        assert (await row(door, doomed))["state"] == "failed"
        assert not (await door("lock.list"))["waits"]
        for session in (first, chained, behind, timed, doomed):
            for event in await door.events(session):
                schema("event").validate(event)
        assert not door.runtime.sessions.live("default")


async def test_a_deferred_session_is_paused_and_resumed(house: House) -> None:
    """Paused it does not begin, also not when its time has come, nor after a restart; resumed, it does."""
    async with house.open() as door:
        await door.apply(*documents(WORKER))
        first = await later(door, begin_in_ms=3_600_000)
        session = await later(door, after_any=[first])
        await door("session.pause", session=session, reason="not yet")
        assert ((await row(door, session))["state"], (await door("session.get", session=session))["state"]) == (
            "paused",
            "paused",
        )
        await door("session.cancel", session=first, reason="never")
    async with house.open() as door:
        assert (await door("session.get", session=session))["state"] == "paused"
        assert await door.types(session) == ["session.created", "session.paused"]
        await door("session.resume", session=session, reason="now")
        assert (await door.until(session, "finished"))["result"] == "3 of 3"
        types = await door.types(session)
        assert types[:4] == ["session.created", "session.paused", "session.resumed", "session.begun"]


async def test_what_cannot_be_waited_for_is_refused(door: Door) -> None:
    """A session that is not there, in the caller's tenant, and two times."""
    tenant = {"apiVersion": "agentos/v1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {"description": "x"}}
    await door.apply(tenant, *documents(WORKER), *documents(WORKER, tenant="acme"))
    own = await door.run()
    other = await door.as_principal("ann", ["operator"], "acme")
    with pytest.raises(NotFound, match=f"no session {own} in tenant acme"):
        await other.call("session.create", {"agent": "worker", "goal": "x", "after": [own]})
    with pytest.raises(NotFound, match="no session s-none"):
        await door("session.create", agent="worker", goal="x", after_any=["s-none"])
    with pytest.raises(UsageError, match="say the same thing"):
        await door("session.create", agent="worker", goal="x", not_before_ms=1, begin_in_ms=1)
    with pytest.raises(UsageError, match="after"):
        await door("session.create", agent="worker", goal="x", after=["../x"])


async def test_a_fork_of_a_deferred_session_begins_at_once(door: Door) -> None:
    """What its parent waits for is the parent's alone."""
    await door.apply(*documents(WORKER))
    parent = await later(door, begin_in_ms=3_600_000)
    fork = (await door("session.fork", session=parent, at="1"))["session"]
    assert (await door.until(fork, "finished"))["result"] == "3 of 3"
    assert (await door("session.get", session=parent))["state"] == "deferred"
