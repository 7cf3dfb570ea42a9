"""`Outbound` against real servers on this machine: asked, pinned, verified, bounded, told of."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agentos.abi.errors import DriverError, LogUnavailable
from agentos.egress.adapters.outbound import Outbound
from agentos.egress.asking import NetDenied, Scheme
from agentos.egress.outbound import Bounds, HeaderCredential, Unasked

LOOPBACK = ("127.0.0.0/8",)
CANARY = "canary-5f0c9b1e"


def client(gate: Any, **more: Any) -> httpx2.AsyncClient:
    more.setdefault("private", LOOPBACK)
    return httpx2.AsyncClient(transport=Outbound(lambda: gate, **more), timeout=10)


def bearer(*hosts: str, header: str = "Authorization") -> HeaderCredential:
    return HeaderCredential(header, lambda: f"Bearer {CANARY}", hosts)


async def test_asks_normalised_and_sends_the_same(gate: Any, site: Any) -> None:
    """What is asked about is what the server gets: host, path in one form, and the query as it was."""
    async with client(gate) as http:
        response = await http.post(f"http://127.1:{site.port}//a/../b/%7Ec/?q=%2F", json={"x": 1})
    asked = gate.asked[0]
    assert (asked.scheme, asked.host, asked.port, asked.method, asked.path) == (
        Scheme.HTTP, "127.0.0.1", site.port, "POST", "/b/~c/",
    )  # fmt: skip
    seen = response.json()
    assert (seen["method"], seen["target"], seen["body"]) == ("POST", "/b/~c/?q=%2F", 7)
    assert [value for name, value in seen["headers"] if name == "host"] == [f"127.0.0.1:{site.port}"]
    assert gate.outcomes[0]["status"] == 200
    assert gate.outcomes[0]["address"] == "127.0.0.1"
    assert gate.outcomes[0]["received"] > len(response.content)


async def test_verifies_tls_by_the_name(gate: Any, secure_site: Any, trust: ssl.SSLContext, resolver: Any) -> None:
    """The connection goes to the checked address, the certificate has to be that of the name."""
    async with client(gate, tls=trust, resolver=resolver) as http:
        good = await http.get(f"https://api.test:{secure_site.port}/x")
        assert good.status_code == 200
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            await http.get(f"https://other.test:{secure_site.port}/x")
    async with client(gate, resolver=resolver) as http:
        with pytest.raises(httpx2.ConnectError, match="not to be trusted"):
            await http.get(f"https://api.test:{secure_site.port}/x")
    assert len(secure_site.seen) == 1
    assert [type(one) for one in gate.outcomes] == [dict, str, str]


async def test_nobody_to_ask_means_no(site: Any) -> None:
    """Without a gatekeeper nothing leaves."""
    async with client(None) as http:
        with pytest.raises(NetDenied):
            await http.get(f"http://127.0.0.1:{site.port}/")
    assert site.connections == 0


async def test_denied_before_any_name_is_looked_up(gate: Any, site: Any) -> None:
    """A request that policy denies causes no look-up and no connection, and is not told of again."""
    looked_up = []

    async def find(host: str, port: int) -> Sequence[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    gate.refuses = lambda _: "denied by policy (network.undeclared): no"
    async with client(gate, resolver=find) as http:
        with pytest.raises(NetDenied, match=r"network\.undeclared"):
            await http.get(f"http://api.test:{site.port}/")
    assert (looked_up, site.connections, gate.ended) == ([], 0, [])


async def test_a_request_that_cannot_be_recorded_does_not_leave(gate: Any, site: Any) -> None:
    """What the gatekeeper raises reaches the caller as it is."""
    gate.refuses = lambda _: LogUnavailable("the log is not there")
    async with client(gate) as http:
        with pytest.raises(LogUnavailable):
            await http.get(f"http://127.0.0.1:{site.port}/")
    assert site.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://2130706433:{port}/",
        "http://0x7f.1:{port}/",
        "http://017700000001:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://[64:ff9b::7f00:1]:{port}/",
        "http://0.0.0.0:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://api.test:{port}/",
    ],
)
async def test_private_addresses_in_every_form(gate: Any, site: Any, url: str, resolver: Any) -> None:
    """Without `private`, no way of writing an address of this machine reaches it, and each attempt is recorded."""
    find = resolver if "test" in url else None
    async with client(gate, private=(), **({"resolver": find} if find else {})) as http:
        with pytest.raises(NetDenied):
            await http.get(url.format(port=site.port))
    assert site.connections == 0
    assert len(gate.asked) == len(gate.ended) == 1


async def test_rebinding_gains_nothing(gate: Any, site: Any) -> None:
    """A name is looked up once per request, and the connection goes to what was checked then."""
    answers = [["127.0.0.1"], ["169.254.169.254"]]

    async def find(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    async with client(gate, resolver=find) as http:
        assert (await http.get(f"http://rebind.test:{site.port}/")).status_code == 200
        assert len(answers) == 1
        with pytest.raises(NetDenied, match="metadata"):
            await http.get(f"http://rebind.test:{site.port}/")
    assert site.connections == 1


async def test_one_bad_answer_refuses_all(gate: Any, site: Any) -> None:
    """A name that leads to a public and a private address leads nowhere."""

    async def find(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1", "10.0.0.1"]

    async with client(gate, resolver=find) as http:
        with pytest.raises(NetDenied, match=r"10\.0\.0\.1"):
            await http.get(f"http://mixed.test:{site.port}/")
    assert site.connections == 0


async def test_redirects_are_asked_about_again(gate: Any, site: Any) -> None:
    """A redirect to the metadata of a cloud is a request of its own, and is refused."""
    async with client(gate) as http:
        plain = await http.get(f"http://127.0.0.1:{site.port}/redirect?http://169.254.169.254/latest/")
        assert plain.status_code == 302
        with pytest.raises(NetDenied, match="metadata"):
            await http.get(f"http://127.0.0.1:{site.port}/redirect?http://169.254.169.254/latest/", follow_redirects=True)
    assert [one.host for one in gate.asked] == ["127.0.0.1", "127.0.0.1", "169.254.169.254"]


async def test_proxies_of_the_environment_are_ignored(gate: Any, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`HTTP_PROXY` of the runtime's own environment changes nothing."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with client(gate) as http:
        assert (await http.get(f"http://127.0.0.1:{site.port}/")).status_code == 200


async def test_credentials_go_to_their_hosts_only(gate: Any, secure_site: Any, trust: ssl.SSLContext, resolver: Any) -> None:
    """A credential replaces a header of the caller at its hosts, and appears at no other."""
    async with client(gate, tls=trust, resolver=resolver, credentials=[bearer("api.test")]) as http:
        await http.get(f"https://api.test:{secure_site.port}/", headers={"authorization": "mine"})
        await http.get(f"https://localhost:{secure_site.port}/", headers={"authorization": "mine"})
    sent = [[value for name, value in one["headers"] if name == "authorization"] for one in secure_site.seen]
    assert sent == [[f"Bearer {CANARY}"], ["mine"]]


async def test_credentials_over_plain_http_only_in_private_ranges(gate: Any, site: Any, resolver: Any) -> None:
    """Plain http carries a credential inside a declared private range, and nothing at all leaves otherwise."""
    async with client(gate, resolver=resolver, credentials=[bearer("api.test")]) as http:
        await http.get(f"http://api.test:{site.port}/")
    assert ("authorization", f"Bearer {CANARY}") in [tuple(one) for one in site.seen[0]["headers"]]


@pytest.mark.parametrize("value", ["{}\r\nX-Other: b", "{}\nb", "", " {}", "{} ", "{}\x00b", "{}\N{SNOWMAN}\x7f", "{}\ud800"])
async def test_a_credential_that_no_header_takes(gate: Any, site: Any, value: str, caplog: Any) -> None:
    """Its value is in no error, no log, and on no wire."""
    caplog.set_level(logging.DEBUG)
    credential = HeaderCredential("X-Key", lambda: value.format(CANARY), ("127.0.0.1",))
    async with client(gate, credentials=[credential]) as http:
        with pytest.raises(DriverError) as caught:
            await http.get(f"http://127.0.0.1:{site.port}/")
    assert site.seen == []
    assert CANARY not in repr(caught.value) + repr(gate.ended) + caplog.text + repr(credential)


async def test_a_credential_that_is_not_to_be_had(gate: Any, site: Any) -> None:
    """What the credential raises reaches the caller, and the gatekeeper is told."""

    def gone() -> str:
        raise DriverError("the tool cannot be used now")

    async with client(gate, credentials=[HeaderCredential("X-Key", gone, ("127.0.0.1",))]) as http:
        with pytest.raises(DriverError, match="cannot be used now"):
            await http.get(f"http://127.0.0.1:{site.port}/")
    assert site.seen == []
    assert gate.outcomes == ["the tool cannot be used now"]


async def test_what_a_server_says_is_in_no_error(gate: Any, site: Any, caplog: Any) -> None:
    """A server that sends the credential back in something that is not HTTP does not get it into an error or the log."""
    caplog.set_level(logging.DEBUG)
    async with client(gate, credentials=[bearer("127.0.0.1")]) as http:
        with pytest.raises(httpx2.ReadError) as caught:
            await http.get(f"http://127.0.0.1:{site.port}/garbage")
    error: BaseException | None = caught.value
    said = caplog.text + repr(gate.ended)
    while error is not None:
        said += repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert CANARY not in said


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/size?1000001", httpx2.ReadError),
        ("/chunks?200000", httpx2.ReadError),
        ("/short", httpx2.ReadError),
        ("/zipped", httpx2.RemoteProtocolError),
        ("/switch", httpx2.ReadError),
    ],
)
async def test_bounds_of_responses(gate: Any, site: Any, path: str, error: type[Exception]) -> None:
    """Too large, cut short, compressed unasked, another protocol: an error, and told once."""
    async with client(gate, bounds=Bounds(body_bytes=1_000_000)) as http:
        with pytest.raises(error):
            await http.get(f"http://127.0.0.1:{site.port}{path}")
    assert len(gate.ended) == 1


async def test_a_body_of_just_the_bound_passes(gate: Any, site: Any) -> None:
    """The bound is the most that passes, not one less."""
    async with client(gate, bounds=Bounds(body_bytes=1_000_000)) as http:
        assert len((await http.get(f"http://127.0.0.1:{site.port}/size?1000000")).content) == 1_000_000


async def test_a_request_that_is_too_large(gate: Any, site: Any) -> None:
    """A body that never ends is cut at the bound."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    async with client(gate, bounds=Bounds(request_bytes=1 << 20)) as http:
        with pytest.raises(httpx2.ReadError, match="larger than"):
            await http.post(f"http://127.0.0.1:{site.port}/", content=endless())
    assert len(gate.ended) == 1


