"""The control service and its client over a real server: who asks, what comes back, and what a stranger can do."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from nats.aio.client import Client

from agentos.abi.decision import Decision, deny
from agentos.abi.errors import (
    AgentOSError,
    ChainBroken,
    Conflict,
    Denied,
    DriverError,
    EngineUnavailable,
    EvidenceError,
    IdentityError,
    LogUnavailable,
    ManifestError,
    NotFound,
    OutcomeUnknown,
    PolicyError,
    SequenceConflict,
    Unavailable,
    UsageError,
)
from agentos.control import wire
from agentos.control.adapters import nats_service
from agentos.control.adapters.nats_client import NatsClient
from agentos.control.adapters.nats_service import ControlService
from agentos.control.authorize import Authorize
from agentos.control.identity import Identity
from agentos.control.principal import Caller
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import NKey
from agentos.eventlog.adapters.nats_server import NatsServer
from agentos.eventlog.adapters.server_config import Account, User
from agentos.registry.principal import Principal

NAMES = ("ann", "bob", "gone", "stranger", "guest")


class Known:
    """The principals, as the service looks them up."""

    def __init__(self, *principals: Principal) -> None:
        self._known = {one.name: one for one in principals}

    async def get(self, name: str) -> Principal:
        if name not in self._known:
            raise NotFound(f"no principal {name}")
        return self._known[name]


class Policy:
    """Allows everything but the verb `forbidden`."""

    async def decide(self, document: dict[str, Any]) -> Decision:
        from agentos.abi.decision import Verdict

        if document["verb"] == "forbidden":
            return deny("roles.missing", "only an operator may")
        return Decision(Verdict.ALLOW, ("roles.allowed",))


@dataclass
class Office:
    """A served account: its verbs can be replaced, `asked` is what reached them."""

    url: str
    keys: dict[str, NKey]
    runtime: Client
    service: ControlService
    open: list[Any]
    asked: list[tuple[Caller, dict[str, Any]]] = field(default_factory=list)
    verb: Callable[[Caller, dict[str, Any]], Awaitable[Any]] | None = None

    async def handle(self, caller: Caller, params: dict[str, Any]) -> Any:
        self.asked.append((caller, params))
        if self.verb is not None:
            return await self.verb(caller, params)
        return {"echo": params, "actor": caller.actor}

    async def client(self, name: str = "ann", tenant: str | None = None) -> NatsClient:
        client = await NatsClient.connect(self.url, Identity(name, "*", self.keys[name].seed), tenant)
        self.open.append(client)
        return client

    async def raw(self, name: str) -> Client:
        """A connection with the rights of a principal and none of the client's manners."""
        client = await connect(self.url, self.keys[name], name=name, inbox_prefix=f"_INBOX.{name}")
        self.open.append(client)
        return client


Serve = Callable[..., Awaitable[Office]]


@pytest.fixture
async def serve(log_server: NatsServer, new_key: Callable[[], NKey]) -> AsyncIterator[Serve]:
    made: list[Office] = []

    async def enter(account: str = "*") -> Office:
        runtime, keys = new_key(), {name: new_key() for name in NAMES}
        users = [User(key.public_key, (f"ctl.{name}.>",), (f"_INBOX.{name}.>",)) for name, key in keys.items()]
        accounts = (*log_server.config.accounts, Account(f"C-{runtime.public_key[:20]}", (User(runtime.public_key), *users)))
        await log_server.reload(replace(log_server.config, accounts=accounts))
        nc = await connect(log_server.url, runtime, name="runtime", inbox_prefix="_INBOX.runtime")
        person = Principal("ann", account, ("operator",), keys["ann"].public_key, 0, "system/kernel")
        known = Known(
            person,
            replace(person, name="bob"),
            replace(person, name="gone", revoked_ms=1, revoked_by="principal/ann", revoked_reason="left"),
            replace(person, name="guest", tenant="elsewhere"),
        )
        office = Office(log_server.url, keys, nc, None, [])  # type: ignore[arg-type]
        handlers = dict.fromkeys(("echo", "session.get", "forbidden"), office.handle)
        office.service = ControlService(handlers, known, Authorize(Policy()))  # type: ignore[arg-type]
        await office.service.serve(nc, account)
        await nc.flush()
        made.append(office)
        return office

    yield enter
    for office in made:
        await office.service.close()
        for client in office.open:
            await client.close()
        await office.runtime.close()


