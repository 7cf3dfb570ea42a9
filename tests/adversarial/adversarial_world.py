"""A runtime with the tenants `acme` and `beta`. In `beta` there is one thing of every kind that a verb can name.

`World.real` names those things, `World.ghost` others of the same kind, shape and length that nobody has. A `Knock` is a
principal's own connection to the server, without the manners of the client: it sends whatever it is told to, and sees the bytes
and headers that come back.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from house import WORKER, Door, House, documents
from nats.aio.client import Client as Nats
from nats.aio.subscription import Subscription

from agentos.boot.doors import Listen
from agentos.control import wire
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import create_seed, parse_seed

ROLES = ("operator", "compliance", "auditor", "approver", "agent", "publisher")
"""What a principal can be made; `worker` is kept for the runtime's own."""

OF_ACME = "acme"
OF_BETA = "beta"

BETA = """
apiVersion: agentos/v1
kind: Tenant
metadata: {name: beta}
spec: {spaces: [{name: betaspace}]}
---
apiVersion: agentos/v1
kind: Secret
metadata: {name: betasecret}
spec: {description: Opens a door., env: BETA_TOKEN, hosts: [127.0.0.1]}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: lock}
spec: {description: Take a lock., effect: write, driver: {builtin: {primitive: lock}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: post}
spec: {description: Write a posting., effect: write, driver: {builtin: {primitive: write}}}
---
apiVersion: agentos/v1
kind: Model
metadata: {name: clerk}
spec:
  provider: scripted
  scripted:
    play:
      name: clerk
      rules:
        - {id: lock, when: "turn == 1", call: [{tool: lock, args: {resource: betaledger}}]}
        - {id: post, when: "turn == 2", call: [{tool: post, args: {path: posting.md, content: "posted"}}]}
        - {id: done, when: "true", say: done}
---
apiVersion: agentos/v1
kind: Model
metadata: {name: betamodel}
spec: {provider: scripted, scripted: {play: {name: quiet, rules: [{id: done, when: "true", say: done}]}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: betaagent}
spec:
  instructions: Post.
  model: clerk
  tools: [lock, post]
  gateway: {principals: [beta-agent]}
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: betadaemon}
spec:
  instructions: Wait.
  model: betamodel
  tools: []
  standing: {goal: Watch.}
  program: betaprogram
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: locks}
spec: {agents: [betaagent], tools: [lock]}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: posts}
spec: {agents: [betaagent], tools: [post], approval: required}
---
apiVersion: agentos/v1
kind: Trigger
metadata: {name: betatrigger}
spec: {agent: worker, goal: A signal came., "on": {signal: {name: go}}}
---
apiVersion: agentos/v1
kind: Trigger
metadata: {name: betahook}
spec: {agent: worker, goal: A delivery came., "on": {webhook: {path: betahook, secretEnv: BETA_HOOK}}}
"""

HOOK_SECRETS = {
    name: "whsec_" + base64.b64encode(f"a secret of {name}, of bytes".encode()).decode() for name in ("BETA_HOOK", "GAMMA_HOOK")
}
"""The secrets of webhooks, by the variable that triggers name."""

ACME = """
apiVersion: agentos/v1
kind: Tenant
metadata: {name: acme}
spec: {description: Curious}
"""


OWN = re.compile(r"\b[a-z]+-[0-9a-z]{10,}(?:-[0-9a-z]+)*\b|\b[0-9a-f]{16,}\b|\d{4}-\d\d-\d\dT[\d:.]+Z|\b\d{13}\b")
"""What is of one answer, session or moment alone."""


@dataclass
class Answer:
    """What came back: the JSON of the body, and the headers."""

    body: Any
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        """The code of a refusal; empty where the verb was performed."""
        return str(self.body["error"]["code"]) if "error" in self.body else ""

    def text(self, *names: str) -> str:
        """All of it as one text, in which each of `names` stands as the same word."""
        whole = json.dumps([self.body, dict(self.headers)], sort_keys=True, ensure_ascii=False)
        for name in sorted(names, key=len, reverse=True):
            whole = whole.replace(name, "(name)")
        return whole

    def plain(self, *names: str) -> str:
        """The same without what is of this answer alone: ids, digests, times."""
        return OWN.sub("(own)", self.text(*names))