async def test_deadline_of_the_whole(gate: Any, site: Any) -> None:
    """A server that never answers ends in a time-out, told once."""
    async with client(gate, bounds=Bounds(seconds=0.2)) as http:
        with pytest.raises(httpx2.ReadTimeout):
            await http.get(f"http://127.0.0.1:{site.port}/never")
        with pytest.raises(httpx2.ReadTimeout):
            await http.get(f"http://127.0.0.1:{site.port}/slow")
    assert [type(one) for one in gate.outcomes] == [str, str]


async def test_streams_as_it_comes(gate: Any, site: Any) -> None:
    """A piece of a response is there before the next one is sent."""
    async with client(gate) as http, http.stream("GET", f"http://127.0.0.1:{site.port}/slow") as response:
        pieces = response.aiter_bytes()
        assert await anext(pieces) == b"first;"
        assert gate.ended == []
        site.go.set()
        assert [piece async for piece in pieces] == [b"second;"]
    assert gate.outcomes[0]["status"] == 200


@pytest.mark.parametrize("path", ["/never", "/slow"])
async def test_cancelled_requests_are_told(gate: Any, site: Any, path: str) -> None:
    """Whoever gives up closes the connection, and the gatekeeper hears of it before the cancellation is over."""
    async with client(gate) as http:
        task = asyncio.create_task(http.get(f"http://127.0.0.1:{site.port}{path}"))
        await site.arrived.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [type(one) for one in gate.outcomes] == [str]


