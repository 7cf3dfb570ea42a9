"""Steering a session on a whole runtime: paused, resumed, over restarts; a lost call settled by a person."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from house import WORKER, Door, House, documents
from jsonschema import Draft202012Validator

from agentos.abi.assets import asset
from agentos.abi.errors import Conflict, Denied, NotFound, UsageError
from agentos.audit.verify import verify_pack

EVENTS = Draft202012Validator(json.loads((asset("schemas") / "v1" / "event.json").read_text()))
SESSION = Draft202012Validator(json.loads((asset("schemas") / "v1" / "session.json").read_text()))

LEDGER = Path(__file__).resolve().parents[2] / "assets" / "servers" / "ledger_server.py"


def once(books: Path) -> list[dict[str, Any]]:
    """The worker, whose tool must not be called twice: it notes numbers in `ledger` in the folder `books`."""
    books.mkdir()
    books.chmod(0o777)  # each session is another user
    manifests = documents(WORKER)
    rule = manifests[0]["spec"]["scripted"]["play"]["rules"][0]
    rule["call"][0]["args"] = {"number": "{{ results | length }}"}
    server = {"command": [sys.executable, f"/servers/{LEDGER.name}", "/books/ledger"]}
    number = {"title": "Number", "type": "integer"}
    schema = {"title": "noteArguments", "type": "object", "properties": {"number": number}, "required": ["number"]}
    manifests[1]["spec"] = {
        "description": "Write a number down.",
        "effect": "external",
        "sandbox": "books",
        "inputSchema": schema,
        "driver": {"mcp": {"tool": "note", "server": server}},
    }
    mounts = [{"path": str(books), "at": "/books", "write": True}, {"path": str(LEDGER.parent), "at": "/servers"}]
    sandbox = {"apiVersion": "agentos/v1", "kind": "Sandbox", "metadata": {"name": "books"}, "spec": {"mounts": mounts}}
    return [sandbox, *manifests]


def asking() -> list[dict[str, Any]]:
    """The worker, each of whose files a person must approve."""
    manifests = documents(WORKER)
    manifests[-1]["spec"]["approval"] = "required"
    return manifests


async def written(door: Door, session: str) -> list[str]:
    folder = Path((await door("session.workspace", session=session))["path"])
    return sorted(file.name for file in folder.iterdir())


async def row(door: Door, session: str) -> dict[str, Any]:
    return next(one for one in await door("session.list", all=True) if one["id"] == session)


async def paused_in_its_first_call(door: Door) -> str:
    """A session that was paused while its first call was under way, which then finished."""
    gate = door.hold(lambda _tool, args: args["path"] == "n0.txt")
    session = await door.run()
    await gate.begun.acquire()
    answer = await door("session.pause", session=session, reason="wait a moment")
    SESSION.validate(answer)
    gate.go.release()
    while door.runtime.sessions.running():
        await door("session.events", session=session, seq=answer["seq"], position=0)
    return session


async def test_a_paused_session_makes_no_further_call_and_holds_nothing(door: Door) -> None:
    """The call under way is finished; then nothing happens, and no task is held, until it is resumed."""
    await door.apply(*documents(WORKER))
    session = await paused_in_its_first_call(door)
    standing = await door("session.get", session=session)
    assert (standing["state"], standing["paused"]["reason"]) == ("paused", "wait a moment")
    assert ((await row(door, session))["state"], await written(door, session)) == ("paused", ["n0.txt"])
    assert (await door.types(session))[-2:] == ["session.paused", "syscall.finished"]
    with pytest.raises(Conflict, match="paused already"):
        await door("session.pause", session=session, reason="again")
    await door("session.resume", session=session, reason="go on")
    ended = await door.until(session, "finished")
    assert ended["result"] == "3 of 3"
    assert "paused" not in ended
    for event in await door.events(session):
        EVENTS.validate(event)
    with pytest.raises(Conflict, match="not paused: it is finished"):
        await door("session.resume", session=session, reason="more")


async def test_a_pause_survives_restarts(house: House) -> None:
    """A runtime that comes up leaves a paused session alone, and resumes it when told so."""
    async with house.open() as door:
        await door.apply(*documents(WORKER))
        session = await paused_in_its_first_call(door)
    async with house.open() as door:
        assert (await door("session.get", session=session))["state"] == "paused"
        assert door.runtime.sessions.running() == 0
        await door("session.resume", session=session, reason="after the restart")
        assert (await door.until(session, "finished"))["result"] == "3 of 3"


async def test_an_answer_does_not_wake_a_paused_session(door: Door) -> None:
    """It waits for a person and is paused: the yes is recorded, and acted on when it goes on."""
    await door.apply(*asking())
    session = await door.run()
    await door.until(session, "waiting")
    await door("session.pause", session=session, reason="not yet")
    await door.approve(session, reason="fine")
    assert (await door("session.get", session=session))["state"] == (await row(door, session))["state"] == "paused"
    assert await written(door, session) == []
    await door("session.resume", session=session, reason="now")
    await door.until(session, "waiting")
    assert await written(door, session) == ["n0.txt"]


async def lost(house: House) -> str:
    """A session whose first call was under way when its runtime stopped, and which was paused then."""
    async with house.open() as door:
        await door.apply(*once(house.root.parent / "books"))
        gate = door.hold(lambda _tool, args: args["number"] == 0)
        session = await door.run()
        await gate.begun.acquire()
        await door("session.pause", session=session, reason="something is off")
    return session


async def test_a_lost_call_is_settled_by_a_person(house: House) -> None:
    """The model is told what the person found out; who said so, and how they know, stands in the log, and the evidence holds."""
    session = await lost(house)
    async with house.open() as door:
        [call] = [event["data"]["call"] for event in await door.events(session) if event["type"] == "agentos.syscall.unknown"]
        with pytest.raises(NotFound, match="no call nonsense"):
            await door("session.reconcile", session=session, call="nonsense", outcome="failed", reason="x")
        with pytest.raises(UsageError, match="has no result"):
            await door("session.reconcile", session=session, call=call, outcome="failed", reason="x", result="y")
        await door("session.reconcile", session=session, call=call, outcome="finished", result="it is there", reason="I looked")
        with pytest.raises(Conflict, match="is finished"):
            await door("session.reconcile", session=session, call=call, outcome="failed", reason="no")
        [told] = [one for one in (await door("audit.query", session=session))["rows"] if one["call"] == call]
        assert told["outcome"] == "finished"
        await door("session.resume", session=session, reason="go on")
        assert (await door.until(session, "finished"))["result"] == "3 of 3"
        for event in await door.events(session):
            EVENTS.validate(event)
        pack, trust = (await door("evidence.export"))["pack"], (await door("evidence.key"))["pem"]
        report = verify_pack(base64.b64decode(pack), trust.encode())
        assert (report.faults, report.ok) == ((), True)


async def test_who_may_steer(door: Door) -> None:
    """Operators pause, resume and reconcile; who approves or audits does not."""
    await door.apply(*documents(WORKER))
    session = await paused_in_its_first_call(door)
    for number, role in enumerate(("approver", "auditor", "compliance")):
        other = await door.as_principal(f"p{number}", [role], "default")
        with pytest.raises(Denied):
            await other.call("session.resume", {"session": session, "reason": "x"})
