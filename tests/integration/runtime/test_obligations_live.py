"""Obligations on a whole runtime: real policy gives them, a real log remembers them across a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from house import WORKER, Door, House, documents
from jsonschema import Draft202012Validator

from agentos.abi.assets import asset
from agentos.abi.canonical import canonical

SCHEMA = Draft202012Validator(json.loads((asset("schemas") / "v1" / "event.json").read_text()))


def obliging(name: str, *obligations: dict[str, Any]) -> dict[str, Any]:
    """A Policy that obliges every `write` to these."""
    rego = f"""# METADATA
# title: {name}
# description: a rule of a test
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.{name}

# METADATA
# title: bound
# description: what it obliges to
results contains {{"rule": "{name}.bound", "effect": "oblige", "reason": "{name} binds", "obligations": bound}} if {{
	input.syscall.tool == "write"
}}

bound := {json.dumps(list(obligations))}
"""
    spec = {"target": "syscall", "mode": "enforce", "modules": [{"path": f"{name}.rego", "source": rego}]}
    return {"apiVersion": "agentos/v1", "kind": "Policy", "metadata": {"name": name}, "spec": spec}


def rate(limit: int, per: str) -> dict[str, Any]:
    return {"kind": "rate", "name": "writes", "limit": limit, "seconds": 3600, "per": per}


async def events(door: Door, session: str) -> list[dict[str, Any]]:
    """The session's events, each as the published schema says."""
    found = await door.events(session)
    for event in found:
        SCHEMA.validate(event)
    return found


def of(found: list[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    return (event["data"] for event in found if event["type"] == f"agentos.{kind}")


async def writes(door: Door, session: str) -> list[tuple[str, list[str]]]:
    """(effect, rules) of each decision about a write."""
    found = await events(door, session)
    return [
        (data["decision"]["effect"], data["decision"]["rules"])
        for data in of(found, "syscall.decided")
        if data["tool"] == "write"
    ]


async def test_a_rate_holds_across_a_restart(house: House) -> None:
    """Eight sessions at once want three writes each and get ten together; after a restart there is still none left."""
    async with house.open() as door:
        await door.apply(*documents(WORKER), obliging("calm", rate(10, "tenant")))
        sessions = await asyncio.gather(*(door.run() for _ in range(8)))
        await asyncio.gather(*(door.until(session) for session in sessions))
        made = [effect for session in sessions for effect, _ in await writes(door, session)]
        assert (made.count("allow"), len(made)) == (10, 24)
    async with house.open() as door:
        session = await door.run()
        await door.until(session)
        assert await writes(door, session) == [("deny", ["obligation.rate"])] * 3
        denied = next(data for data in of(await events(door, session), "syscall.decided") if "overruled" in data)
        assert denied["overruled"]["effect"] == "allow"
        assert "the next may be made at" in denied["decision"]["reasons"][0]
        await door.apply(obliging("calm", rate(12, "tenant")))
        session = await door.run()
        await door.until(session)
        assert [effect for effect, _ in await writes(door, session)] == ["allow", "allow", "deny"]


async def test_uses_of_a_grant_hold_across_a_restart(house: House) -> None:
    """Four uses: three, then one, then no more; a grant that was changed counts anew."""
    manifests = documents(WORKER)
    manifests[-1]["spec"]["maxUses"] = 4
    async with house.open() as door:
        await door.apply(*manifests)
        first = await door.run()
        await door.until(first)
        assert [effect for effect, _ in await writes(door, first)] == ["allow"] * 3
        charged = [data["charged"] for data in of(await events(door, first), "syscall.decided") if "charged" in data]
        assert [entry["grant"] for entries in charged for entry in entries] == ["writes"] * 3
    async with house.open() as door:
        second = await door.run()
        await door.until(second)
        assert await writes(door, second) == [("allow", ["grants.counted"]), *[("deny", ["grants.spent"])] * 2]
        manifests[-1]["spec"]["maxUses"] = 5
        await door.apply(*manifests)
        third = await door.run()
        await door.until(third)
        assert [effect for effect, _ in await writes(door, third)] == ["allow"] * 3


async def test_arguments_and_results_are_rewritten(door: Door) -> None:
    """The file has what policy left, the log has it and where it was changed, and people were told."""
    await door.apply(
        *documents(WORKER),
        obliging(
            "quiet",
            {"kind": "mask", "in": "args", "path": "/content", "keep": 4},
            {"kind": "redact", "in": "result", "path": "/digest"},
            {"kind": "label", "labels": ["cards"]},
            {"kind": "notify", "to": ["dpo"], "text": "a card was written"},
        ),
    )
    session = await door.run(goal="card 4111222233334444")
    assert (await door.until(session))["result"] == "3 of 3"
    folder = Path((await door("session.workspace", session=session))["path"])
    assert (folder / "n0.txt").read_text() == "*" * 17 + "4444"
    found = await events(door, session)
    decided = [data for data in of(found, "syscall.decided") if data["tool"] == "write"]
    assert [data["rewritten"] for data in decided] == [[{"kind": "mask", "path": "/content", "rule": "quiet.bound"}]] * 3
    assert all("opa" in data["policy"]["engine"] for data in decided)
    finished = [data for data in of(found, "syscall.finished") if data["tool"] == "write"]
    assert [data["redacted"] for data in finished] == [["/data/digest", "/content"]] * 3
    assert json.loads(finished[0]["result"]["content"])["digest"] == "[redacted]"
    assert [data["to"] for data in of(found, "policy.notified")] == [["dpo"]] * 3
    told = [event for event in found if event["type"] == "agentos.syscall.decided" and event["data"]["tool"] == "write"]
    assert all(b"4111222233334444" not in canonical(event) for event in told)


async def test_what_cannot_be_forced_is_denied(door: Door) -> None:
    """No driver here can force a sandbox."""
    await door.apply(*documents(WORKER), obliging("boxed", {"kind": "sandbox", "profile": "locked"}))
    session = await door.run()
    await door.until(session)
    assert await writes(door, session) == [("deny", ["obligation.sandbox"])] * 3


async def test_a_policy_counts_from_the_next_syscall(door: Door) -> None:
    """Applied while a call acts: the call after it, of the same turn, is decided by it."""
    manifests = documents(WORKER)
    play = manifests[0]["spec"]["scripted"]["play"]
    play["rules"][0] = {
        "id": "write",
        "when": "not results",
        "call": [{"tool": "write", "args": {"path": f"n{number}.txt", "content": "x"}} for number in range(3)],
    }
    await door.apply(*manifests)
    gate = door.hold(lambda _tool, args: args["path"] == "n0.txt")
    session = await door.run()
    await gate.begun.acquire()
    await door.apply(obliging("boxed", {"kind": "sandbox", "profile": "locked"}))
    gate.go.release()
    await door.until(session)
    assert await writes(door, session) == [("allow", ["grants.allowed"]), *[("deny", ["obligation.sandbox"])] * 2]
    types = [event["type"] for event in await events(door, session)]
    moved = types.index("agentos.session.revised")
    assert types[moved - 1 : moved + 2] == ["agentos.syscall.finished", "agentos.session.revised", "agentos.syscall.decided"]


@pytest.mark.parametrize("per", ["session", "agent"])
async def test_counters_are_per_what_they_say(door: Door, per: str) -> None:
    """Two sessions of one agent: each its own two, or two together."""
    await door.apply(*documents(WORKER), obliging("calm", rate(2, per)))
    effects = []
    for _ in range(2):
        session = await door.run()
        await door.until(session)
        effects += [effect for effect, _ in await writes(door, session)]
    assert effects.count("allow") == (4 if per == "session" else 2)
