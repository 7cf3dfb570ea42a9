"""A warm server with a link in memory: when it leaves, whom it is at work for, what is told of what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.credentials.lease import CredentialUnavailable
from agentos.drivers.adapters.mcp_link import Current, Link, Streams
from agentos.drivers.adapters.mcp_offer import Wanted, offer, refused
from agentos.drivers.adapters.mcp_server import AT_WORK, Call, ServerLost, ToolRefused, WarmServer
from agentos.drivers.adapters.mcp_sieve import MAX_ASKED, MAX_CHATTER, Sieve
from agentos.egress.asking import NetRequest, Permit, Scheme

SCHEMA: dict[str, Json] = {"type": "object"}
REQUEST = NetRequest(Scheme.HTTPS, "api.example.com", 443)


class Clockwork:
    """Timers that go off when the test says so."""

    def __init__(self) -> None:
        self.set: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, due: Callable[[], None]) -> Clockwork.Timer:
        self.set.append((seconds, due))
        return self.Timer(self, (seconds, due))

    def go_off(self) -> None:
        due, self.set = self.set, []
        for _, one in due:
            one()

    class Timer:
        def __init__(self, clockwork: Clockwork, what: tuple[float, Callable[[], None]]) -> None:
            self._clockwork, self._what = clockwork, what

        def cancel(self) -> None:
            if self._what in self._clockwork.set:
                self._clockwork.set.remove(self._what)


class Served:
    """A link whose server answers with `answers`, in memory; `calls` is how often it was called, `links` how often reached."""

    polite = False
    fault: str | None = None
    report: Mapping[str, Json] = {"name": "x"}

    def __init__(self, answers: Callable[[Mapping[str, Any]], Any]) -> None:
        self.answers = answers
        self.calls = self.links = 0
        self.ended = False
        self.current: Current | None = None
        self.gone = asyncio.Event()

    @asynccontextmanager
    async def connect(self, current: Current) -> AsyncIterator[Link]:
        self.links += 1
        self.current = current
        yield self
        self.gone.set()

    def last_words(self) -> str:
        return ""

    def begin(self) -> None:
        self.calls += 1

    def kill(self) -> None:
        self.ended = True

    async def farewell(self) -> None:
        return None

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[Streams]:
        to_client, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](10)
        to_server, from_client = anyio.create_memory_object_stream[SessionMessage](10)
        async with anyio.create_task_group() as group:
            group.start_soon(self._serve, group, from_client, to_client)
            try:
                yield from_server, to_server
            finally:
                for stream in (from_server, to_server):
                    stream.close()
                group.cancel_scope.cancel()

    async def _serve(self, group: Any, incoming: Any, outgoing: Any) -> None:
        with incoming, outgoing:
            async for item in incoming:
                if isinstance(item.message, JSONRPCRequest):
                    group.start_soon(self._answer, item.message, outgoing)

    async def _answer(self, message: JSONRPCRequest, outgoing: Any) -> None:
        reply = await self._reply(message)
        if reply is not None:
            await outgoing.send(SessionMessage(reply))

    async def _reply(self, message: JSONRPCRequest) -> JSONRPCResponse | JSONRPCError | None:
        about = {"serverInfo": {"name": "s", "version": "1"}, "capabilities": {"tools": {}}}
        results: dict[str, Any] = {
            "initialize": {**about, "protocolVersion": "2025-11-25"},
            "tools/list": {"tools": [{"name": "go", "inputSchema": SCHEMA}]},
        }
        if message.method == "tools/call":
            said = self.answers(message.params or {})
            said = await said if asyncio.iscoroutine(said) else said
            return None if said is None else JSONRPCResponse(jsonrpc="2.0", id=message.id, result=said)
        if message.method not in results:
            return JSONRPCError.model_validate({"jsonrpc": "2.0", "id": message.id, "error": {"code": -32601, "message": "no"}})
        return JSONRPCResponse(jsonrpc="2.0", id=message.id, result=results[message.method])


class Gate:
    """A gatekeeper that lets everything pass, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[NetRequest] = []

    async def ask(self, request: NetRequest) -> Permit:
        self.asked.append(request)
        return self

    async def finished(self, *, status: int | None, sent: int, received: int, address: str) -> None:
        return None

    async def failed(self, message: str) -> None:
        return None


