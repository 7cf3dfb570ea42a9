"""Approvals on a whole runtime: two people, the end of a question, changes while it waits, yeses for more than one call."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from house import WORKER, Door, House, documents

from agentos.abi.errors import Conflict, Denied, UsageError
from agentos.audit.verify import verify_pack
from agentos.boot.system import SystemTimer
from agentos.control.client import Client

DAY_MS = 86_400_000

TWO = """# METADATA
# title: eyes
# description: a rule of a test
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.eyes

# METADATA
# title: two
# description: every write needs two people
results contains {
	"rule": "eyes.two",
	"effect": "ask",
	"reason": "two people look at every write",
	"obligations": [{"kind": "approvers", "count": 2}],
} if {
	input.syscall.tool == "write"
}
"""


def policy(source: str, name: str = "eyes") -> dict[str, Any]:
    spec = {"target": "syscall", "mode": "enforce", "modules": [{"path": f"{name}.rego", "source": source}]}
    return {"apiVersion": "agentos/v1", "kind": "Policy", "metadata": {"name": name}, "spec": spec}


def asking() -> list[dict[str, Any]]:
    """The worker; a person must approve every write."""
    manifests = documents(WORKER)
    manifests[-1]["spec"]["approval"] = "required"
    return manifests


async def ask(client: Client, verb: str, session: str, **params: Any) -> Any:
    """An answer to what waits, or to what `params` say was looked at."""
    asked = (await client.call("session.get", {"session": session}))["waiting_for"]
    read = {"call": asked["call"], "digest": asked["args_digest"]}
    return await client.call(f"approval.{verb}", {"session": session, "reason": "I looked", **read, **params})


async def verified(door: Door) -> None:
    """The evidence of everything so far holds."""
    exported = await door("evidence.export")
    report = verify_pack(base64.b64decode(exported["pack"]), (await door("evidence.key"))["pem"].encode())
    assert report.faults == ()


async def effects(door: Door, session: str) -> list[str]:
    return [effect for _, effect, _ in await door.decisions(session)]


async def test_who_asked_for_the_work_does_not_approve_it(door: Door) -> None:
    """The operator's own yes is refused with the rule that says so; nothing is recorded, and an approver's yes counts."""
    await door.apply(*asking())
    ann = await door.as_principal("ann", ["approver"], "default")
    session = await door.run()
    waiting = (await door.until(session, "waiting"))["waiting_for"]
    before = await door.types(session)
    with pytest.raises(Denied) as caught:
        await ask(door.client, "approve", session)
    assert caught.value.rules == ("requester.same",)
    assert await door.types(session) == before
    with pytest.raises(Conflict, match="other arguments"):
        await ask(ann, "approve", session, digest="sha256:" + "0" * 64)
    await ask(ann, "approve", session, digest=waiting["args_digest"], call=waiting["call"])
    await door.until(session, "waiting")
    assert (await effects(door, session))[:2] == ["ask", "allow"]
    await verified(door)


async def test_an_answer_names_what_was_looked_at(door: Door) -> None:
    """Without the call and the digest of its arguments neither a yes nor a no is taken; one for what waited before is refused."""
    await door.apply(*asking())
    ann = await door.as_principal("ann", ["approver"], "default")
    session = await door.run()
    await door.until(session, "waiting")
    read = await door.looked(session)
    for verb in ("approve", "deny"):
        for missing in ("call", "digest"):
            with pytest.raises(UsageError, match=f"{missing} not given") as caught:
                await ask(ann, verb, session, **{missing: None})
            assert "agentos approvals list" in (caught.value.mend or "")
    await ask(ann, "approve", **read)
    await door.until(session, "waiting")
    for verb in ("approve", "deny"):
        with pytest.raises(Conflict, match="waits for call"):
            await ask(ann, verb, **read)
    await ask(ann, "deny", session)
    await verified(door)


async def test_a_standing_yes_leaves_nothing_open_unless_said(door: Door) -> None:
    """A search without a place would be granted for every place: refused by name, and nothing is changed."""
    manifests = documents(WORKER)
    for one in manifests:
        if one["kind"] == "Tool":
            one["spec"] |= {"effect": "read", "driver": {"builtin": {"primitive": "list"}}}
        if one["kind"] == "Model":
            one["spec"]["scripted"]["play"]["rules"] = [
                {"id": "look", "when": "not results", "call": [{"tool": "write", "args": {}}]},
                {"id": "done", "when": "true", "say": "done"},
            ]
    manifests[-1]["spec"]["approval"] = "required"
    await door.apply(*manifests)
    both = await door.as_principal("both", ["approver", "operator"], "default")
    session = await door.run()
    await door.until(session, "waiting")
    revision = await door.revision()
    for dry_run in (True, False):
        with pytest.raises(UsageError, match="leaves open path"):
            await ask(both, "approve", session, scope="standing", dry_run=dry_run)
    with pytest.raises(UsageError, match="allow_open: only a standing approval"):
        await ask(both, "approve", session, allow_open=True)
    assert await door.revision() == revision
    done = await ask(both, "approve", session, scope="standing", allow_open=True)
    assert (done["open"], done["revision"]["revision"]) == (["path"], revision + 1)
    await verified(door)


async def test_two_people_approve_one_call(door: Door) -> None:
    """The list shows how many are missing; the same person is refused; the second yes lets the call through."""
    await door.apply(*asking(), policy(TWO))
    ann, bo = [await door.as_principal(name, ["approver"], "default") for name in ("ann", "bo")]
    session = await door.run()
    await door.until(session, "waiting")
    await ask(ann, "approve", session)
    await door.until(session, "waiting")
    [row] = await door("approval.list")
    assert (row["needed"], row["given"], [one["by"] for one in row["answers"]]) == (2, 1, ["principal/ann"])
    with pytest.raises(Denied, match="may not approve"):
        await ask(ann, "approve", session)
    await ask(bo, "approve", session)
    await door.until(session, "waiting")
    decided = [event["data"] for event in await door.events(session) if event["type"] == "agentos.syscall.decided"]
    assert [one["by"] for data in decided for one in data.get("approvals", [])] == ["principal/ann", "principal/bo"]
    for name in ("ann", "bo"):
        rows = (await door("audit.query", actor=name))["rows"]
        assert [row["approval_by"] for row in rows] == ["principal/ann, principal/bo"]
    await verified(door)


async def test_a_question_ends_while_no_runtime_runs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day later the runtime is back: the question is answered by a no, the model is told, the session goes on."""
    async with house.open() as door:
        await door.apply(*asking())
        session = await door.run()
        await door.until(session, "waiting")
    now = SystemTimer.now_ms
    monkeypatch.setattr(SystemTimer, "now_ms", lambda self: now(self) + DAY_MS)
    async with house.open() as door:
        seen = 0
        while "approval.expired" not in await door.types(session):
            await asyncio.wait_for(door.runtime.sessions.wait_beyond("default", session, seen := seen + 1), 10)
        await door.until(session, "waiting")
        [row] = await door("approval.list")
        assert row["call"] != (await door("approval.list", all=True))[0]["call"]
        expired = next(event for event in await door.events(session) if event["type"] == "agentos.approval.expired")
        assert expired["actor"] == "system/kernel"
        assert [row["state"] for row in await door("approval.list", all=True)] == ["expired", "waiting"]
        await verified(door)