async def test_a_handshake_that_never_ends(gate: Any, trust: ssl.SSLContext) -> None:
    """Whether it takes too long or is given up, the connection is closed, and no descriptor stays behind."""
    connected, left = asyncio.Event(), 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        connected.set()
        while await reader.read(65536):
            continue
        left += 1
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    before = len(list(Path("/proc/self/fd").iterdir()))
    async with server, client(gate, tls=trust, bounds=Bounds(connect_s=0.2)) as http:
        with pytest.raises(httpx2.ConnectTimeout):
            await http.get(url)
        connected.clear()
        async with client(gate, tls=trust) as patient:
            task = asyncio.create_task(patient.get(url))
            await connected.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with asyncio.timeout(10):
            while left < 2:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert [type(one) for one in gate.outcomes] == [str, str]


async def test_the_system_looks_names_up(gate: Any, site: Any) -> None:
    """Without a resolver of its own, a transport asks this machine, and judges what it says."""
    async with client(gate, private=("127.0.0.0/8", "::1/128")) as http:
        assert (await http.get(f"http://localhost:{site.port}/")).status_code == 200


async def test_many_at_once(gate: Any, secure_site: Any, trust: ssl.SSLContext, resolver: Any) -> None:
    """50 requests at one time each get their own answer, and each is told once."""
    async with client(gate, tls=trust, resolver=resolver) as http:
        urls = [f"https://api.test:{secure_site.port}/n/{number}" for number in range(50)]
        answers = await asyncio.gather(*(http.get(url) for url in urls))
    assert [answer.json()["target"] for answer in answers] == [f"/n/{number}" for number in range(50)]
    assert len(gate.ended) == 50


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/", "http://user:pass@127.0.0.1/", "http://127.0.0.1/a%2fb", "http://127.0.0.1/%2e%2e%3b/x", "http://a..b/"],
)
async def test_addresses_that_are_not_used(gate: Any, url: str) -> None:
    """What could be read in two ways is not even asked about."""
    async with client(gate) as http:
        with pytest.raises((NetDenied, httpx2.UnsupportedProtocol)):
            await http.get(url)
    assert gate.asked == []


