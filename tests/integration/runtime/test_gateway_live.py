"""Sessions that a client outside drives, on a whole runtime: what it is told, what it may do, and what it never learns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from house import Door, House, documents

from agentos.abi.errors import AgentOSError, Conflict, Denied, UsageError
from agentos.control.client import Client

DESK = """
apiVersion: agentos/v1
kind: Model
metadata: {name: none}
spec: {provider: scripted, scripted: {play: {name: none, rules: [{id: done, when: "true", say: "nothing"}]}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: write}
spec: {description: Write a file., effect: write, idempotent: true, driver: {builtin: {primitive: write}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: read}
spec: {description: Read a file., effect: read, commutes: true, driver: {builtin: {primitive: read}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: list}
spec: {description: List files., effect: read, driver: {builtin: {primitive: list}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: desk}
spec:
  instructions: Nobody reads this.
  model: none
  tools: [write, read]
  gateway: {principals: [client]}
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: locked}
spec:
  instructions: Nobody reads this.
  model: none
  tools: [write]
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: all}
spec: {agents: [desk, locked], tools: [write, read, list]}
"""
WHO = {"name": "inspector", "version": "1.0"}


def desk(*, asked: bool = False, **gateway: Any) -> list[dict[str, Any]]:
    """The desk; with `asked` a person must approve every call."""
    found = documents(DESK)
    if asked:
        found[-1]["spec"]["approval"] = "required"
    agent = next(one for one in found if one["metadata"]["name"] == "desk")
    agent["spec"]["gateway"] |= gateway
    return found


class Guest:
    """A client with a session of its own."""

    def __init__(self, client: Client, session: str) -> None:
        self.client = client
        self.session = session

    async def __call__(self, verb: str, **params: Any) -> Any:
        return await self.client.call(f"gateway.{verb}", {"session": self.session, **params})

    async def write(self, name: str, **params: Any) -> Any:
        return await self("call", tool="write", args={"path": name, "content": name}, **params)


async def enter(door: Door, *, client: Client | None = None, **manifests: Any) -> Guest:
    """The desk is declared, and its client has opened a session."""
    await door.apply(*desk(**manifests))
    client = client or await door.as_principal("client", ["agent"], "default")
    opened = await client.call("gateway.open", {"agent": "desk", "client": WHO})
    return Guest(client, opened["session"])


async def test_a_client_lists_and_calls_tools_and_closes(door: Door) -> None:
    """Its calls are decided and recorded as every call; the session has no turn of a model, and ends as its client says."""
    guest = await enter(door)
    listed = await guest("tools")
    assert [tool["name"] for tool in listed["tools"]] == ["write", "read"]
    assert listed["tools"][0].keys() == {"name", "description", "input_schema", "effect", "idempotent", "digest"}
    done = await guest.write("a.txt")
    assert (done["state"], done["step"], done["is_error"], done["call"]) == ("done", "finished", False, "mcp-1")
    read = await guest("call", tool="read", args={"path": "a.txt"})
    assert (read["state"], read["content"]) == ("done", "a.txt")
    assert (await guest("close", result="thanks"))["state"] == "finished"
    shown = await door("session.get", session=guest.session)
    assert (shown["state"], shown["result"]) == ("finished", "thanks")
    assert (await door.types(guest.session))[1:] == ["syscall.decided", "syscall.finished"] * 2 + ["session.finished"]
    assert [row["origin"] for row in await door("session.list", all=True)] == ["served"]


async def test_a_call_that_waits_for_a_person_is_made_after_the_yes(door: Door) -> None:
    """The client is told what is asked, others queue behind it, and its own yes counts for nothing."""
    guest = await enter(door, asked=True, client=door.client)
    waiting = await guest.write("a.txt", call="step-1")
    question = waiting["question"]
    assert (waiting["state"], question["call"], question["args"]) == ("waiting", "step-1", {"path": "a.txt", "content": "a.txt"})
    behind = await guest.write("b.txt", call="step-2")
    assert (behind["state"], behind["question"]["call"]) == ("waiting", "step-1")
    assert (await guest.write("a.txt", call="step-1"))["state"] == "waiting"
    answer = {"session": guest.session, "call": "step-1", "digest": question["args_digest"], "reason": "mine"}
    with pytest.raises(Denied):
        await guest.client.call("approval.approve", answer)
    longing = asyncio.create_task(guest("result", call="step-1", wait_ms=20_000))
    await door.approve(guest.session, reason="fine")
    assert (await longing)["step"] == "finished"
    assert (await guest("result", call="step-2", wait_ms=20_000))["question"]["call"] == "step-2"
    ann = await door.as_principal("ann", ["approver"], "default")
    await ann.call("approval.deny", {**await door.looked(guest.session), "reason": "not that one"})
    refused = await guest("result", call="step-2", wait_ms=20_000)
    assert (refused["step"], refused["is_error"]) == ("rejected", True)
    assert "not that one" in refused["content"]
    effects = [(effect, rules) for _, effect, rules in await door.decisions(guest.session)]
    assert [effect for effect, _ in effects] == ["ask", "allow", "ask"]


async def test_a_question_outlives_the_runtime(house: House) -> None:
    """What waited when the runtime ended is answered and made after it is back, although nobody proposes it again."""
    async with house.open() as door:
        guest = await enter(door, asked=True, client=door.client)
        assert (await guest.write("a.txt"))["state"] == "waiting"
        session = guest.session
    async with house.open() as door:
        guest = Guest(door.client, session)
        await door.approve(session, reason="fine")
        done = await guest("result", call="mcp-1", wait_ms=20_000)
        assert done["step"] == "finished"
        # Ids go on where they were.
        assert (await guest.write("b.txt"))["call"] == "mcp-2"
        assert (await door.types(session)).count("session.owned") == 0


async def test_a_resting_session_is_taken_over_once(house: House) -> None:
    """A runtime that comes back says so in the log, once; the session costs nothing until its client wants something."""
    async with house.open() as door:
        guest = await enter(door, client=door.client)
        await guest.write("a.txt", call="step-1")
        session = guest.session
    async with house.open() as door:
        guest = Guest(door.client, session)
        assert door.runtime.sessions.running() == 0
        await door.runtime.standing.look()
        await door.runtime.standing.look()
        before = await door.types(session)
        assert before.count("session.owned") == 1
        opened = await guest.client.call("gateway.open", {"agent": "desk", "client": WHO, "session": session})
        assert opened["session"] == session
        # The same call is answered from the log, another one under its id is refused.
        assert (await guest.write("a.txt", call="step-1"))["step"] == "finished"
        with pytest.raises(Conflict, match="already another call"):
            await guest.write("b.txt", call="step-1")
        assert await door.types(session) == before
        assert (await guest.write("b.txt"))["step"] == "finished"
        assert (await guest("close"))["state"] == "finished"


async def test_a_session_that_nobody_uses_is_finished(door: Door) -> None:
    """After the time that the Agent declares, by the runtime; one with a question waits on."""
    guest = await enter(door, idleSeconds=1)
    found = await door.until(guest.session, "finished")
    assert found["result"] == "nobody used it any more"
    with pytest.raises(Conflict, match="is finished"):
        await guest.write("a.txt")
    asking = await enter(door, client=guest.client, asked=True, idleSeconds=1)
    assert (await asking.write("a.txt"))["state"] == "waiting"
    third = await enter(door, client=guest.client, asked=True, idleSeconds=1)
    await door.until(third.session, "finished")
    assert (await asking("result", call="mcp-1"))["state"] == "waiting"


async def said(work: Awaitable[Any]) -> tuple[str, str, str | None]:
    with pytest.raises(AgentOSError) as caught:
        await work
    return caught.value.code, caught.value.message, caught.value.mend


async def test_who_is_not_meant_learns_nothing(door: Door) -> None:
    """Sessions of others, of other tenants, of no client, and agents that list somebody else: the words for what is not there."""
    guest = await enter(door)
    await door.apply({"apiVersion": "agentos/v1", "kind": "Tenant", "metadata": {"name": "other"}, "spec": {}})
    other = await door.in_tenant("other")
    await other.apply(*[{**one, "metadata": {**one["metadata"], "tenant": "other"}} for one in desk()])
    foreign = await enter_in(other, "elsewhere")
    stranger = await door.as_principal("stranger", ["agent"], "default")
    mine = str((await door("gateway.open", agent="desk", client=WHO))["session"])
    plain = await door.run("desk")
    await door.until(plain, "finished")

    def opaque(session: str) -> tuple[str, str, str]:
        return "not-found", f"no session {session} is served to you", "open one"

    nowhere = "s-000000000000000000x"
    for who, sessions in (
        (stranger, (guest.session, mine, plain, foreign, nowhere)),
        (guest.client, (mine, plain, foreign, nowhere)),
    ):
        for session in sessions:
            for verb, more in (
                ("tools", {}),
                ("call", {"tool": "write", "args": {}}),
                ("result", {"call": "mcp-1"}),
                ("cancel", {"call": "mcp-1"}),
                ("close", {}),
            ):
                assert await said(who.call(f"gateway.{verb}", {"session": session, **more})) == opaque(session)
    assert await said(guest.client.call("gateway.open", {"agent": "desk", "client": WHO, "session": mine})) == opaque(mine)
    for agent in ("locked", "nobody"):
        told = await said(guest.client.call("gateway.open", {"agent": agent, "client": WHO}))
        assert told[:2] == ("not-found", f"no agent {agent} is served to you")
    assert (await said(stranger.call("gateway.open", {"agent": "desk", "client": WHO})))[0] == "not-found"
    auditor = await door.as_principal("eve", ["auditor", "approver", "compliance"], "default")
    with pytest.raises(Denied):
        await auditor.call("gateway.open", {"agent": "desk", "client": WHO})


async def enter_in(door: Door, name: str) -> str:
    client = await door.as_principal(name, ["agent"], "other")
    agent = next(one for one in desk(principals=[name]) if one["metadata"]["name"] == "desk")
    agent["metadata"]["tenant"] = "other"
    await door.apply(agent)
    return str((await client.call("gateway.open", {"agent": "desk", "client": WHO}))["session"])


async def test_a_client_that_is_listed_no_more_has_lost_its_session(door: Door) -> None:
    """Who may drive an agent is asked at each verb, not once."""
    guest = await enter(door)
    await guest.write("a.txt")
    await door.apply(*desk(principals=[]))
    assert (await said(guest.write("b.txt")))[0] == "not-found"
    await door.apply(*desk())
    assert (await guest.write("b.txt"))["step"] == "finished"


async def test_a_tool_that_is_not_its_own_is_as_one_that_is_not_there(door: Door) -> None:
    """`list` is declared and granted, and not named by the Agent: refused in the very words for no tool, and recorded."""
    guest = await enter(door)
    texts = {}
    for tool in ("list", "lost"):
        done = await guest("call", tool=tool, args={"path": "."})
        assert (done["step"], done["is_error"]) == ("refused", True)
        texts[tool] = done["content"].replace(tool, "TOOL")
    assert texts["list"] == texts["lost"] == "refused: no tool of this session is called 'TOOL'"
    assert (await door.types(guest.session))[1:] == ["syscall.refused"] * 2


async def test_a_tool_that_changed_since_it_was_listed_is_not_called(door: Door) -> None:
    """The digest is of what the client has read; under another description nothing is proposed."""
    guest = await enter(door)
    digest = (await guest("tools"))["tools"][0]["digest"]
    assert (await guest.write("a.txt", digest=digest))["step"] == "finished"
    changed = desk()
    next(one for one in changed if one["metadata"]["name"] == "write")["spec"]["description"] = "Write a file, and mail it."
    await door.apply(*changed)
    before = await door.types(guest.session)
    with pytest.raises(Conflict, match="has changed since it was listed"):
        await guest.write("b.txt", digest=digest)
    # What is in the log is answered whatever was read.
    assert (await guest.write("a.txt", digest=digest, call="mcp-1"))["step"] == "finished"
    assert [kind for kind in (await door.types(guest.session))[len(before) :] if kind != "session.revised"] == []
    fresh = (await guest("tools"))["tools"][0]["digest"]
    assert (await guest.write("b.txt", digest=fresh))["step"] == "finished"


async def test_many_calls_at_once_are_each_made_once(door: Door) -> None:
    """Forty at once, some of them under the same id: each id is one call, and no two calls share one."""
    guest = await enter(door)
    await guest.write("a.txt", call="step-0")
    reads = [guest("call", tool="read", args={"path": "a.txt"}, call=f"read-{number % 20}") for number in range(30)]
    writes = [guest.write(f"w{number}.txt") for number in range(10)]
    answers = await asyncio.gather(*reads, *writes)
    assert [one["step"] for one in answers] == ["finished"] * 40
    assert len({one["call"] for one in answers[30:]}) == 10
    assert len(await door.decisions(guest.session)) == 1 + 20 + 10


async def test_no_more_than_so_many_wait_at_a_window(door: Door) -> None:
    """A flood is refused beyond a bound, with the calls that were taken unharmed."""
    guest = await enter(door)
    gate = door.runtime.drivers.call
    held = door.hold(lambda tool, _args: tool.name == "write")
    first = asyncio.create_task(guest.write("a.txt", call="step-1", wait_ms=20_000))
    await held.begun.acquire()
    for number in range(2, 65):
        assert (await guest.write("a.txt", call=f"step-{number}", wait_ms=0))["state"] == "running"
    with pytest.raises(Conflict, match="64 calls of the session are under way"):
        await guest.write("a.txt", call="step-65", wait_ms=0)
    for number in range(2, 65):
        assert (await guest("cancel", call=f"step-{number}"))["cancelled"] is True
    door.runtime.drivers.call = gate  # type: ignore[method-assign]
    held.go.release()
    assert (await first)["step"] == "finished"
    assert len(await door.decisions(guest.session)) == 1


async def test_a_call_is_cancelled_while_it_can_be(door: Door) -> None:
    """Not decided: taken back without a trace. Waiting for a person: answered by a no of the client's. Acting: it goes on."""
    guest = await enter(door, asked=True)
    assert (await guest.write("a.txt", call="step-1"))["state"] == "waiting"
    assert (await guest.write("b.txt", call="step-2"))["state"] == "waiting"
    assert await guest("cancel", call="step-2") == {"cancelled": True, "call": "step-2", "state": "cancelled"}
    assert (await said(guest("result", call="step-2")))[0] == "not-found"
    gone = await guest("cancel", call="step-1", reason="changed my mind")
    assert (gone["cancelled"], gone["step"]) == (True, "rejected")
    assert "changed my mind" in gone["content"]
    assert (await said(guest("cancel", call="step-9")))[0] == "not-found"
    await door.apply(*desk())
    held = door.hold(lambda tool, _args: tool.name == "write")
    acting = asyncio.create_task(guest.write("c.txt", call="step-3"))
    await held.begun.acquire()
    assert await guest("cancel", call="step-3") == {"cancelled": False, "call": "step-3", "state": "running"}
    held.go.release()
    assert (await acting)["step"] == "finished"


LONG = """
apiVersion: agentos/v1
kind: Tool
metadata: {name: long}
spec:
  description: Take long.
  effect: external
  inputSchema: {type: object, properties: {}, additionalProperties: false}
  driver: {exec: {command: [sleep, "600"]}}
  timeoutSeconds: 600
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: long}
spec: {agents: [desk], tools: [long]}
"""


async def test_a_process_is_stopped_when_its_call_is_given_up(door: Door) -> None:
    """Its outcome is unknown then, which the client and the log are told; the session goes on."""
    changed = [*desk(), *documents(LONG)]
    next(one for one in changed if one["metadata"]["name"] == "desk")["spec"]["tools"].append("long")
    await door.apply(*changed)
    client = await door.as_principal("client", ["agent"], "default")
    opened = await client.call("gateway.open", {"agent": "desk", "client": WHO})
    guest = Guest(client, opened["session"])
    acting = asyncio.create_task(guest("call", tool="long", args={}, call="step-1", wait_ms=20_000))
    while "syscall.decided" not in await door.types(guest.session):
        await door("session.events", session=guest.session, seq=1, wait_ms=5_000)
    while not (await guest("cancel", call="step-1"))["cancelled"]:
        await asyncio.sleep(0.05)
    assert ((done := await acting)["step"], done["is_error"]) == ("unknown", True)
    assert (await guest.write("a.txt"))["step"] == "finished"
    assert (await door.types(guest.session))[1:3] == ["syscall.decided", "syscall.unknown"]


async def test_what_is_closed_ends_what_it_has_begun(door: Door) -> None:
    """Nothing new is taken, what acts has its outcome, then the session is over; closing again says the same."""
    guest = await enter(door)
    held = door.hold(lambda tool, _args: tool.name == "write")
    acting = asyncio.create_task(guest.write("a.txt", call="step-1", wait_ms=20_000))
    await held.begun.acquire()
    assert (await guest("close", wait_ms=0))["state"] == "running"
    with pytest.raises(Conflict, match="being closed"):
        await guest.write("b.txt")
    held.go.release()
    assert (await acting)["step"] == "finished"
    assert (await guest("close"))["state"] == "finished"
    assert (await guest("result", call="step-1"))["step"] == "finished"


async def test_a_session_that_is_held_takes_calls_and_makes_none(door: Door) -> None:
    """Paused or frozen, calls wait at the window and are made afterwards, in their order."""
    guest = await enter(door)
    await door("session.pause", session=guest.session, reason="look")
    assert (await guest.write("a.txt", call="step-1", wait_ms=200))["held"].startswith("paused by principal/")
    await door("session.resume", session=guest.session, reason="done")
    assert (await guest("result", call="step-1", wait_ms=20_000))["step"] == "finished"
    await door("freeze.set", scope={"kind": "agent", "name": "desk"}, reason="stop")
    assert (await guest.write("b.txt", call="step-2", wait_ms=200))["held"].startswith("frozen by principal/")
    await door("freeze.lift", all=True, reason="go on")
    assert (await guest("result", call="step-2", wait_ms=20_000))["step"] == "finished"


async def test_a_cancelled_session_answers_whoever_waits(door: Door) -> None:
    """An operator ends it: what waits at the window is told, and nothing of it is made."""
    guest = await enter(door, asked=True)
    assert (await guest.write("a.txt", call="step-1"))["state"] == "waiting"
    longing = asyncio.create_task(guest("result", call="step-1", wait_ms=20_000))
    await asyncio.sleep(0)
    await door("session.cancel", session=guest.session, reason="enough")
    with pytest.raises(Conflict, match="is cancelled"):
        await longing
    with pytest.raises(Conflict, match="is cancelled"):
        await guest.write("b.txt")
    assert (await guest("close"))["state"] == "cancelled"


@pytest.mark.parametrize(
    "params",
    [
        {"tool": "write", "args": {"path": "a", "content": "x" * (1024 * 1024 + 1)}},
        {"tool": "write", "args": {"path": 2**60, "content": "x"}},
        {"tool": "write", "args": {}, "call": "model-1"},
        {"tool": "write", "args": {}, "call": "Some words"},
        {"tool": "", "args": {}},
        {"tool": "write", "args": []},
        {"tool": "write", "args": {}, "more": 1},
    ],
)
async def test_odd_calls_leave_nothing_in_the_log(door: Door, params: dict[str, Any]) -> None:
    """Too large, no canonical form, an id that is none of a client's: refused at the door."""
    guest = await enter(door)
    with pytest.raises(UsageError):
        await guest("call", **params)
    assert len(await door.types(guest.session)) == 1


async def test_a_client_cannot_name_itself_into_the_terminal(door: Door) -> None:
    """Control characters in a client's name are refused: the name is shown to people."""
    await door.apply(*desk())
    with pytest.raises(UsageError, match="control characters"):
        await door("gateway.open", agent="desk", client={"name": "a\x1b[2J", "version": "1"})