async def test_a_policy_that_changes_while_a_call_waits_asks_anew(door: Door) -> None:
    """The yes was given under the old policy and does not count under the new one, which wants two people."""
    await door.apply(*asking())
    ann, bo = [await door.as_principal(name, ["approver"], "default") for name in ("ann", "bo")]
    session = await door.run()
    await door.until(session, "waiting")
    await door.apply(*asking(), policy(TWO))
    await ask(ann, "approve", session)
    waiting = (await door.until(session, "waiting"))["waiting_for"]
    assert (waiting["needed"], waiting["given"]) == (2, 0)
    await ask(ann, "approve", session)
    await door.until(session, "waiting")
    await ask(bo, "approve", session)
    await door.until(session, "waiting")
    assert await effects(door, session) == ["ask", "ask", "ask", "allow", "ask"]
    await verified(door)


async def test_a_grant_that_goes_while_a_call_waits_takes_the_call_with_it(door: Door) -> None:
    """The yes comes too late: the call is decided again before it is made, and no grant lets it through."""
    await door.apply(*asking())
    ann = await door.as_principal("ann", ["approver"], "default")
    session = await door.run()
    await door.until(session, "waiting")
    await door("registry.delete", keys=["toolgrant/writes"], allow_destroy=True, reason="taken")
    await ask(ann, "approve", session)
    assert (await door.until(session))["result"] == "0 of 3"
    assert (await door.decisions(session))[:2] == [
        ("write", "ask", ["grants.approval"]),
        ("write", "deny", ["grants.none"]),
    ]
    await verified(door)


