"""Budgets on a whole runtime: many sessions at once on a real log, restarts in the middle, and the books are the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from house import WORKER, Door, House, documents
from test_delegation_live import manifests
from test_obligations_live import events, of
from test_retirement import days_ago, exported, finished, verified

from agentos.boot.budgets import budgeted_events
from agentos.eventlog.subject import period_of
from agentos.kernel.budgets import Budgets

SESSIONS = 20


def tenant(**budget: Any) -> dict[str, Any]:
    return {"apiVersion": "agentos/v1", "kind": "Tenant", "metadata": {"name": "default"}, "spec": {"budget": budget}}


async def accounts(door: Door, **params: Any) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The accounts by kind, period and unit."""
    found = (await door("budget.list", **params))["accounts"]
    return {(one["kind"], "day" if one["day"] else "all", one["unit"]): one for one in found}


async def read_again(door: Door) -> Any:
    """The same, from books that are read from the log now."""
    runtime = door.runtime
    anew = Budgets(budgeted_events(lambda name: runtime.tenants.get(name).streams))
    return await anew.rows("default", runtime.configurations.current("default").arbitration, runtime.timer.now_ms(), days=2)


async def kept(door: Door) -> Any:
    runtime = door.runtime
    arbitration = runtime.configurations.current("default").arbitration
    return await runtime.budgets.rows("default", arbitration, runtime.timer.now_ms(), days=2)


async def test_twenty_sessions_at_once_get_what_fits_over_a_restart(house: House) -> None:
    """Each wants three writes and the tenant has ten for the day: ten are made, and after a restart there is none left."""
    async with house.open() as door:
        await door.apply(*documents(WORKER), tenant(perDay={"calls": 10}))
        sessions = await asyncio.gather(*(door.run() for _ in range(SESSIONS)))
        ended = await asyncio.gather(*(door.until(session) for session in sessions))
        assert [one["state"] for one in ended] == ["finished"] * SESSIONS
        decided = [data for session in sessions for data in of(await events(door, session), "syscall.decided")]
        made = [data["decision"]["effect"] for data in decided if data["tool"] == "write"]
        assert (made.count("allow"), len(made)) == (10, 3 * SESSIONS)
        before = await accounts(door)
        day = before["tenant", "day", "calls"]
        assert (day["used"], day["reserved"], day["left"]) == (10, 0, 0)
        assert await kept(door) == await read_again(door)
    async with house.open() as door:
        assert await accounts(door) == before
        session = await door.run()
        await door.until(session)
        denied = [data["decision"] for data in of(await events(door, session), "syscall.decided") if data["tool"] == "write"]
        assert [one["rules"] for one in denied] == [["kernel.budget"]] * 3
        assert "are used, 0 are left, 1 are wanted" in denied[0]["reasons"][0]
        await door.apply(tenant(perDay={"calls": 11}))
        session = await door.run()
        await door.until(session)
        assert (await accounts(door))["tenant", "day", "calls"]["used"] == 11


async def test_tokens_of_many_models_calls_never_pass_the_budget(house: House) -> None:
    """Whatever is refused on the way, what was used and is held stays within it, at every look."""
    async with house.open() as door:
        await door.apply(*documents(WORKER), tenant(total={"tokens": 20_000}))
        sessions = await asyncio.gather(*(door.run() for _ in range(SESSIONS)))
        ends = [asyncio.create_task(door.until(session)) for session in sessions]
        while not all(end.done() for end in ends):
            found = (await accounts(door)).get(("tenant", "all", "tokens"))
            assert found is None or found["used"] + found["reserved"] <= 20_000
            await asyncio.wait(ends, timeout=0.05)
        assert (await accounts(door))["tenant", "all", "tokens"]["reserved"] == 0
        assert await kept(door) == await read_again(door)