async def test_a_verb_is_called_with_who_asks(serve: Serve) -> None:
    """Name, roles and tenant come from the principal that the server authenticated, not from the request."""
    office = await serve()
    client = await office.client("ann", tenant="acme")
    answer = await client.call("session.get", {"x": "ö", "n": [1, None]})
    assert answer == {"echo": {"x": "ö", "n": [1, None]}, "actor": "principal/ann"}
    assert office.asked == [(Caller("ann", ("operator",), "acme", fleet=True), {"x": "ö", "n": [1, None]})]
    assert (await (await office.client("bob")).call("echo", {}))["actor"] == "principal/bob"
    assert office.asked[-1][0].tenant == "default"


async def test_many_calls_of_one_connection_do_not_mix(serve: Serve) -> None:
    """Each caller gets the answer to its own question."""
    client = await (await serve()).client()
    answers = await asyncio.gather(*(client.call("echo", {"n": number}) for number in range(50)))
    assert [answer["echo"]["n"] for answer in answers] == list(range(50))


async def test_a_large_answer_comes_whole(serve: Serve) -> None:
    """More than one message holds, compressed, arrives in parts and is put together."""
    office = await serve()
    text = os.urandom(10 * 1024 * 1024).hex()

    async def large(_caller: Caller, _params: dict[str, Any]) -> Any:
        return {"text": text}

    office.verb = large
    assert len(wire.encode({"text": text})[0]) > office.runtime.max_payload
    assert await (await office.client()).call("echo", {}) == {"text": text}


async def test_a_request_that_no_message_holds_is_refused_before_it_is_sent(serve: Serve) -> None:
    """The client says what to do instead of being cut off by the server; the connection goes on."""
    client = await (await serve()).client()
    with pytest.raises(UsageError, match="this server takes 8388608"):
        await client.call("echo", {"text": os.urandom(9 * 1024 * 1024).hex()})
    assert (await client.call("echo", {"n": 1}))["echo"] == {"n": 1}


ERRORS = [
    AgentOSError("m", where="w", mend="d"),
    ManifestError("m", faults=[{"text": "a.yaml:1:1: wrong"}]),
    PolicyError("m", where="p.rego:3"),
    EngineUnavailable("m"),
    NotFound("m\nsecond line", mend="list them"),
    IdentityError("m"),
    EvidenceError("m"),
    Unavailable("m"),
    LogUnavailable("m"),
    ChainBroken("m"),
    DriverError("m"),
    OutcomeUnknown("m"),
    Denied("m", rules=("a", "b"), reasons=("because", "ö")),
    Conflict("m"),
    SequenceConflict("m"),
    UsageError("m" * 5000),
]


async def test_an_error_is_raised_again_as_its_class(serve: Serve) -> None:
    """Every class comes out of the client as it went into the service, with all its fields."""
    office = await serve()
    client = await office.client()
    for error in ERRORS:

        async def fail(_caller: Caller, _params: dict[str, Any], error: AgentOSError = error) -> Any:
            raise error

        office.verb = fail
        with pytest.raises(AgentOSError) as caught:
            await client.call("echo", {})
        assert type(caught.value) is type(error)
        assert caught.value.to_dict() == error.to_dict()