def text(said: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": said}]}


def go(net: Gate | None = None, **more: Any) -> Call:
    return Call(Wanted("go", SCHEMA), {}, "s-1/call-1-1", net=net, **more)


async def test_it_leaves_when_nobody_calls() -> None:
    """One timer runs from the end of the last call, none during one; when it goes off the server leaves."""
    clockwork, served = Clockwork(), Served(lambda _: text("x"))
    server = WarmServer("s", served.connect, idle_s=60, later=clockwork)
    assert clockwork.set == []
    for _ in range(3):
        assert (await server.call(go(), 5)).content[0].text == "x"  # type: ignore[union-attr]
        await asyncio.sleep(0)
        assert [seconds for seconds, _ in clockwork.set] == [60]
    assert server.alive
    clockwork.go_off()
    assert not server.alive
    await served.gone.wait()
    assert (served.calls, served.links, clockwork.set) == (3, 1, [])
    with pytest.raises(DriverError, match="ended before the call was sent"):
        await server.call(go(), 5)


async def test_a_call_is_not_cut_short_by_leaving() -> None:
    """A server that is to leave makes the calls that it has, and takes no other."""
    clockwork, waiting = Clockwork(), asyncio.Event()

    async def slowly() -> dict[str, Any]:
        await waiting.wait()
        return text("late")

    served = Served(lambda _: slowly())
    server = WarmServer("s", served.connect, idle_s=0, later=clockwork)
    call = asyncio.create_task(server.call(go(), 5))
    while not served.calls:
        await asyncio.sleep(0)
    assert clockwork.set == []
    server.retire()
    assert not server.alive
    waiting.set()
    assert (await call).content[0].text == "late"  # type: ignore[union-attr]
    await served.gone.wait()


async def test_requests_are_those_of_the_call_at_work() -> None:
    """A server that works for one call at a time asks for that call; what the call had under way is cut before it is answered."""
    served, told = Served(lambda _: text("x")), []
    gates = [Gate(), Gate()]

    async def cut() -> None:
        assert served.current is not None
        told.append(served.current.now())

    async def asking() -> dict[str, Any]:
        assert served.current is not None
        served.current.cut = cut
        gate = served.current.now()
        assert gate is not None
        await gate.ask(REQUEST)
        return text("x")

    served.answers = lambda _: asking()
    server = WarmServer("s", served.connect, idle_s=60, alone=True)
    await asyncio.gather(*(server.call(go(gate), 5) for gate in gates))
    assert [gate.asked for gate in gates] == [[REQUEST], [REQUEST]]
    assert told == [None, None]
    assert served.current is not None
    with pytest.raises(CredentialUnavailable):
        served.current.value("github")
    with pytest.raises(CredentialUnavailable):
        served.current.keep()
    await server.stop()


async def test_calls_alone_wait_for_each_other() -> None:
    """Where requests have to be told apart the second call begins when the first one is over."""
    at_once = most = 0

    async def counted() -> dict[str, Any]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        for _ in range(10):
            await asyncio.sleep(0)
        at_once -= 1
        return text("x")

    for alone, expected in ((True, 1), (False, 3)):
        most = 0
        served = Served(lambda _: counted())
        server = WarmServer("s", served.connect, idle_s=60, alone=alone)
        await asyncio.gather(*(server.call(go(), 5) for _ in range(3)))
        assert (served.calls, most) == (3, expected)
        await server.stop()


async def test_still_is_asked_before_it_is_sent() -> None:
    """What `still` raises is raised, nothing is sent, and the server stays."""
    served = Served(lambda _: text("x"))
    server = WarmServer("s", served.connect, idle_s=60)
    sent: list[Any] = []
    served.answers = lambda params: sent.append(params) or text("x")  # type: ignore[func-returns-value]

    async def no() -> None:
        raise DriverError("not any more")

    with pytest.raises(DriverError, match="not any more"):
        await server.call(go(still=no), 5)
    assert sent == []
    await server.call(go(), 5)
    assert [one["_meta"]["agentos/idempotency-key"] for one in sent] == ["s-1/call-1-1"]
    assert server.alive
    await server.stop()
    assert AT_WORK.get() is None


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ({"content": "words"}, ServerLost, "gave an answer that is not valid"),
        ({"resultType": "input_required", "inputRequests": {}}, ServerLost, "gave an answer that is not valid"),
    ],
)
async def test_answers_that_are_none(answer: Any, kind: type[Exception], words: str) -> None:
    """An answer that is none leaves open what came of the call."""
    served = Served(lambda _: answer)
    server = WarmServer("s", served.connect, idle_s=60)
    with pytest.raises((kind, ToolRefused), match=words):
        await server.call(go(), 5)
    await server.stop()