async def test_a_restart_in_the_middle_changes_no_sum(house: House) -> None:
    """A call that was under way when the runtime stopped counts once, by then or when it was made again."""
    async with house.open() as door:
        await door.apply(*documents(WORKER), tenant(perDay={"calls": 100, "bytes": 100_000}))
        gate = door.runtime.models.complete
        begun = asyncio.Event()

        async def held(*args: Any) -> Any:
            if sum(message["role"] == "assistant" for message in args[1].messages) == 2:
                begun.set()
                await asyncio.Event().wait()
            return await gate(*args)

        door.runtime.models.complete = held  # type: ignore[method-assign]
        session = await door.run()
        await begun.wait()
        assert (await accounts(door))["tenant", "day", "tokens"]["reserved"] > 0
        assert await kept(door) == await read_again(door)
        middle = await accounts(door)
    async with house.open() as door:
        assert (await door.until(session))["state"] == "finished"
        after = await accounts(door)
        assert after["tenant", "day", "calls"]["used"] == 3
        assert after["tenant", "day", "bytes"]["used"] > middle["tenant", "day", "bytes"]["used"] > 0
        assert not any(one["reserved"] for one in after.values())
        assert await kept(door) == await read_again(door)


async def test_a_session_that_is_named_is_shown(house: House) -> None:
    """With what its calls under way hold."""
    async with house.open() as door:
        await door.apply(*documents(WORKER))
        gate = door.hold(lambda tool, _: tool.name == "write")
        session = await door.run()
        await gate.begun.acquire()
        found = await accounts(door, sessions=[session], days=3)
        assert found["session", "all", "calls"]["reserved"] == 1
        assert found["session", "all", "tokens"]["limit"] is not None
        for _ in range(3):
            gate.go.release()
        await door.until(session)


async def test_a_month_that_is_retired_is_counted_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its sessions used of a budget for all time stays used, before a restart and after it."""
    async with days_ago(house, 62, monkeypatch) as door:
        await door.apply(*documents(WORKER), tenant(total={"calls": 4}))
        session = await finished(door)
        period = period_of(session)
        before = (await accounts(door))["tenant", "all", "calls"]
        assert before["used"] == 3
    async with house.open() as door:
        plan = await door("audit.retirement", period=period)
        pack, _ = await exported(door, [one["session"] for one in plan["sessions"]])
        await door("audit.retire", period=period, packs=[pack], basis="retention has passed")
        assert (await accounts(door))["tenant", "all", "calls"] == before
        assert (await verified(door))["ok"]
    async with house.open() as door:
        assert (await accounts(door))["tenant", "all", "calls"] == before
        await finished(door)
        assert (await accounts(door))["tenant", "all", "calls"]["used"] == 4
        assert await kept(door) == await read_again(door)


async def test_children_get_what_their_parent_has_left_over_a_restart(house: House) -> None:
    """The parent may make six calls: two are its own, and its three children make four together, stopped in the middle or not."""
    spec = manifests()
    boss = next(one for one in spec if one["kind"] == "Agent" and one["metadata"]["name"] == "boss")
    boss["spec"]["budget"] = {"calls": 6}
    async with house.open() as door, asyncio.timeout(60):
        await door.apply(*spec)
        gate = door.hold(lambda tool, args: tool.name == "write" and args["path"].startswith("output/"))
        session = await door.run("boss", "a book")
        await gate.begun.acquire()
        row = (await accounts(door, sessions=[session]))["session", "all", "calls"]
        assert row["used"] + row["reserved"] <= 6
        assert row["reserved"] >= 2  # the parent's, which waits, and that of a child
        # The other children are still at work: what is compared is read once all that can end has ended.
        while (books := await kept(door)) != await read_again(door) or books != await kept(door):
            await asyncio.sleep(0.05)
    async with house.open() as door, asyncio.timeout(60):
        assert (await door.until(session))["state"] == "finished"
        (tree,) = (await door("budget.list", sessions=[session]))["trees"]
        top, *below = tree["parts"]
        assert (tree["over"], tree["whole"], top["own"]["calls"], top["total"]["calls"]) == (True, True, 2, 6)
        assert [(one["parent"], one["depth"], one["agent"]) for one in below] == [(session, 1, "writer")] * 3
        assert top["total"]["tokens"] == top["own"]["tokens"] + sum(one["own"]["tokens"] for one in below)
        denied = [
            data["decision"]
            for one in below
            for data in of(await events(door, one["session"]), "syscall.decided")
            if data["decision"]["effect"] == "deny"
        ]
        assert len(denied) == 2
        assert all("of Agent boss, which session" in decision["reasons"][0] for decision in denied)
        assert await kept(door) == await read_again(door)
