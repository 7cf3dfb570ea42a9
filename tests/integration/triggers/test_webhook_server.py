"""The webhook server on a real socket."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from trigger_engine import Engine

from agentos.abi.errors import AgentOSError, Frozen, LogUnavailable
from agentos.boot.system import SystemRandom, SystemTimer
from agentos.boot.webhooks import Webhooks
from agentos.control.adapters import webhook_server
from agentos.control.adapters.webhook_server import WebhookServer
from agentos.control.webhook import MAX_BODY, OFTEN
from agentos.kernel.firing import Webhook

RAW = b"a secret of 24 bytes, ok"
SECRETS = {"ORDERS": "whsec_" + base64.b64encode(RAW).decode(), "CODE": "It's-a-Secret-to-Everybody", "SHORT": "whsec_MTIz"}


def engine() -> Engine:
    return Engine(orders=Webhook("shop/orders", "ORDERS"), code=Webhook("code", "CODE", "github"), odd=Webhook("odd", "SHORT"))


@asynccontextmanager
async def serving(triggers: Engine) -> AsyncIterator[WebhookServer]:
    webhooks = Webhooks(triggers, SECRETS, SystemTimer(), SystemRandom())  # type: ignore[arg-type]
    server = WebhookServer("127.0.0.1", 0, webhooks.receive)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def port_of(server: WebhookServer) -> int:
    return int(server.url.rsplit(":", 1)[1])


async def send(server: WebhookServer, raw: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    writer.write(raw)
    await writer.drain()
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


async def post(server: WebhookServer, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    answer = await send(server, "\r\n".join([*lines, "", ""]).encode() + body)
    head, _, rest = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(rest) if rest.startswith(b"{") else rest


def signed(body: bytes, name: str = "msg_1", at: int | None = None) -> dict[str, str]:
    at = SystemTimer().now_ms() // 1000 if at is None else at
    made = hmac.digest(RAW, f"{name}.{at}.".encode() + body, hashlib.sha256)
    return {
        "webhook_id": name,
        "webhook_timestamp": str(at),
        "webhook_signature": "v1," + base64.b64encode(made).decode(),
        "content_type": "application/json",
    }


async def test_a_delivery() -> None:
    """A genuine delivery fires its trigger with the body, untrusted; the same one again is the same firing."""
    triggers = engine()
    async with serving(triggers) as server:
        status, body = await post(server, "/hooks/default/shop/orders", b'{"id":1}', **signed(b'{"id":1}'))
        assert (status, body["fired"][0]["session"], body["fired"][0]["again"]) == (202, "s-1", False)
        status, body = await post(server, "/hooks/default/shop/orders", b'{"id":1}', **signed(b'{"id":1}'))
        assert (status, body["fired"][0]["again"]) == (202, True)
    (firing,) = triggers.fired
    assert (firing.trigger, firing.id, firing.payload, firing.labels) == ("orders", "msg_1", b'{"id":1}', ("untrusted",))
    assert firing.content_type == "application/json"


async def test_github_cannot_be_played_again() -> None:
    """A body that was seen once fires once, whatever the delivery calls itself."""
    triggers, body = engine(), b'{"action":"opened"}'
    sign = "sha256=" + hmac.digest(SECRETS["CODE"].encode(), body, hashlib.sha256).hex()
    async with serving(triggers) as server:
        for delivery in ("1", "2"):
            status, _ = await post(
                server, "/hooks/default/code", body, x_hub_signature_256=sign, x_github_delivery=delivery, x_github_event="issues"
            )
            assert status == 202
    assert [one.facts["claimed"] for one in triggers.fired] == [{"event": "issues", "delivery": "1"}]


async def test_unknown_and_forged_are_one(caplog: pytest.LogCaptureFixture) -> None:
    """An unknown tenant, an unknown path, a secret that cannot be used, a wrong, stale or missing signature: one answer for all,
    nothing fired, and neither body nor secret in the log, however many come."""
    triggers, body = engine(), b"canary-body"
    caplog.set_level(logging.DEBUG)
    async with serving(triggers) as server:
        answers = [
            await post(server, "/hooks/acme/shop/orders", body, **signed(body)),
            await post(server, "/hooks/default/nothing", body, **signed(body)),
            await post(server, "/hooks/default/odd", body, **signed(body)),
            await post(server, "/hooks/default/odd", body, **signed(body)),
            await post(server, "/hooks/default/shop/orders", body, **signed(b"another")),
            await post(server, "/hooks/default/shop/orders", body, **signed(body, at=1)),
            await post(server, "/hooks/default/shop/orders", body),
            await post(server, "/hooks/default/code", body, **signed(body)),
        ]
    assert {(status, json.dumps(said)) for status, said in answers} == {(401, json.dumps(answers[0][1]))}
    assert triggers.fired == []
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("agentos", "uvicorn"))]
    assert len(ours) == 2
    assert not any("canary" in line or secret in line for line in ours for secret in SECRETS.values())


async def test_not_taken_is_not_promised() -> None:
    """While the log cannot be written the sender is told to send again, and the same delivery fires then."""
    triggers = engine()
    async with serving(triggers) as server:
        triggers.broken = LogUnavailable("the log does not answer")
        status, _ = await post(server, "/hooks/default/shop/orders", b"x", **signed(b"x"))
        assert status == 503
        triggers.broken = None
        assert (await post(server, "/hooks/default/shop/orders", b"x", **signed(b"x")))[0] == 202
    assert len(triggers.fired) == 1


async def test_too_large() -> None:
    """A body beyond the bound is refused before it is read, by its length or, sent in chunks, once it has grown too long."""
    triggers = engine()
    async with serving(triggers) as server:
        head = b"POST /hooks/default/code HTTP/1.1\r\nhost: x\r\n"
        assert b" 413 " in await send(server, head + f"content-length: {MAX_BODY + 1}\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        chunks = chunk * (MAX_BODY // 65536) + b"1\r\nx\r\n"
        assert b" 413 " in await send(server, head + b"transfer-encoding: chunked\r\n\r\n" + chunks)
        body = b"x" * MAX_BODY
        assert (await post(server, "/hooks/default/shop/orders", body, **signed(body)))[0] == 202


async def test_slow_clients_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that never ends, a body that never ends, and a connection that is kept for nothing are closed."""
    monkeypatch.setattr(webhook_server, "HEAD_S", 0.2)
    monkeypatch.setattr(webhook_server, "BODY_S", 0.2)
    async with serving(engine()) as server:
        assert await send(server, b"POST /hooks/default/code HT") == b""
        assert b" 408 " in await send(server, b"POST /hooks/default/code HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nab")
        assert b" 404 " in await send(server, b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HT")


async def test_too_often() -> None:
    """Genuine deliveries beyond the rate are put off; forged ones do not use it up."""
    triggers = engine()
    async with serving(triggers) as server:
        for _ in range(3):
            await post(server, "/hooks/default/shop/orders", b"x", **signed(b"y"))
        statuses = [
            (await post(server, "/hooks/default/shop/orders", b"x", **signed(b"x", name=f"m-{number}")))[0]
            for number in range(int(OFTEN.burst) + 60)
        ]
    assert statuses[: int(OFTEN.burst)] == [202] * int(OFTEN.burst)
    assert 429 in statuses


async def test_a_place_that_is_taken() -> None:
    """Where it cannot listen it says so."""
    async with serving(engine()) as server:
        with pytest.raises(AgentOSError, match="cannot listen"):
            await WebhookServer("127.0.0.1", port_of(server), lambda _: None).start()  # type: ignore[arg-type,return-value]


async def test_who_says_nothing_takes_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that nobody sends a request on are bounded as well: beyond that they are closed at once, and descriptors are
    left for the runtime itself."""
    monkeypatch.setattr(webhook_server, "MAX_OPEN", 20)
    async with serving(engine()) as server:
        idle = [await asyncio.open_connection("127.0.0.1", port_of(server)) for _ in range(60)]

        async def closed(reader: asyncio.StreamReader) -> bool:
            try:
                async with asyncio.timeout(2):
                    return await reader.read(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        assert sum(await asyncio.gather(*(closed(reader) for reader, _ in idle))) >= 40
        for _, writer in idle:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        async with asyncio.timeout(10):
            while server._server is None or server._server.server_state.connections:
                await asyncio.sleep(0.01)
        status, _ = await post(server, "/hooks/default/shop/orders", b"x", **signed(b"x"))
        assert status == 202


async def test_the_words_of_a_freeze_are_not_for_senders() -> None:
    """A sender hears that it is to come again, and nothing of who has stopped what, and why."""
    triggers = engine()
    triggers.broken = Frozen("tenant default is frozen by principal/ann: keys of customer X leaked", where="f-1")
    async with serving(triggers) as server:
        status, body = await post(server, "/hooks/default/shop/orders", b"x", **signed(b"x"))
    assert (status, body) == (503, {"error": "the delivery cannot be taken now"})


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /hooks/default/code HTTP/1.1\r\nhost: x\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\nx",
        b"POST /hooks/default/code HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"POST /hooks/default/%ff%00%0a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx",
        b"POST /hooks/../default/code HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx",
        b"POST /hooks/default/code HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 9\r\n\r\n1\r\nx\r\n0\r\n",
        b"POST http://[ HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx",
        b"POST /hooks/default/code HTTP/1.1\r\nhost: x\r\nx-hub-signature-256: sha256=\xff\xe9\r\ncontent-length: 1\r\n\r\nx",
        b"POST /hooks/default/code HTTP/1.1\r\nhost: x\r\nwebhook-signature: v1,\xe9 v1,\xff\r\ncontent-length: 1\r\n\r\nx",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    ],
)
async def test_no_request_is_odd_enough_to_break_it(raw: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever comes is refused by a client error, with nothing of it in the log, and the next one is served."""
    triggers = engine()
    async with serving(triggers) as server:
        answer = await send(server, raw)
        assert answer == b"" or answer.split(b" ")[1][:1] == b"4", answer[:100]
        assert (await post(server, "/hooks/default/shop/orders", b"x", **signed(b"x")))[0] == 202
    assert [record.exc_info for record in caplog.records if record.exc_info] == []
    assert len(triggers.fired) == 1
