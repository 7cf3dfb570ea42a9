"""Addresses that nobody may reach: by name, by number, by redirect, by a name that changes, and by talking to the proxy oddly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rt_case import CONTAINED, FAILED, INERT, STOPPED, Check, Group, Step, Told, says
from rt_tools import NOTHING, PRIVATE, tool
from rt_world import World

PRIVATE_PLACES = {
    "loopback": "127.0.0.1",
    "loopback-other": "127.8.8.8",
    "none": "0.0.0.0",  # noqa: S104 - an address to be refused
    "ten": "10.0.0.1",
    "twelve": "172.16.5.4",
    "sixteen": "192.168.1.1",
    "carrier": "100.64.0.1",
    "metadata": "169.254.169.254",
    "metadata-azure": "168.63.129.16",
    "benchmark": "198.18.0.1",
    "multicast": "224.0.0.1",
    "broadcast": "255.255.255.255",
    "documentation": "203.0.113.5",
    "loopback-six": "::1",
    "none-six": "::",
    "mapped": "::ffff:127.0.0.1",
    "mapped-private": "::ffff:10.0.0.1",
    "compatible": "::127.0.0.1",
    "unique-local": "fd00::1",
    "unique-metadata": "fd00:ec2::254",
    "link-local": "fe80::1",
    "site-local": "fec0::1",
    "nat64": "64:ff9b::7f00:1",
    "sixtofour": "2002:7f00:1::",
    "teredo": "2001:0:7f00:1::",
    "multicast-six": "ff02::1",
}
"""Where names may lead that must not be followed."""

WRITTEN = {
    "decimal": "http://2130706433:{port}/",
    "octal": "http://0177.0.0.1:{port}/",
    "hex": "http://0x7f000001:{port}/",
    "hex-parts": "http://0x7f.0.0.1:{port}/",
    "short": "http://127.1:{port}/",
    "zero": "http://0:{port}/",
    "mapped": "http://[::ffff:127.0.0.1]:{port}/",
    "mapped-hex": "http://[::ffff:7f00:1]:{port}/",
    "six": "http://[::1]:{port}/",
    "plain": "http://127.0.0.1:{port}/",
    "localhost": "http://localhost:{port}/",
    "dotted": "http://127.0.0.1.:{port}/",
    "user": "http://good.test@127.0.0.1:{port}/",
    "user-encoded": "http://good.test%2540@127.0.0.1:{port}/",
    "backslash": "http://127.0.0.1:{port}\\@good.test/",
    "fullwidth": "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "circled": "http://\u2460\u2461\u2466.0.0.1:{port}/",
    "ideographic-stop": "http://127\u30020\u30020\u30021:{port}/",
    "zone": "http://[fe80::1%25lo]:{port}/",
    "no-scheme": "//127.0.0.1:{port}/",
    "file": "file:///etc/passwd",
    "gopher": "gopher://127.0.0.1:{port}/_x",
    "ftp": "ftp://127.0.0.1:{port}/",
    "data": "data:text/plain,x",
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "newline": "http://127.0.0.1:{port}/\r\nX-Injected: 1",
    "tab": "http://127.0.0.1\t:{port}/",
    "other-port": "http://good.test:1/",
    "other-name": "http://other.test:{port}/",
}
"""Where a redirect of an allowed host may lead; the port is the trap's."""


def _reach(name: str) -> str:
    return f"ssrf-{name}.test"


def declarations(world: World) -> Iterator[dict[str, Any]]:
    port = world.trap.port
    for name, address in PRIVATE_PLACES.items():
        world.names[_reach(name)] = [[address]]
        yield tool(
            f"to-{name}",
            {"http": {"url": f"http://{_reach(name)}:{port}/x", "private": PRIVATE}},
            effect="read",
            inputSchema=NOTHING,
        )
    for name in ("loopback", "metadata", "mapped", "unique-local"):
        server = {"url": f"http://{_reach(name)}:{port}/mcp", "private": PRIVATE}
        yield tool(
            f"mcp-to-{name}", {"mcp": {"server": server, "tool": "go"}}, effect="external", inputSchema=NOTHING, timeoutSeconds=4
        )
    # One good answer and one bad one; and a good one first, a bad one at the next look.
    world.names |= {
        "mixed.test": [["127.0.0.2", "127.0.0.1"]],
        "rebound.test": [["127.0.0.2"], ["127.0.0.1"]],
        "home.test": [["127.0.0.1"]],
        "metadata.test": [["169.254.169.254"]],
        "mapped.test": [["::ffff:127.0.0.1"]],
        "other.test": [["127.0.0.1"]],
        "turns.test": [["127.0.0.2"], ["127.0.0.1"]],
    }
    url = f"http://turns.test:{world.site.port}/x"
    yield tool("to-turning", {"http": {"url": url, "private": PRIVATE}}, effect="read", inputSchema=NOTHING)
    mixed = f"http://mixed.test:{world.site.port}/x"
    yield tool("to-mixed", {"http": {"url": mixed, "private": PRIVATE}}, effect="read", inputSchema=NOTHING)