@dataclass
class Knock:
    """A principal at the server, raw. `patient`: told that it asks too often, it asks again when it was told to."""

    name: str
    nc: Nats
    refused: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    """What the server did not let it do."""
    patient: bool = True
    _count: int = 0

    async def __call__(self, verb: str, params: Any = None, tenant: str | None = None) -> Answer:
        while True:
            answer = await self._once(verb, params, tenant)
            if not self.patient or answer.code != "rate.limited":
                return answer
            await asyncio.sleep(answer.body["error"]["retry_after_ms"] / 1000)

    async def _once(self, verb: str, params: Any, tenant: str | None) -> Answer:
        body: dict[str, Any] = {"params": params or {}}
        if tenant is not None:
            body["tenant"] = tenant
        self._count += 1
        inbox = f"_INBOX.{self.name}.{self._count}"
        heard = await self.nc.subscribe(inbox)
        data, headers = wire.encode(body)
        await self.nc.publish(f"ctl.{self.name}.{verb}", data, reply=inbox, headers=headers or None)
        coming, refusal = asyncio.ensure_future(_whole(heard)), asyncio.ensure_future(self.refused.get())
        try:
            await asyncio.wait((coming, refusal), return_when=asyncio.FIRST_COMPLETED, timeout=60)
            if refusal.done():
                return Answer({"error": {"code": "refused"}}, {"said": refusal.result()})
            assert coming.done(), f"{verb} got no answer"
            return coming.result()
        finally:
            coming.cancel()
            refusal.cancel()
            await heard.unsubscribe()


async def _whole(heard: Subscription) -> Answer:
    parts: list[bytes] = []
    while True:
        message = await heard.next_msg(timeout=None)
        parts.append(message.data)
        told = dict(message.headers or {})
        if told.get("Status") == "503":
            return Answer({"error": {"code": "nobody"}}, told)
        if told[wire.PART].endswith(f"/{len(parts)}"):
            return Answer(wire.decode(b"".join(parts), told), told)


@dataclass
class World:
    """The runtime, and what is in it. All tests share it: what a test changes it changes in a tenant of its own."""

    door: Door
    beta: Door
    real: dict[str, str]
    ghost: dict[str, str]
    _keys: dict[str, str]
    _stack: AsyncExitStack

    @asynccontextmanager
    async def visited(self) -> AsyncIterator[World]:
        """The world for one test: connections that it opens are closed after it."""
        async with AsyncExitStack() as stack:
            yield replace(self, _stack=stack)

    async def knock(self, role: str, tenant: str) -> Knock:
        """A principal of its own with that role: `<tenant>-<role>` (`fleet-…` for `*`), made when it is first asked for."""
        name = f"{'fleet' if tenant == '*' else tenant}-{role}"
        if name not in self._keys:
            key = create_seed(self.door.runtime.random)
            await self.door("principal.create", name=name, roles=[role], tenant=tenant, public_key=key.public_key)
            self._keys[name] = key.seed
        return await self.connected(name, self._keys[name])

    async def tenant(self, name: str, text: str) -> Door:
        """A tenant of a test's own, with what `text` declares and an agent `worker`; the operator, acting on it."""
        await self.door.apply(*documents(text, tenant=name), *documents(WORKER, tenant=name))
        return await self.door.in_tenant(name)

    async def of_beta(self) -> dict[str, object]:
        """All of beta that a knock could have changed."""
        beta = self.beta
        sessions = await beta("session.list", all=True)
        return {
            "sessions": {row["id"]: row["state"] for row in sessions},
            "waiting": (await beta("session.get", session=self.real["waiting"]))["seq"],
            "locks": [row["resource"] for row in (await beta("lock.list"))["locks"]],
            "triggers": [(row["name"], row["paused"], row["started"]) for row in (await beta("trigger.list"))["triggers"]],
            "freezes": [row["freeze"] for row in await beta("freeze.list")],
            "holds": [row["hold"] for row in await beta("audit.holds")],
            "files": (await beta("fs.list", place="space/betaspace"))["files"],
            "resources": [row["digest"] for row in (await beta("registry.list", tenant=OF_BETA))["items"]],
        }

    async def connected(self, name: str, seed: str) -> Knock:
        nc = await connect(self.door.runtime.url, parse_seed(seed), name=name, inbox_prefix=f"_INBOX.{name}")
        self._stack.push_async_callback(nc.close)
        knock = Knock(name, nc)

        async def told(error: Exception) -> None:
            knock.refused.put_nowait(str(error).lower())

        nc._error_cb = told
        return knock

    def verbs(self) -> frozenset[str]:
        """All verbs that the runtime serves."""
        control = self.door.runtime._control
        assert control is not None
        return frozenset(control._handlers)

    def filled(self, template: Any, names: Mapping[str, str]) -> Any:
        """Parameters with names in the places of `{…}`."""
        if isinstance(template, str):
            for word, name in names.items():
                template = template.replace(f"<{word}>", name)
            return template
        if isinstance(template, dict):
            return {key: self.filled(item, names) for key, item in template.items()}
        return [self.filled(item, names) for item in template] if isinstance(template, list) else template


