"""What an MCP server in a sandbox is given to act with: credentials as long as they are lent, and requests of its calls alone."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.abi.syscall import Result, ToolEffect
from agentos.credentials.broker import Broker
from agentos.credentials.lease import CredentialUnavailable
from agentos.credentials.reference import Credential, SecretRef
from agentos.drivers.adapters.mcp import McpDriver
from agentos.drivers.doors import Now
from agentos.drivers.port import CallContext, ToolSpec
from agentos.egress.adapters.proxy import Proxies
from agentos.egress.asking import NetDenied, NetRequest, Permit
from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.port import Door
from agentos.sandbox.profile import Access, Isolation, Mount, Network, Profile, standard

HERE = Path(__file__).parent
NETWORK = Network(private=("127.0.0.0/8",))


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.now


class Numbers:
    """Bytes that count up."""

    def __init__(self) -> None:
        self.next = 0

    def token(self, size: int) -> bytes:
        self.next += 1
        return self.next.to_bytes(size, "big")


class Safe:
    """A source with one value, which the test changes."""

    def __init__(self) -> None:
        self.value = "canary-4be1f09c7d25"

    async def fetch(self, ref: SecretRef) -> str:
        return self.value

    async def close(self) -> None:
        return None


class Gate:
    """Who is asked about the requests of one call."""

    def __init__(self, *, allows: bool = True) -> None:
        self.allows = allows
        self.asked: list[NetRequest] = []
        self.ended = 0

    async def ask(self, request: NetRequest) -> Permit:
        self.asked.append(request)
        if not self.allows:
            raise NetDenied("no rule allows it")
        return self

    async def finished(self, *, status: int | None, sent: int, received: int, address: str) -> None:
        self.ended += 1

    async def failed(self, message: str) -> None:
        self.ended += 1


class ProxyDoors:
    """Doors with a proxy each."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder, self._clock = folder, clock

    @asynccontextmanager
    async def open(
        self, context: CallContext, profile: Profile, credentials: Sequence[Credential], now: Now | None = None
    ) -> AsyncIterator[Door]:
        assert (profile.network, now is None, credentials) == (NETWORK, False, ())
        async with Proxies(self._clock).open(gatekeeper=now or (lambda: None), network=NETWORK, folder=self._folder) as way:
            yield Door(way.socket, way.authority, way.settle)


@dataclass
class Hands:
    """A driver with all that it takes, and what the test turns."""

    driver: McpDriver
    broker: Broker
    safe: Safe
    clock: Clock
    isolation: Isolation
    workspace: Path

    @property
    def seen(self) -> Path:
        return self.workspace.parent / "seen"

    def context(self, net: Gate | None = None, **profile: object) -> CallContext:
        mounts = (Mount(str(HERE), str(HERE)), Mount(str(self.seen), str(self.seen), write=True))
        made = replace(standard(), isolation=self.isolation, mounts=mounts if self.isolation is Isolation.BUBBLEWRAP else ())
        # A declaration of its own for each: what it says is what its digest names.
        where: Profile = replace(made, digest=f"{sorted(profile)}", **profile)  # type: ignore[arg-type]
        return CallContext("default", "s-1", "call-1-1", self.workspace, where, net=net)

    async def call(self, tool: ToolSpec, context: CallContext | None = None) -> Result:
        """As the dispatcher does it: with a lease for what the tool asks for."""
        ref = SecretRef("key", "env", "KEY", lease_s=60)
        context = context or self.context()
        async with self.broker.lease("default", "s-1", "call-1-1", "sha256:0", {"key": ref}) as held:
            return await self.driver.call(tool, {}, replace(context, secrets={"key": ref}, leases=held))

    def log(self) -> list[str]:
        log = self.seen / "log"
        return log.read_text().splitlines() if log.exists() else []

    def command_lines(self) -> bytes:
        found = b""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    found += (entry / "cmdline").read_bytes()
                except (FileNotFoundError, ProcessLookupError):
                    continue
        return found


@pytest.fixture(params=[Isolation.UNSAFE_NONE, Isolation.BUBBLEWRAP], ids=str)
async def hands(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Hands]:
    for name in ("workspace", "seen"):
        (tmp_path / name).mkdir()
    # Whoever the sandbox makes of the server writes here.
    (tmp_path / "seen").chmod(0o777)
    safe, clock = Safe(), Clock()
    doors, broker = ProxyDoors(tmp_path / "doors", clock), Broker({"env": safe}, clock, Numbers())
    driver = McpDriver(HostSandboxes(tmp_path / "home"), doors=doors)
    yield Hands(driver, broker, safe, clock, request.param, tmp_path / "workspace")
    await driver.close()
    await broker.close()


def odd(hands: Hands, *credentials: Credential) -> ToolSpec:
    """The tool of the odd server that tells its environment, and notes each call with the mark of its process."""
    command = [sys.executable, str(HERE / "odd_server.py"), str(hands.seen / "log")]
    schema: dict[str, Json] = {"type": "object", "properties": {}, "title": "environmentArguments"}
    mcp = {"server": {"command": command}, "tool": "environment"}
    return ToolSpec("environment", "", ToolEffect.READ, True, schema, {"mcp": mcp}, credentials=credentials)


def hostile(hands: Hands, how: str, *credentials: Credential, **env: str) -> ToolSpec:
    command = [sys.executable, "-u", str(HERE / "hostile_server.py"), str(hands.seen / "log"), how]
    schema: dict[str, Json] = {"type": "object", "properties": {}}
    mcp = {"server": {"command": command, "env": env}, "tool": "go"}
    return ToolSpec("go", "", ToolEffect.EXTERNAL, False, schema, {"mcp": mcp}, credentials=credentials)