async def test_a_yes_for_the_session(door: Door) -> None:
    """Two of three writes go out on one yes; the third asks again."""
    await door.apply(*asking())
    ann = await door.as_principal("ann", ["approver"], "default")
    session = await door.run()
    await door.until(session, "waiting")
    with pytest.raises(UsageError, match="at most 3600 s"):
        await ask(ann, "approve", session, scope="session", valid_ms=3_600_001)
    await ask(ann, "approve", session, scope="session", max_uses=2)
    await door.until(session, "waiting")
    assert await effects(door, session) == ["ask", "allow", "allow", "ask"]
    await ask(ann, "deny", session)
    assert (await door.until(session))["result"] == "2 of 3"
    await verified(door)


async def test_a_standing_yes_is_a_grant_until_it_is_used_up(door: Door) -> None:
    """It takes the right to apply, is attributed to the approver, and lets so many calls with these arguments through."""
    await door.apply(*asking())
    ann = await door.as_principal("ann", ["approver"], "default")
    both = await door.as_principal("both", ["approver", "operator"], "default")
    session = await door.run()
    await door.until(session, "waiting")
    with pytest.raises(Denied, match="may not make a standing grant") as caught:
        await ask(ann, "approve", session, scope="standing")
    assert "role operator can" in caught.value.reasons[0]
    revision = await door.revision()
    shown = await ask(both, "approve", session, scope="standing", max_uses=2, dry_run=True)
    assert (shown["revision"], await door.revision(), shown["needs"]) == (None, revision, ["allow_widen"])
    assert shown["grant"]["spec"]["args"] == {"path": {"equals": "n0.txt"}, "content": {"equals": "hello"}}
    with pytest.raises(Conflict, match="no longer what was shown"):
        await ask(
            both, "approve", session, scope="standing", max_uses=3, until_ms=shown["until_ms"], expect=shown["plan"]["digest"]
        )
    exactly = {"until_ms": shown["until_ms"], "expect": shown["plan"]["digest"]}
    done = await ask(both, "approve", session, scope="standing", max_uses=2, **exactly)
    assert done["revision"]["revision"] == revision + 1
    name = done["grant"]["metadata"]["name"]
    [kept] = [item for item in (await door("registry.list"))["items"] if item["key"] == f"toolgrant/default/{name}"]
    assert kept["by"] == "principal/both"
    assert kept["resource"]["metadata"]["annotations"]["agentos/session"] == session
    await door.until(session, "waiting")
    granted = next(event for event in await door.events(session) if event["type"] == "agentos.approval.granted")
    assert granted["data"]["scope"] == "once"
    told = [(await door.decisions(session))[1][1:]]
    for _ in range(2):
        other = await door.run()
        await door.until(other)
        told.append((await door.decisions(other))[0][1:])
    # The grant is used up: what asked before it was there asks again.
    assert told == [("allow", ["grants.counted"]), ("allow", ["grants.counted"]), ("ask", ["grants.approval"])]
    await verified(door)