def groups(world: World) -> Iterator[Group]:
    yield Group("requests", "requests of drivers", list(_drivers(world)), seconds=150)
    yield Group("proxy", "requests of sandboxes", list(_proxied(world)), seconds=150)
    yield Group("proxy", "requests that are looked into", list(_inspected(world)), seconds=150)


def _drivers(world: World) -> Iterator[Step]:
    for name, place in PRIVATE_PLACES.items():
        check = says("not of the public internet", "no address")
        yield Step(f"ssrf-{name}", f"a name that leads to {place}", f"to-{name}", {}, FAILED, check)
    for name in ("loopback", "metadata", "mapped", "unique-local"):
        yield Step(f"ssrf-mcp-{name}", f"an MCP server at {PRIVATE_PLACES[name]}", f"mcp-to-{name}", {}, FAILED)
    yield Step("ssrf-mixed", "a name with one good address and one bad", "to-mixed", {}, FAILED)
    yield Step("rebind-first", "prepares", "to-turning", {}, INERT, laying=True)
    yield Step("rebind-next", "the same name at the next look", "to-turning", {}, FAILED)
    for name, url in WRITTEN.items():
        at = url.format(port=world.trap.port)
        yield Step(f"redirect-{name}", f"a redirect to {at!r}", "follow", {"at": at}, FAILED | CONTAINED, _not_caught)
    odd = {
        "climbs": "..",
        "slashes": "../../admin",
        "encoded": "%2e%2e%2fadmin",
        "encoded-twice": "%252e%252e%252fadmin",
        "query": "x?admin=1",
        "fragment": "x#y",
        "host": "@127.0.0.1/x",
        "newline": "x\r\nX-Injected: 1",
        "nul": "x\0y",
        "semicolon": "..;/admin",
        "backslash": "..\\admin",
        "fullwidth": "\uff0e\uff0e\uff0fadmin",
        "surrogate": "\ud800",
    }
    for name, value in odd.items():
        args = {"id": value, "q": value}
        yield Step(
            f"path-in-{name}", f"leave the path of the tool by {name}", "item", args, FAILED | CONTAINED | _refused(), _stays
        )
    for name, what in {
        "slow": "never end",
        "flood": "send without an end",
        "bomb": "answer with what grows",
        "garbage": "answer with what is no HTTP",
        "headers": "answer with 200 kB of headers",
    }.items():
        yield Step(f"answers-{name}", f"have the server {what}", f"site-{name}", {}, STOPPED | CONTAINED)


def _refused() -> frozenset[Any]:
    from rt_case import DENIED, REFUSED

    return REFUSED | DENIED


def _not_caught(world: World, told: Told) -> str | None:
    return "the answer of the trap came back" if "caught" in told.text else None


def _stays(world: World, told: Told) -> str | None:
    """Every request that reached the site stayed below the path of its tool, and on one line."""
    odd = [
        path for _, path, headers in world.site.seen if "X-Injected" in headers or "admin" in path.partition("?")[0].split("/")
    ]
    return f"the site was asked for {odd}" if odd else None


_ASK = """
import http.client, os, socket, sys
proxy = os.environ["http_proxy"].rpartition("/")[2]
host, _, port = proxy.partition(":")
def raw(data, more=b"", wait=1):
    s = socket.create_connection((host, int(port)), 5)
    s.settimeout(wait)
    s.sendall(data)
    out = b""
    try:
        first = s.recv(65536)
        out += first
        if more and b" 200 " in first.split(b"\\r\\n")[0]:
            s.sendall(more)
        while len(out) < 200000:
            d = s.recv(65536)
            if not d: break
            out += d
    except OSError as e:
        out += repr(e).encode()
    s.close()
    return out.decode("latin-1")
"""


def _ask(id: str, tries: str, data: str, check: Check | None, *, more: str = "", where: str = "net") -> Step:  # noqa: A002 - a step's field
    code = f"{_ASK}\nprint(raw({data.encode('utf-8', 'surrogateescape')!r}, {more.encode()!r}))"
    return Step(f"by-{where}-{id}", tries, where, {"code": code}, CONTAINED, check)