KEY = Credential("key", env="KEY", format="Bearer {}")


async def test_a_variable_is_the_servers_alone(hands: Hands) -> None:
    """The value stands in the environment of the server as it is to be rendered, and in no command line of this host."""
    told = json.loads((await hands.call(odd(hands, KEY))).content)
    assert told["env"]["KEY"] == f"Bearer {hands.safe.value}"
    assert hands.safe.value.encode() not in hands.command_lines()
    assert [one.kept for one in hands.broker.live()] == [True]
    await hands.driver.release("s-1")
    assert hands.broker.live() == []


async def test_a_server_lives_as_long_as_what_it_was_lent(hands: Hands) -> None:
    """It is kept while its value is the one that a call is lent; one that has changed, or whose lease is over, replaces it."""
    tool = odd(hands, KEY)
    for _ in range(2):
        await hands.call(tool)
    assert len({line.split()[1] for line in hands.log()}) == 1
    hands.safe.value = "canary-8fd3370a51ce"
    assert json.loads((await hands.call(tool)).content)["env"]["KEY"] == "Bearer canary-8fd3370a51ce"
    assert len({line.split()[1] for line in hands.log()}) == 2
    hands.clock.now += 61_000
    await hands.call(tool)
    assert len({line.split()[1] for line in hands.log()}) == 3
    hands.broker.revoke("default", "key")
    await hands.call(tool)
    assert len({line.split()[1] for line in hands.log()}) == 4


async def test_a_value_that_is_taken_away_stops_the_server(hands: Hands) -> None:
    """A server whose leases are revoked is gone without another call."""
    await hands.call(odd(hands, KEY))
    assert str(hands.seen).encode() in hands.command_lines()
    hands.broker.revoke("default", "key")
    while str(hands.seen).encode() in hands.command_lines():
        await asyncio.sleep(0.01)
    assert hands.broker.live() == []


async def test_without_a_lease_nothing_is_started(hands: Hands) -> None:
    """A call that was lent nothing is refused in the same words as ever, and other credentials make another server."""
    with pytest.raises(CredentialUnavailable):
        await hands.driver.call(odd(hands, KEY), {}, hands.context())
    assert hands.log() == []
    await hands.call(odd(hands, KEY))
    await hands.call(odd(hands))
    assert len({line.split()[1] for line in hands.log()}) == 2


async def test_a_file_of_a_secret(hands: Hands) -> None:
    """A server in a sandbox finds the value in a file; without a sandbox there is no place for one, and nothing is started."""
    tool = hostile(hands, "file", Credential("key", file="key"))
    if hands.isolation is Isolation.BUBBLEWRAP:
        assert (await hands.call(tool)).content == hands.safe.value
        assert hands.safe.value.encode() not in hands.command_lines()
    else:
        with pytest.raises(DriverError):
            await hands.call(tool)
        assert hands.log() == []


@asynccontextmanager
async def page() -> AsyncIterator[str]:
    """A page on this host."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/page"
    finally:
        server.close()


async def test_requests_are_asked_about_at_their_call(hands: Hands) -> None:
    """Each request of a warm server goes through its door, and is asked about at the call that is being made."""
    gates = [Gate(), Gate(allows=False), Gate()]
    async with page() as url:
        tool = hostile(hands, "fetch", TARGET=url)
        said = [(await hands.call(tool, hands.context(gate, network=NETWORK))).content for gate in gates]
        assert said == ["200", "403", "200"]
        assert [[one.path for one in gate.asked] for gate in gates] == [["/page"]] * 3
        assert [gate.ended for gate in gates] == [1, 0, 1]
        told = (await hands.call(hostile(hands, "fetch", TARGET=url), hands.context(gates[0]))).content
        assert (told == "200") is (hands.isolation is Isolation.UNSAFE_NONE)  # without a network, only a sandbox helps


async def test_between_two_calls_nothing_leaves(hands: Hands) -> None:
    """A server that goes on asking when its call is over is denied, and nobody is asked; with the next call it may again."""
    first, second = Gate(), Gate()
    async with page() as url:
        tool = hostile(hands, "fetch_on", TARGET=url)
        await hands.call(tool, hands.context(first, network=NETWORK))
        asked, lines = len(first.asked), len(hands.log())
        while hands.log()[lines:].count("403") < 5:
            await asyncio.sleep(0.01)
        assert len(first.asked) == asked
        assert first.ended == asked
        assert (await hands.call(tool, hands.context(second, network=NETWORK))).content == "200"
        assert second.asked != []
        await hands.driver.close()


async def test_what_a_sandbox_must_have(hands: Hands, tmp_path: Path) -> None:
    """A header needs a network, a path needs a workspace, and a network needs a way out: each is said before anything starts."""
    header = Credential("key", header="Authorization")
    with pytest.raises(DriverError, match="has no network"):
        await hands.call(hostile(hands, "key", header))
    bare = McpDriver(HostSandboxes(tmp_path / "home"))
    with pytest.raises(DriverError, match="no way out"):
        await bare.call(hostile(hands, "key"), {}, hands.context(network=NETWORK))
    tool = hostile(hands, "key")
    paths = replace(tool, driver={"mcp": {**tool.driver["mcp"], "workspaceArgs": ["path"]}})
    with pytest.raises(DriverError, match="has no workspace"):
        await hands.driver.call(paths, {"path": "a"}, hands.context(workspace=Access.NONE))
    assert hands.log() == []