async def test_unasked_requests_are_pinned_all_the_same(site: Any) -> None:
    """A request of the runtime itself is asked of nobody, but keeps to the same addresses."""
    everybody = Unasked()
    async with client(everybody) as http:
        assert (await http.get(f"http://127.0.0.1:{site.port}/")).status_code == 200
    async with client(everybody, private=()) as http:
        with pytest.raises(NetDenied):
            await http.get(f"http://127.0.0.1:{site.port}/")


async def test_falls_back_to_the_next_checked_address(gate: Any, site: Any) -> None:
    """An address that does not answer is followed by the next of those that were checked."""

    async def find(host: str, port: int) -> Sequence[str]:
        return ["127.9.9.9", "127.0.0.1"]

    async with client(gate, resolver=find) as http:
        assert (await http.get(f"http://two.test:{site.port}/")).status_code == 200
    assert gate.outcomes[0]["address"] == "127.0.0.1"


async def test_names_without_an_address(gate: Any) -> None:
    """A name that nobody knows is a failure to connect."""

    async def find(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    async with client(gate, resolver=find) as http:
        with pytest.raises(httpx2.ConnectError):
            await http.get("http://nowhere.test/")
    assert len(gate.ended) == 1


def test_signature() -> None:
    """A transport without a gatekeeper cannot be made by leaving it out."""
    made: Callable[..., Outbound] = Outbound
    with pytest.raises(TypeError):
        made()