def _no_answer(world: World, told: Told) -> str | None:
    """Neither the trap nor a server that was not meant has answered."""
    first = told.text.split("\r\n", 1)[0]
    if "caught" in told.text or first.startswith("HTTP/1.1 200") or '"path"' in told.text:
        return f"it was answered: {told.text[:200]!r}"
    return None


def _proxied(world: World) -> Iterator[Step]:
    trap, port = world.trap.port, world.site.port
    get = "GET http://{}/x HTTP/1.1\r\nHost: {}\r\n\r\n"
    tunnel = "CONNECT {} HTTP/1.1\r\nHost: {}\r\n\r\n"
    inner = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    good = f"good.test:{port}"
    yield _ask("good", "what is declared", get.format(good, good), says('"path": "/x"'))
    places = {
        "rebound": f"rebound.test:{port}",
        "home": f"home.test:{port}",
        "mixed": f"mixed.test:{port}",
        "mapped": f"mapped.test:{port}",
        "metadata": "metadata.test:80",
        "metadata-address": "169.254.169.254:80",
        "ten": "10.0.0.1:80",
        "loopback": f"127.0.0.1:{trap}",
        "loopback-declared": f"127.0.0.1:{port}",
        "six": f"[::1]:{trap}",
        "decimal": f"2130706433:{trap}",
        "octal": f"0177.0.0.1:{trap}",
        "hex": f"0x7f000001:{trap}",
        "short": f"127.1:{trap}",
        "localhost": f"localhost:{trap}",
        "undeclared": "evil.test:80",
        "other-port": "good.test:22",
        "subdomain": f"good.test.evil.test:{port}",
        "twin": f"g\u043eod.test:{port}",
        "zone": f"[fe80::1%25lo]:{trap}",
        "nul": f"good.test\0.evil.test:{port}",
        "user": f"good.test@127.0.0.1:{trap}",
    }
    for name, place in places.items():
        # The first look at a name that turns may be good; the second one is not.
        check = None if name == "rebound" else _no_answer
        yield _ask(f"get-{name}", f"GET of {place!r}", get.format(place, place), check)
        yield _ask(f"connect-{name}", f"CONNECT to {place!r}", tunnel.format(place, place), _no_answer, more=inner)
    odd = {
        "host-differs": f"GET http://{good}/x HTTP/1.1\r\nHost: 127.0.0.1:{trap}\r\n\r\n",
        "two-hosts": f"GET http://{good}/x HTTP/1.1\r\nHost: {good}\r\nHost: evil.test\r\n\r\n",
        "connect-host-differs": f"CONNECT {good} HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "two-lengths": f"POST http://{good}/x HTTP/1.1\r\nHost: {good}\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n"
        f"GET http://127.0.0.1:{trap}/ HTTP/1.1\r\n\r\n",
        "length-and-chunks": f"POST http://{good}/x HTTP/1.1\r\nHost: {good}\r\nContent-Length: 4\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "odd-coding": f"POST http://{good}/x HTTP/1.1\r\nHost: {good}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "folded": f"GET http://{good}/x HTTP/1.1\r\nHost: {good}\r\nX-A: 1\r\n Host: evil.test\r\n\r\n",
        "bare-lf": f"GET http://{good}/x HTTP/1.1\nHost: {good}\nX: 1\n\n",
        "space-in-name": f"GET http://{good}/x HTTP/1.1\r\nHost : {good}\r\n\r\n",
        "upgrade": f"GET http://{good}/x HTTP/1.1\r\nHost: {good}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "origin-form": f"GET /x HTTP/1.1\r\nHost: {good}\r\n\r\n",
        "https-in-the-open": f"GET https://{good}/x HTTP/1.1\r\nHost: {good}\r\n\r\n",
        "file": "GET file:///etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        "climbs": f"GET http://{good}/x/%2e%2e%2f%2e%2e/etc HTTP/1.1\r\nHost: {good}\r\n\r\n",
        "trace": f"TRACE http://{good}/x HTTP/1.1\r\nHost: {good}\r\n\r\n",
        "nul-in-head": f"GET http://{good}/x HTTP/1.1\r\nHost: {good}\r\nX: a\0b\r\n\r\n",
        "huge-head": f"GET http://{good}/x HTTP/1.1\r\nHost: {good}\r\nX: {'y' * 100_000}\r\n\r\n",
        "http-2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "noise": "\x16\x03\x01\x00\xff noise",
        "socks": "\x05\x01\x00",
    }
    for name, data in odd.items():
        yield _ask(f"odd-{name}", f"talk to the proxy oddly: {name}", data, _no_answer)
    direct = f"import socket\ns = socket.create_connection(('127.0.0.1', {trap}), 3)\nprint(s.recv(9))"
    yield Step("by-net-direct", "leave the proxy aside", "net", {"code": direct}, CONTAINED, _not_caught)
    socket_of = "import os\nprint(os.listdir('/run/agentos'))\nopen('/run/agentos/egress.sock', 'wb').write(b'x')"
    yield Step("by-net-socket", "put something in the place of the proxy's socket", "net", {"code": socket_of}, CONTAINED)
    unlink = "import os\nos.unlink('/run/agentos/egress.sock')\nprint('it is gone')"
    yield Step("by-net-unlink", "remove the proxy's socket", "net", {"code": unlink}, CONTAINED, _kept)


