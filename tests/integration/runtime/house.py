"""A runtime in this process on a home of its own, with real parts: nats-server, OPA, the loop as a process, and a real client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from agentos.abi.canonical import canonical
from agentos.abi.chain import verify
from agentos.abi.syscall import Result
from agentos.boot.doors import Listen
from agentos.boot.home import Home
from agentos.boot.runtime import Runtime, open_runtime
from agentos.control.client import Client, find_identity, open_client
from agentos.control.identity import Identity
from agentos.drivers.port import CallContext, ToolSpec
from agentos.eventlog.adapters.credentials import create_seed

WIDE = {"allow_widen": True, "allow_destroy": True}

WORKER = """
apiVersion: agentos/v1
kind: Model
metadata: {name: steps}
spec:
  provider: scripted
  scripted:
    play:
      name: steps
      rules:
        - id: write
          when: "results | length < 3"
          call: [{tool: write, args: {path: "n{{ results | length }}.txt", content: "{{ goal }}"}}]
        - {id: done, when: "true", say: "{{ results | ok | length }} of {{ results | length }}"}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: write}
spec: {description: Write a file., effect: write, idempotent: true, driver: {builtin: {primitive: write}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: worker}
spec:
  instructions: Write three files.
  model: steps
  tools: [write]
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: writes}
spec: {agents: [worker], tools: [write]}
"""
"""An agent that writes n0.txt, n1.txt and n2.txt, one per turn, each with its goal in it."""


def documents(text: str, *, tenant: str | None = None) -> list[dict[str, Any]]:
    """The manifests in `text`, moved into `tenant`."""
    found = list(yaml.safe_load_all(text))
    for body in found:
        if tenant is not None and body["kind"] != "Tenant":
            body["metadata"]["tenant"] = tenant
    return found


def policy(name: str, body: str, *, mode: str = "enforce") -> dict[str, Any]:
    """A Policy of one rule; `body` is what stands between its braces."""
    rego = f"""# METADATA
# title: {name}
# description: a rule of a test
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.{name}

# METADATA
# title: no
# description: what it says
results contains {{"rule": "{name}.no", "effect": "deny", "reason": "{name} says no"}} if {{
{body}
}}
"""
    spec = {"target": "syscall", "mode": mode, "modules": [{"path": f"{name}.rego", "source": rego}]}
    return {"apiVersion": "agentos/v1", "kind": "Policy", "metadata": {"name": name}, "spec": spec}


@dataclass
class Gate:
    """Holds tool calls at the driver: `begun` counts those that arrived, each goes on when `go` is released for it."""

    only: Callable[[ToolSpec, Mapping[str, Any]], bool]
    begun: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    go: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))


@dataclass
class Door:
    """A running runtime and its operator's client."""

    runtime: Runtime
    client: Client
    stack: AsyncExitStack

    async def __call__(self, verb: str, **params: Any) -> Any:
        return await self.client.call(verb, params)

    async def apply(self, *manifests: dict[str, Any], **words: Any) -> Any:
        return await self("registry.apply", manifests=list(manifests), **{**WIDE, "reason": "test", **words})

    async def run(self, agent: str = "worker", goal: str = "hello") -> str:
        return str((await self("session.create", agent=agent, goal=goal))["session"])

    async def until(self, session: str, *states: str) -> dict[str, Any]:
        """Wait, event by event, until the session is in one of `states` (without any: until it no longer runs)."""
        seq, position = 0, 0
        while True:
            found = await self("session.get", session=session)
            if found["state"] in states or (not states and found["state"] != "running"):
                return found
            seq = found["seq"]
            more = await self("session.events", session=session, seq=seq, position=position, wait_ms=10_000)
            position = more["position"]

    async def events(self, session: str) -> list[dict[str, Any]]:
        """The session's events, whose chain is whole."""
        found = (await self("session.events", session=session))["events"]
        verify(session, [canonical({name: value for name, value in event.items() if name != "data"}) for event in found])
        return list(found)

    async def types(self, session: str) -> list[str]:
        return [event["type"].removeprefix("agentos.") for event in await self.events(session)]

    async def decisions(self, session: str) -> list[tuple[str, str, list[str]]]:
        """(tool, effect, rules) of each decision about a tool."""
        decided = [event["data"] for event in await self.events(session) if event["type"] == "agentos.syscall.decided"]
        return [
            (data["tool"], data["decision"]["effect"], data["decision"]["rules"])
            for data in decided
            if data["tool"] != "model-call"
        ]

    async def revision(self) -> int:
        return int((await self("registry.list"))["revision"])

    def hold(self, only: Callable[[ToolSpec, Mapping[str, Any]], bool]) -> Gate:
        """Hold the calls of tools that `only` picks, before the driver acts."""
        gate, act = Gate(only), self.runtime.drivers.call

        async def call(tool: ToolSpec, args: Mapping[str, Any], context: CallContext) -> Result:
            if gate.only(tool, args):
                gate.begun.release()
                await gate.go.acquire()
            return await act(tool, args, context)

        self.runtime.drivers.call = call  # type: ignore[method-assign]
        return gate

    async def as_principal(self, name: str, roles: list[str], tenant: str) -> Client:
        """Create a principal and connect as it."""
        key = create_seed(self.runtime.random)
        await self("principal.create", name=name, roles=roles, tenant=tenant, public_key=key.public_key)
        return await self.as_identity(Identity(name, tenant, key.seed))

    async def approve(self, session: str, **params: Any) -> Any:
        """Somebody else's yes to what waits: who started a session does not approve its calls."""
        somebody = await self.as_principal(f"ann-{self.runtime.random.token(4).hex()}", ["approver"], "default")
        return await somebody.call("approval.approve", {**await self.looked(session), **params})

    async def looked(self, session: str) -> dict[str, str]:
        """What an answer to a session's question is for, as `{session, call, digest}`; of none when nothing waits."""
        asked = (await self("session.get", session=session)).get("waiting_for", {"call": "none", "args_digest": "none"})
        return {"session": session, "call": asked["call"], "digest": asked["args_digest"]}

    async def as_identity(self, identity: Identity, tenant: str | None = None) -> Client:
        client = await open_client(self.runtime.url, identity, tenant=tenant)
        self.stack.push_async_callback(client.close)
        return client

    async def in_tenant(self, tenant: str) -> Door:
        """The operator, acting on another tenant."""
        identity = find_identity(self.runtime.home.root, None, None)
        return Door(self.runtime, await self.as_identity(identity, tenant), self.stack)


@dataclass(frozen=True)
class House:
    """A home; opened, closed and opened again."""

    root: Path

    @asynccontextmanager
    async def open(self, webhooks: Listen | None = None) -> AsyncIterator[Door]:
        async with open_runtime(Home(self.root), webhooks=webhooks) as runtime, AsyncExitStack() as stack:
            client = await open_client(runtime.url, find_identity(self.root, None, None))
            stack.push_async_callback(client.close)
            stop = asyncio.Event()
            served = asyncio.create_task(runtime.run_until(stop))
            try:
                yield Door(runtime, client, stack)
            finally:
                stop.set()
                await served
