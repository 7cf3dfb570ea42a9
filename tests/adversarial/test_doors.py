"""What one tenant uses up, another does not lack: how often it asks, and how much it stores."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import tarfile
from typing import Any

import pytest
from adversarial_world import OF_BETA, World

from agentos.files.quota import QuotaExceeded

pytestmark = pytest.mark.asyncio(loop_scope="session")


def small(name: str) -> str:
    """A tenant with little of everything."""
    return f"""
apiVersion: agentos/v1
kind: Tenant
metadata: {{name: {name}}}
spec: {{limits: {{requestsPerSecond: 2, storageMiB: 1, files: 40}}, spaces: [{{name: shared}}]}}
"""


FILLER = """
apiVersion: agentos/v1
kind: Tool
metadata: {name: fill}
spec:
  description: Leave a large file.
  effect: write
  inputSchema: {type: object, additionalProperties: false}
  driver: {exec: {command: [/bin/sh, -c, "head -c 3000000 /dev/urandom > large.bin; echo done"]}}
---
apiVersion: agentos/v1
kind: Model
metadata: {name: filler}
spec:
  provider: scripted
  scripted:
    play:
      name: filler
      rules:
        - {id: fill, when: "results | length < 2", call: [{tool: fill, args: {}}]}
        - {id: write, when: "results | length < 3", call: [{tool: write, args: {path: one-more.txt, content: x}}]}
        - {id: done, when: "true", say: "{{ results | ok | length }} of {{ results | length }}"}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: filler}
spec:
  instructions: Fill it.
  model: filler
  tools: [fill, write]
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: fills}
spec: {agents: [filler], tools: [fill, write]}
"""


def _input(size: int, count: int = 1) -> str:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in range(count):
            info = tarfile.TarInfo(f"{number}.bin")
            info.size = size
            archive.addfile(info, io.BytesIO(os.urandom(size)))
    return base64.b64encode(buffer.getvalue()).decode()


async def test_a_flood_keeps_nobody_else_out(world: World) -> None:
    """One floods: it is told when to come again; its tenant's other principals, its kill switch, and beta are served."""
    await world.tenant("flooded", small("flooded"))
    flood, other = await world.knock("operator", "flooded"), await world.knock("auditor", "flooded")
    flood.patient = False
    beta = await world.knock("operator", OF_BETA)
    answers = await asyncio.gather(*(flood("session.list") for _ in range(60)))
    refused = [one.body["error"] for one in answers if one.code]
    assert {one["code"] for one in refused} == {"rate.limited"}
    assert len(answers) - len(refused) < 30
    assert all(1 <= one["retry_after_ms"] <= 1000 for one in refused)
    served = await asyncio.gather(other("session.list"), beta("session.list"), world.door("session.list"))
    assert (served[0].code, served[1].code) == ("", "")
    frozen, _ = await asyncio.gather(
        flood("freeze.set", {"scope": {"kind": "tenant"}, "reason": "stop"}),
        asyncio.gather(*(flood("session.list") for _ in range(20))),
    )
    assert frozen.code == ""


async def test_a_client_with_manners_waits_and_is_served(world: World) -> None:
    """Whoever uses the client is slowed down, not refused."""
    await world.tenant("polite", small("polite"))
    client = await world.door.as_principal("slow", ["auditor"], "polite")
    for _ in range(6):
        assert await client.call("session.list", {}) == []


async def test_a_full_tenant_stores_nothing_more_and_no_other_is_full(world: World) -> None:
    """By verbs, by inputs, by the file tool, and by a process: refused, or found and failed, with the words that say why."""
    full = await world.tenant("full", small("full") + "---" + FILLER)

    async def code(verb: str, **params: Any) -> str:
        answer = await fleet(verb, params, tenant="full")
        return answer.code

    fleet = await world.knock("operator", "*")
    body = base64.b64encode(os.urandom(400_000)).decode()
    assert await code("fs.write", place="space/shared", path="a.bin", data=body) == ""
    large = (await full("session.upload", data=_input(2_000_000)))["upload"]
    many = (await full("session.upload", data=_input(1, 100)))["upload"]
    for upload in (large, many):
        with pytest.raises(QuotaExceeded, match="has no room for more"):
            await full("session.create", agent="worker", goal="x", upload=upload)
    session = await full.run("filler", "fill it")
    assert (await full.until(session))["result"] == "0 of 3"
    failed = [event["data"]["error"] for event in await full.events(session) if event["type"] == "agentos.syscall.failed"]
    assert [one["code"] for one in failed] == ["quota.exceeded"] * 3
    assert "the call was made, and now tenant full has more files than it may" in failed[0]["message"]
    assert await code("fs.write", place="space/shared", path="b.bin", data=body) == "quota.exceeded"
    assert await code("fs.undo", place=session) == ""
    done = await world.beta.run()
    assert (await world.beta.until(done))["result"] == "3 of 3"