def _kept(world: World, told: Told) -> str | None:
    return "the socket was removed" if "it is gone" in told.text else None


_TLS = (
    _ASK
    + """
import ssl
def tls(connect, sni, head):
    s = socket.create_connection((host, int(port)), 5)
    s.settimeout(2)
    s.sendall(f"CONNECT {connect} HTTP/1.1\\r\\nHost: {connect}\\r\\n\\r\\n".encode())
    first = s.recv(4096)
    if b" 200 " not in first.split(b"\\r\\n")[0]:
        return first.decode("latin-1")
    c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
    t = c.wrap_socket(s, server_hostname=sni)
    t.sendall(head.encode())
    return t.recv(65536).decode("latin-1")
"""
)


def _inspected(world: World) -> Iterator[Step]:
    port = world.site.port
    good = f"good.test:{port}"
    get = f"GET http://{good}" + "{} HTTP/1.1\r\nHost: " + good + "\r\n\r\n"
    yield _ask("good", "what is declared", get.format("/v1/x"), says('"path"'), where="inspected")
    for name, path in {
        "other-path": "/admin",
        "climbs": "/v1/../admin",
        "climbs-encoded": "/v1/%2e%2e/admin",
        "slash-encoded": "/v1/..%2fadmin",
        "twice": "/v1/%252e%252e/admin",
        "semicolon": "/v1/..;/admin",
        "backslash": "/v1\\..\\admin",
        "double-slash": "//v1/x",
    }.items():
        yield _ask(f"path-{name}", f"leave the paths that are allowed: {name}", get.format(path), _no_admin, where="inspected")
    post = f"POST http://{good}/v1/x HTTP/1.1\r\nHost: {good}\r\nContent-Length: 0\r\n\r\n"
    yield _ask("method", "use a method that is not allowed", post, _no_answer, where="inspected")
    override = f"GET http://{good}/v1/x HTTP/1.1\r\nHost: {good}\r\nX-HTTP-Method-Override: DELETE\r\n\r\n"
    yield _ask("override", "use another method by a header", override, None, where="inspected")
    through = {
        "sni": ("good.test:443", "evil.test", "GET /v1/x HTTP/1.1\r\nHost: good.test\r\n\r\n"),
        "host": ("good.test:443", "good.test", "GET /v1/x HTTP/1.1\r\nHost: evil.test\r\n\r\n"),
        "no-host": ("good.test:443", "good.test", "GET /v1/x HTTP/1.1\r\n\r\n"),
        "path": ("good.test:443", "good.test", "GET /admin HTTP/1.1\r\nHost: good.test\r\n\r\n"),
        "absolute": ("good.test:443", "good.test", "GET http://127.0.0.1/ HTTP/1.1\r\nHost: good.test\r\n\r\n"),
        "private": ("127.0.0.1:443", "127.0.0.1", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        "undeclared": ("evil.test:443", "evil.test", "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"),
        "tunnel-in-tunnel": ("good.test:443", "good.test", "CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    }
    for name, (connect, sni, head) in through.items():
        code = f"{_TLS}\nprint(tls({connect!r}, {sni!r}, {head!r}))"
        yield Step(f"inspected-tls-{name}", f"differ inside a tunnel: {name}", "inspected", {"code": code}, CONTAINED, _no_answer)
    plain = f"CONNECT {good} HTTP/1.1\r\nHost: {good}\r\n\r\n"
    more = "GET /admin HTTP/1.1\r\nHost: good.test\r\n\r\n"
    yield _ask("plain-in-tunnel", "speak plainly in a tunnel that is looked into", plain, _no_admin, more=more, where="inspected")


def _no_admin(world: World, told: Told) -> str | None:
    odd = [path for _, path, _ in world.site.seen if "admin" in path.partition("?")[0].split("/")]
    return f"the site was asked for {odd}" if odd else None