def test_the_sieve_lets_answers_pass_and_counts_the_rest() -> None:
    """Each answer passes once, by its number or its number as text; what is no answer passes never, and is counted per call."""
    faults: list[str] = []
    sieve = Sieve(faults.append)
    sieve.sent(JSONRPCRequest(jsonrpc="2.0", id=7, method="tools/call"))
    seven = JSONRPCResponse(jsonrpc="2.0", id="7", result={})
    assert sieve.heard(JSONRPCResponse(jsonrpc="2.0", id=8, result={})) is None
    assert sieve.heard(seven) is not None
    assert sieve.heard(seven) is None
    sieve.sent(JSONRPCRequest(jsonrpc="2.0", id=9, method="tools/call"))
    sieve.sent(JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params={"requestId": 9}))
    assert sieve.heard(JSONRPCResponse(jsonrpc="2.0", id=9, result={})) is None
    sieve.begin()
    for _ in range(MAX_CHATTER):
        assert sieve.heard(JSONRPCNotification(jsonrpc="2.0", method="notifications/message")) is None
    assert faults == []
    sieve.heard(None)
    assert len(faults) == 1
    sieve.begin()
    asked = JSONRPCRequest(jsonrpc="2.0", id="a", method="roots/list")
    assert sum(sieve.heard(asked) is not None for _ in range(MAX_ASKED + 5)) == MAX_ASKED
    assert len(faults) == 6


def test_an_offer_is_all_that_a_server_says_of_a_tool() -> None:
    """Each part of the offer changes its digest; what is no part of it (icons, execution, what nobody knows) does not."""
    from mcp_types import Tool

    body: dict[str, Any] = {"name": "go", "inputSchema": SCHEMA}
    plain = Tool.model_validate(body)
    assert offer(plain) == {
        "name": "go", "title": None, "description": None, "inputSchema": SCHEMA, "outputSchema": None, "annotations": None,
    }  # fmt: skip
    parts = {
        "title": "T",
        "description": "D",
        "outputSchema": {"type": "object"},
        "annotations": {"readOnlyHint": True},
        "inputSchema": {"type": "object", "title": "x"},
    }
    offers = [offer(Tool.model_validate({**body, name: value})) for name, value in parts.items()]
    assert all(one != offer(plain) for one in offers)
    assert offer(Tool.model_validate({**body, "icons": [], "more": 1})) == offer(plain)
    assert refused(Wanted("go", SCHEMA), {"go": plain}, "s") is None
    assert refused(Wanted("go"), {"go": Tool.model_validate({**body, "inputSchema": parts["inputSchema"]})}, "s") is None