async def test_an_unexpected_failure_is_logged_and_not_told(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """The client learns that the runtime failed; what failed stands in the runtime's log only."""
    office = await serve()

    async def fail(_caller: Caller, _params: dict[str, Any]) -> Any:
        raise RuntimeError("the password is swordfish")

    office.verb = fail
    with caplog.at_level(logging.ERROR), pytest.raises(AgentOSError) as caught:
        await (await office.client()).call("echo", {})
    assert type(caught.value) is AgentOSError
    assert "swordfish" not in str(caught.value.to_dict())
    assert "swordfish" in caplog.text
    assert "echo by ann failed unexpectedly" in caplog.text


async def test_a_denial_says_which_rule_and_nothing_runs(serve: Serve) -> None:
    """What policy refuses never reaches the verb."""
    office = await serve()
    with pytest.raises(Denied) as caught:
        await (await office.client()).call("forbidden", {})
    assert (caught.value.rules, caught.value.reasons) == (("roles.missing",), ("only an operator may",))
    assert office.asked == []


@pytest.mark.parametrize("name", ["stranger", "gone", "guest"])
async def test_who_is_not_a_principal_of_the_account_is_refused(serve: Serve, name: str) -> None:
    """A user of the server that is no principal, a revoked one, and one of another account: the same words for each."""
    office = await serve()
    with pytest.raises(IdentityError, match=f"principal {name} is not known here"):
        await (await office.client(name)).call("echo", {})
    assert office.asked == []


async def test_a_tenants_principal_acts_on_its_tenant_only(serve: Serve) -> None:
    """Its own name or none is its tenant; any other is denied, be it the fleet's."""
    office = await serve("acme")
    assert (await (await office.client("ann", "acme")).call("echo", {}))["actor"] == "principal/ann"
    await (await office.client("ann")).call("echo", {})
    assert {(caller.tenant, caller.fleet) for caller, _ in office.asked} == {("acme", False)}
    for tenant in ("default", "*", ""):
        with pytest.raises(Denied, match="may not act on"):
            await (await office.client("ann", tenant)).call("echo", {})
    assert len(office.asked) == 2


async def test_a_reply_goes_to_the_askers_inbox_or_nowhere(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A principal cannot make the runtime write into the log, another's inbox, or anywhere it may not write itself."""
    office = await serve()
    spy = await office.runtime.subscribe(">")
    await office.runtime.flush()
    ann = await office.raw("ann")
    bad = [
        "ev.0.s-1",
        "_INBOX.bob.x",
        "_INBOX.runtime.x",
        "_INBOX.ann",
        "reg.revision",
        "$JS.API.STREAM.PURGE.EV_0",
        "ctl.gone.echo",
    ]
    with caplog.at_level(logging.WARNING):
        for reply in bad:
            await ann.publish("ctl.ann.echo", b'{"params":{}}', reply=reply)
        await ann.publish("ctl.ann.echo", b'{"params":{}}')
        # Requests of one connection to one verb are taken in order: when this is answered, the others were looked at.
        await ann.flush()
        await (await office.client("ann")).call("echo", {"last": True})
        await (await office.client("bob")).call("echo", {"last": True})
    assert [params for _, params in office.asked] == [{"last": True}, {"last": True}]
    seen = set()
    await office.runtime.flush()
    while spy.pending_msgs:
        seen.add((await spy.next_msg()).subject)
    assert not seen & set(bad)
    assert caplog.text.count("which is not its inbox: dropped") == len(bad) + 1


async def test_nobody_asks_in_anothers_name(serve: Serve) -> None:
    """The server refuses a request below another principal's name; the verb never hears of it."""
    office = await serve()
    ann = await office.raw("ann")
    refused = asyncio.Event()

    async def told(error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            refused.set()

    ann._error_cb = told
    await ann.publish("ctl.bob.echo", b'{"params":{}}', reply="_INBOX.ann.x")
    async with asyncio.timeout(10):
        await refused.wait()
    await (await office.client("bob")).call("echo", {"mine": True})
    assert [params for _, params in office.asked] == [{"mine": True}]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b'{"params": []}', b"{}", b'{"params": {}, "tenant": 5}', b"\xff", b"[" * 50_000],
    ids=range(10),
)
async def test_a_request_that_is_none_is_a_usage_error(serve: Serve, body: bytes) -> None:
    """Whatever the bytes are, the asker is told, and nothing runs."""
    office = await serve()
    ann = await office.raw("ann")
    inbox = "_INBOX.ann.here"
    answers = await ann.subscribe(inbox)
    await ann.publish("ctl.ann.echo", body, reply=inbox)
    message = await answers.next_msg(timeout=10)
    assert wire.decode(message.data, message.headers)["error"]["code"] == "usage"
    assert message.headers["Nats-Service-Error-Code"] == "usage"
    assert office.asked == []


@dataclass
class Hold:
    """A verb that answers when it is let go; `begun` counts who waits."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def __call__(self, _caller: Caller, params: dict[str, Any]) -> Any:
        self.begun.release()
        await self.go.wait()
        return params


async def test_a_flood_is_refused_and_what_is_under_way_goes_on(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound requests are refused at once; those within it are answered, and then there is room again."""
    monkeypatch.setattr(nats_service, "MAX_OPEN", 4)
    office, hold = await serve(), Hold()
    office.verb = hold
    client = await office.client()
    held = [asyncio.create_task(client.call("echo", {"n": number})) for number in range(4)]
    for _ in held:
        await hold.begun.acquire()
    for number in range(6):
        with pytest.raises(AgentOSError, match="the runtime is busy"):
            await client.call("echo", {"n": number}, within=0.2)
    hold.go.set()
    assert await asyncio.gather(*held) == [{"n": number} for number in range(4)]
    assert await client.call("echo", {"n": 11}) == {"n": 11}


async def test_the_kill_switch_does_not_wait_behind_a_flood(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing else is taken any more, by this principal or at all, what is urgent still is; up to a bound of its own."""
    monkeypatch.setattr(nats_service, "MAX_OPEN", 2)
    monkeypatch.setattr(nats_service, "MAX_OPEN_EACH", 2)
    monkeypatch.setattr(nats_service, "RESERVED", 1)
    office, hold = await serve(), Hold()
    office.verb = hold
    client = await office.client()
    held = [asyncio.create_task(client.call("echo", {})) for _ in range(2)]
    for _ in held:
        await hold.begun.acquire()
    with pytest.raises(AgentOSError, match="the runtime is busy"):
        await client.call("echo", {}, within=0.2)
    monkeypatch.setattr(nats_service, "URGENT_VERBS", frozenset({"echo"}))
    held.append(asyncio.create_task(client.call("echo", {})))
    await hold.begun.acquire()
    with pytest.raises(AgentOSError, match="the runtime is busy"):
        await client.call("echo", {}, within=0.2)
    hold.go.set()
    await asyncio.gather(*held)


async def test_a_script_that_asks_a_thousand_times_at_once_is_served(serve: Serve) -> None:
    """More than the runtime takes of one principal at a time, and than the server lets it listen for: each waits for its turn."""
    office, hold = await serve(), Hold()
    office.verb = hold
    hold.go.set()
    client = await office.client()
    answers = await asyncio.gather(*(client.call("echo", {"n": number}) for number in range(1200)))
    assert [answer["n"] for answer in answers] == list(range(1200))


async def test_who_is_told_that_it_is_busy_asks_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that finds no room is served once there is some, without a word of its own."""
    monkeypatch.setattr(nats_service, "MAX_OPEN", 1)
    office, hold = await serve(), Hold()
    office.verb = hold
    client = await office.client()
    held = asyncio.create_task(client.call("echo", {"n": 1}))
    await hold.begun.acquire()
    later = asyncio.create_task(client.call("echo", {"n": 2}))
    await asyncio.wait([later], timeout=0.3)
    assert not later.done()
    hold.go.set()
    assert [await held, await later] == [{"n": 1}, {"n": 2}]


async def test_a_burst_is_served_up_to_the_bound(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of requests that arrive together as many are served as there is room for; only the rest is refused."""
    monkeypatch.setattr(nats_service, "MAX_OPEN", 4)
    office, hold = await serve(), Hold()
    office.verb = hold
    hold.go.set()
    ann = await office.raw("ann")
    answers = await ann.subscribe("_INBOX.ann.*")
    for number in range(10):
        await ann.publish("ctl.ann.echo", b'{"params":{}}', reply=f"_INBOX.ann.{number}")
    told = [wire.decode((message := await answers.next_msg(timeout=10)).data, message.headers) for _ in range(10)]
    assert sum("result" in answer for answer in told) >= 4


async def test_a_verb_that_nobody_serves_is_said_at_once(serve: Serve) -> None:
    """No waiting for a time-out: the server knows that nobody listens."""
    client = await (await serve()).client()
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="no runtime listens"):
            await client.call("no.such.verb", {}, within=60)


async def test_an_answer_that_does_not_come_is_said(serve: Serve) -> None:
    """After the time that the caller gives, Unavailable; the connection goes on."""
    office = await serve()
    never = asyncio.Event()

    async def hang(_caller: Caller, _params: dict[str, Any]) -> Any:
        await never.wait()

    office.verb = hang
    client = await office.client()
    with pytest.raises(Unavailable, match=r"did not answer echo within 0\.05 s"):
        await client.call("echo", {}, within=0.05)
    office.verb = None
    assert (await client.call("echo", {"n": 1}))["echo"] == {"n": 1}


async def test_closing_ends_what_is_under_way(serve: Serve) -> None:
    """`close` waits until every verb has been cancelled; later requests find nobody."""
    office = await serve()
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(_caller: Caller, _params: dict[str, Any]) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    office.verb = hang
    client = await office.client()
    call = asyncio.create_task(client.call("echo", {}))
    await begun.wait()
    await office.service.close()
    assert ended.is_set()
    await office.runtime.flush()
    with pytest.raises(Unavailable, match="no runtime listens"):
        await client.call("echo", {})
    call.cancel()
    await asyncio.wait([call])


async def test_a_refused_key_is_an_identity_error(serve: Serve, new_key: Callable[[], NKey]) -> None:
    """A seed that the server does not know: no retry, no time-out, and no seed in the message."""
    office = await serve()
    key = new_key()
    with pytest.raises(IdentityError) as caught:
        await NatsClient.connect(office.url, Identity("ann", "*", key.seed), None)
    assert key.seed not in str(caught.value.to_dict())
