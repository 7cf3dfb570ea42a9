"""Locks on a whole runtime: who waits for one gives its place up, and what a tenant declares about deadlocks holds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from house import Door, House, documents

from agentos.kernel import places

EXAMPLE = (Path(__file__).parents[3] / "examples" / "locks" / "locks.yaml").read_text()
YOUNGEST = {
    "apiVersion": "agentos/v1",
    "kind": "Tenant",
    "metadata": {"name": "default"},
    "spec": {"locks": {"victim": "youngest"}},
}


async def waiting(door: Door, resource: str) -> None:
    """Return once somebody waits for `resource`."""
    async with asyncio.timeout(30):
        while True:
            found = {one["resource"]: one for one in (await door("lock.list"))["locks"]}
            if resource in found and found[resource]["waiters"]:
                return
            await asyncio.sleep(0.05)


async def approve(door: Door, session: str) -> None:
    asked = (await door("session.get", session=session))["waiting_for"]
    pat = await door.as_principal("pat", ["approver"], "default")
    params: dict[str, Any] = {"session": session, "reason": "ok", "call": asked["call"], "digest": asked["args_digest"]}
    await pat.call("approval.approve", params)


async def errors(door: Door, session: str) -> list[str]:
    return [event["data"]["error"]["code"] for event in await door.events(session) if event["type"] == "agentos.syscall.failed"]


async def test_the_holder_of_a_lock_gets_the_place_of_who_waits_for_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one place to run in: the packer waits for the clerk's lock in it, and gives it up as soon as the clerk needs it."""
    monkeypatch.setattr(places, "MAX_RUNNING", 1)
    async with house.open() as door, asyncio.timeout(60):
        await door.apply(*documents(EXAMPLE))
        clerk = await door.run("clerk")
        await door.until(clerk, "waiting")
        packer = await door.run("packer")
        await waiting(door, "ledger")
        await approve(door, clerk)
        assert (await door.until(clerk))["state"] == "finished"
        assert (await door.until(packer))["state"] == "finished"
        assert await errors(door, clerk) == ["lock.deadlock"]
        assert await errors(door, packer) == []
        decided = [event["data"]["call"] for event in await door.events(packer) if event["type"] == "agentos.syscall.decided"]
        assert decided.count("call-2-1") == 2, "it left, and its call went on where it was"
        assert await door("lock.list") == {"locks": [], "waits": []}


async def test_the_tenant_declares_who_is_told(house: House) -> None:
    """The youngest is the packer, whose wait did not close the cycle: its waiting call is given up, and the clerk's wait ends."""
    async with house.open() as door, asyncio.timeout(60):
        await door.apply(*documents(EXAMPLE), YOUNGEST)
        clerk = await door.run("clerk")
        await door.until(clerk, "waiting")
        packer = await door.run("packer")
        await waiting(door, "ledger")
        await approve(door, clerk)
        await door.until(packer)
        assert "lock.deadlock" in await errors(door, packer)
        assert (await door.until(clerk))["state"] == "finished"
        assert await errors(door, clerk) == []
