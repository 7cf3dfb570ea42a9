"""What an agent's tools, and whoever stands outside, can find out about another tenant; and what each tenant has for itself."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections import Counter
from typing import Any

import pytest
from adversarial_world import HOOK_SECRETS, OF_BETA, OWN, World
from house import Door

from agentos.eventlog.blob import LogBlobs
from agentos.eventlog.sealed import SealedLog
from agentos.eventlog.subject import session_subject

pytestmark = pytest.mark.asyncio(loop_scope="session")

GAMMA = """
apiVersion: agentos/v1
kind: Tenant
metadata: {name: gamma}
spec: {spaces: [{name: betaspace}]}
---
apiVersion: agentos/v1
kind: Trigger
metadata: {name: gammahook}
spec: {agent: worker, goal: A delivery came., "on": {webhook: {path: gammahook, secretEnv: GAMMA_HOOK}}}
"""

PROBER = """
apiVersion: agentos/v1
kind: Tool
metadata: {name: lock}
spec: {description: Take a lock., effect: write, driver: {builtin: {primitive: lock}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: signal}
spec: {description: Send a signal., effect: write, driver: {builtin: {primitive: signal}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: read}
spec: {description: Read a file., effect: read, driver: {builtin: {primitive: read}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: read-space}
spec: {description: Read a shared file., effect: read, driver: {builtin: {primitive: read, space: betaspace}}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: hand-over}
spec: {description: Hand work over., effect: write, driver: {delegate: {agents: [worker, prober]}}}
---
apiVersion: agentos/v1
kind: Model
metadata: {name: prober}
spec:
  provider: scripted
  scripted:
    play:
      name: prober
      rules:
        - {id: one, when: "turn == 1", call: [{tool: signal, args: {name: go, session: "{{ goal }}"}}]}
        - {id: two, when: "turn == 2", call: [{tool: signal, args: {name: go, agent: "{{ goal }}"}}]}
        - {id: three, when: "turn == 3", call: [{tool: lock, args: {resource: "{{ goal }}"}}]}
        - {id: four, when: "turn == 4", call: [{tool: hand-over, args: {agent: "{{ goal }}", goal: Help.}}]}
        - {id: five, when: "turn == 5", call: [{tool: read, args: {path: "../../beta/{{ goal }}/x"}}]}
        - {id: six, when: "turn == 6", call: [{tool: read-space, args: {path: "{{ goal }}"}}]}
        - {id: seven, when: "turn == 7", call: [{tool: "{{ goal }}", args: {}}]}
        - {id: done, when: "true", say: done}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: prober}
spec:
  instructions: Try.
  model: prober
  tools: [lock, signal, read, read-space, hand-over]
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: probes}
spec: {agents: [prober], tools: [lock, signal, read, read-space, hand-over]}
"""


async def _tried(gamma: Door, name: str) -> list[tuple[str, Any]]:
    """What came of each call of a session that tries `name`, in words that are not of this session alone."""
    session = await gamma.run("prober", name)
    ended = await gamma.until(session)
    assert ended["state"] == "finished", ended
    found = []
    for event in await gamma.events(session):
        kind = event["type"].removeprefix("agentos.syscall.")
        if kind in {"refused", "decided", "finished", "failed"} and event["data"].get("tool") != "model-call":
            told = {key: value for key, value in event["data"].items() if key in {"decision", "error", "result"}}
            found.append((kind, OWN.sub("(own)", json.dumps(told, sort_keys=True).replace(name, "(name)"))))
    return found


async def test_no_tool_of_an_agent_tells_what_another_tenant_has(world: World) -> None:
    """Signals, delegations, locks and files, by names of beta and by such that nobody has: the same comes of both."""
    gamma = await world.tenant("gamma", GAMMA + "---" + PROBER)
    before = await world.of_beta()
    for word in ("session", "waiting", "agent", "standing", "lock", "file"):
        theirs, nobodys = await asyncio.gather(*(_tried(gamma, names[word]) for names in (world.real, world.ghost)))
        assert theirs == nobodys, word
        assert Counter(kind for kind, _ in theirs if kind in {"decided", "refused"}) == {"decided": 5, "refused": 2}
    assert await world.of_beta() == before


async def _delivered(world: World, place: str, secret: str) -> tuple[int, str]:
    """Status and body of the answer to a delivery at `/hooks/<place>`, signed by the secret in that variable."""
    at, body = world.door.runtime.timer.now_ms() // 1000, b"{}"
    key = base64.b64decode(HOOK_SECRETS[secret].removeprefix("whsec_"))
    signed = base64.b64encode(hmac.digest(key, f"msg_{place}.{at}.".encode() + body, hashlib.sha256)).decode()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(world.door.runtime.doors.url.rsplit(":", 1)[1]))
    lines = (
        f"POST /hooks/{place} HTTP/1.1",
        "host: x",
        f"content-length: {len(body)}",
        f"webhook-id: msg_{place}",
        f"webhook-timestamp: {at}",
        f"webhook-signature: v1,{signed}",
    )
    writer.write("\r\n".join((*lines, "", "")).encode() + body)
    answer = await reader.read()
    writer.close()
    head, _, told = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), told.decode()


async def test_a_secret_of_one_tenant_opens_no_webhook_of_another(world: World) -> None:
    """A path of beta, one that it has not, and one of a tenant that is not there: one answer; gamma's own path alone is open."""
    await world.tenant("gamma", GAMMA)
    places = ("beta/betahook", "beta/betahool", f"{world.ghost['tenant']}/betahook", "gamma/betahook", "beta/gammahook")
    answers = {place: await _delivered(world, place, "GAMMA_HOOK") for place in places}
    assert len(set(answers.values())) == 1, answers
    assert answers["beta/betahook"][0] == 401
    assert (await _delivered(world, "gamma/gammahook", "BETA_HOOK")) == answers["beta/betahook"]
    assert (await _delivered(world, "gamma/gammahook", "GAMMA_HOOK"))[0] == 202


async def test_a_tenants_operator_names_no_variable_of_the_runtime(world: World) -> None:
    """A webhook with the secret of another tenant, or of the runtime: refused in the same words as one that is not there."""
    knock = await world.knock("operator", "acme")
    told = set()
    for variable in ("BETA_HOOK", "PATH", "NO_SUCH_VARIABLE"):
        spec = {"agent": "worker", "goal": "Try.", "on": {"webhook": {"path": "try", "secretEnv": variable}}}
        body = {"apiVersion": "agentos/v1", "kind": "Trigger", "metadata": {"name": "try", "tenant": "acme"}, "spec": spec}
        answer = await knock("registry.apply", {"manifests": [body], "allow_widen": True})
        assert (answer.code, answer.body["error"]["rules"]) == ("denied", ["host.webhook"])
        told.add(answer.text(variable))
    assert len(told) == 1


async def test_each_tenant_has_its_own_keys(world: World) -> None:
    """What beta has stored is not in the clear, and is not opened by another tenant's keys."""
    beta, acme = (world.door.runtime.tenants.get(name) for name in (OF_BETA, "acme"))
    subject = session_subject(world.real["session"])
    opened = [stored.data async for stored in beta.log.read(subject)]
    sealed = [stored.data async for stored in beta.streams.read(subject)]
    assert b"hello" in b"".join(opened)
    assert b"hello" not in b"".join(sealed)
    others = SealedLog(beta.streams, acme.keys, LogBlobs(beta.streams), world.door.runtime.random)
    unopened = [stored.data async for stored in others.read(subject)]
    assert len(unopened) == len(opened)
    assert b"hello" not in b"".join(unopened)


async def test_what_one_tenant_uses_up_another_has(world: World) -> None:
    """A tenant's budget of two calls for the day: its third is refused, and beta, with the same agent, makes all of its own."""
    spec = "apiVersion: agentos/v1\nkind: Tenant\nmetadata: {name: poor}\nspec: {budget: {perDay: {calls: 2}}}\n"
    poor = await world.tenant("poor", spec)
    ended = await poor.until(await poor.run())
    assert ended["result"] == "2 of 3"
    done = await world.beta.until(await world.beta.run())
    assert done["result"] == "3 of 3"
    accounts = (await world.beta("budget.list"))["accounts"]
    assert not [one for one in accounts if one["kind"] == "tenant" and one["limit"] is not None]