@asynccontextmanager
async def built(home: Path) -> AsyncIterator[World]:
    async with House(home).open(webhooks=Listen("127.0.0.1", 0)) as door, AsyncExitStack() as stack:
        await door.apply(*documents(ACME), *documents(WORKER, tenant=OF_ACME))
        await door.apply(*documents(BETA, tenant=OF_BETA), *documents(WORKER, tenant=OF_BETA))
        beta = await door.in_tenant(OF_BETA)
        real = await _things(beta)
        yield World(door, beta, real, {word: _other(name) for word, name in real.items()}, {}, stack)


async def _things(beta: Door) -> dict[str, str]:
    """One of everything in beta, by the word that templates use."""
    done = await beta.run()
    await beta.until(done)
    waiting = await beta.run("betaagent", "post it")
    asked = (await beta.until(waiting, "waiting"))["waiting_for"]
    part = base64.b64encode(b"part of an input").decode()
    upload = await beta("session.upload", data=part)
    frozen = await beta("freeze.set", scope={"kind": "program", "name": "betaprogram"}, reason="testing")
    held = await beta("audit.hold", session=done, reason="testing")
    await beta("fs.write", place="space/betaspace", path="betafile.txt", data=part)
    verified = await beta("audit.verify")
    served = await beta("gateway.open", agent="betaagent", client={"name": "inspector", "version": "1"})
    events = await beta("session.events", session=done)
    await beta("policy.recorded", streams=True)
    entry = (await beta("fs.list", place=done))["files"][0]
    return {
        "session": done,
        "waiting": waiting,
        "call": str(asked["call"]),
        "digest": str(asked["args_digest"]),
        "upload": str(upload["upload"]),
        "freeze": str(frozen["freeze"]),
        "hold": str(held["hold"]),
        "run": str(verified["run"]),
        "served": str(served["session"]),
        "event": str(events["events"][0]["id"]),
        "file": str(entry["path"]),
        "content": str(entry["digest"]),
        "agent": "betaagent",
        "standing": "betadaemon",
        "trigger": "betatrigger",
        "secret": "betasecret",
        "space": "betaspace",
        "lock": "betaledger",
        "model": "betamodel",
        "program": "betaprogram",
        "tenant": OF_BETA,
        "principal": "beta-agent",
    }


def _other(name: str) -> str:
    """A name as long and of the same kind, that nobody has."""
    last = name[-1]
    if last.isdigit() or last in "abcdef":
        # Ids: another digit at the end, of the same alphabet.
        return name[:-1] + ("1" if last != "1" else "2")
    return name[:-1] + ("y" if last != "y" else "z")
