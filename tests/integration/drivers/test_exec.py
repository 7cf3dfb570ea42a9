"""The exec driver with real programs: each property holds bare and in a sandbox, and the results are the same."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentos.abi.canonical import Json, digest
from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.abi.syscall import Result, ToolEffect
from agentos.credentials.lease import Lease
from agentos.credentials.reference import Credential
from agentos.drivers.adapters.exec import ExecDriver
from agentos.drivers.output import MAX_KEPT
from agentos.drivers.port import CallContext, ToolSpec
from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.port import Launch, Place
from agentos.sandbox.profile import Access, Isolation, Network, Profile, standard

CANARY = "canary-5f1c8d2e9b7a4460"


class Vault:
    """Leases of one secret."""

    @property
    def leases(self) -> Sequence[Lease]:
        return ()

    def value(self, secret: str) -> str:
        assert secret == "token"
        return CANARY


class Memory:
    """Keeps outputs, and takes the canary out of them."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def clean(self, tenant: str, session: str, data: bytes) -> bytes:
        assert (tenant, session) == ("default", "s-1")
        return data.replace(CANARY.encode(), b"[masked]")

    def keep(self, tenant: str, session: str, data: bytes) -> str:
        assert (tenant, session) == ("default", "s-1")
        self.kept[digest(data)] = data
        return digest(data)


class Watched:
    """Sandboxes that remember what was launched."""

    def __init__(self, inner: HostSandboxes) -> None:
        self._inner = inner
        self.launches: list[Launch] = []

    def place(self, launch: Launch) -> AbstractAsyncContextManager[Place]:
        self.launches.append(launch)
        return self._inner.place(launch)

    def workspace(self, profile: Profile, workspace: Path) -> str:
        return self._inner.workspace(profile, workspace)


@pytest.fixture(params=[Isolation.UNSAFE_NONE, Isolation.BUBBLEWRAP], ids=str)
def profile(request: pytest.FixtureRequest) -> Profile:
    return replace(standard(), isolation=request.param)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def context(workspace: Path, profile: Profile) -> CallContext:
    return CallContext("default", "s-1", "call-1-1", workspace, profile, decided=(7, "sha256:" + "0" * 64))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> HostSandboxes:
    """The sandboxes of this host, which find out once what it can do."""
    return HostSandboxes(tmp_path_factory.mktemp("home"))


@pytest.fixture
def sandboxes(host: HostSandboxes) -> Watched:
    return Watched(host)


@pytest.fixture
def outputs() -> Memory:
    return Memory()


@pytest.fixture
def driver(sandboxes: Watched, outputs: Memory) -> ExecDriver:
    return ExecDriver(sandboxes, outputs)


@pytest.fixture
async def nothing_left(driver: ExecDriver, context: CallContext) -> AsyncIterator[None]:
    """Neither a process nor a descriptor is left behind by the test; what the first call of all makes is made before."""
    await driver.call(tool("true"), {}, context)
    before, others = _descriptors(), _children()
    yield
    assert _children() <= others
    assert _descriptors() == before


def _descriptors() -> dict[str, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except FileNotFoundError:
            continue  # that of the listing itself
    # Control groups are joined and left beside calls, in a thread that is over when it is.
    return {name: target for name, target in found.items() if not target.startswith("/sys/fs/cgroup/")}


def _children() -> set[str]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {child for child in listed.split() if _state(child) != "Z"}


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def tool(*command: Json, **changes: Any) -> ToolSpec:
    """A tool that writes, of `command`; `changes` are fields of ToolSpec or of the driver's declaration."""
    fields = {name: changes.pop(name) for name in list(changes) if name in ToolSpec.__dataclass_fields__}
    given = {"name": "t", "description": "", "effect": ToolEffect.WRITE, "idempotent": False, "input_schema": {}, **fields}
    return ToolSpec(driver={"exec": {"command": list(command), **changes}}, **given)


def script(text: str, *more: Json, **changes: Any) -> ToolSpec:
    return tool("sh", "-c", text, "sh", *more, **changes)


def facts(result: Result) -> Mapping[str, Json]:
    assert isinstance(result.data, dict)
    return result.data


async def test_words_arrive_as_they_are(driver: ExecDriver, context: CallContext) -> None:
    """Quotes, spaces, line ends, globs and dollar signs are a value's own; a list is as many words."""
    values = ["a b", "'\"", "$HOME `id` $(id)", "*", "", "line\nend", "; rm -rf /", "-n", "é\u202e🙂"]
    asked = tool("python3", "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", "--", {"arg": "v"}, output="json")
    assert (await driver.call(asked, {"v": values}, context)).data == ["--", *values]


async def test_a_result_says_how_it_ended_and_where(driver: ExecDriver, context: CallContext, profile: Profile) -> None:
    """Text for the model, facts for programs, the sandbox for the log."""
    result = await driver.call(script("echo hello; echo odd >&2"), {}, context)
    assert (result.content, result.is_error) == ("hello\n", False)
    assert result.data == {"exit": 0, "bytes": 6, "truncated": False, "stderr": "odd"}
    sandbox = result.acted["sandbox"]
    assert {key: sandbox[key] for key in profile.told()} == profile.told()
    assert sandbox["limits"] in {"cgroup", "rlimit", "none"}


@pytest.mark.parametrize(
    ("text", "fine", "code", "content"),
    [
        ("echo out; echo err >&2; exit 3", [0], 3, "exit code 3\nerr\nout\n"),
        ("exit 1", [0, 1], 1, ""),
        ("exit 0", [1], 0, "exit code 0"),
        ("kill -KILL $$", [0], 137, "exit code 137, as after SIGKILL"),
        ("kill -TERM $$", [0], 143, "exit code 143, as after SIGTERM"),
        ("exit 255", [0], 255, "exit code 255"),
    ],
)
async def test_exit_codes(driver: ExecDriver, context: CallContext, text: str, fine: list[int], code: int, content: str) -> None:
    """Those that are declared are fine, all others are errors that the model reads, with what was written."""
    result = await driver.call(script(text, okExitCodes=fine), {}, context)
    assert (facts(result)["exit"], result.is_error, result.content) == (code, code not in fine, content)


async def test_standard_input(driver: ExecDriver, context: CallContext) -> None:
    """The text of one argument, and its end; without one there is nothing to read. It can be opened by name as well."""
    text = "é\0line\n" * 20_000
    read = tool("wc", "-c", stdin="text")
    assert int((await driver.call(read, {"text": text}, context)).content) == len(text.encode())
    assert int((await driver.call(read, {}, context)).content) == 0
    named = script("cat /dev/stdin >/dev/stdout; echo x >/dev/stderr", stdin="text")
    result = await driver.call(named, {"text": "abc"}, context)
    assert (result.content, facts(result)["stderr"]) == ("abc", "x")


async def test_json_output(driver: ExecDriver, context: CallContext) -> None:
    """One value is the structured part; what is not one value is an error, and is shown."""
    good = await driver.call(script("printf '{\"a\": [1, 2.5, null]}'", output="json"), {}, context)
    assert (good.data, good.is_error) == ({"a": [1, 2.5, None]}, False)
    for text in ("echo {", "echo 1 2", "true", 'echo \'{"a":1,"a":2}\'', "printf '\\377'", "echo 1e999"):
        bad = await driver.call(script(text, output="json"), {}, context)
        assert bad.is_error, text
        assert bad.content.startswith("its output is not what it is declared to be: "), text
        assert facts(bad)["exit"] == 0
    failed = await driver.call(script("echo '{}'; exit 4", output="json"), {}, context)
    assert (failed.is_error, facts(failed)["exit"]) == (True, 4)


async def test_paths_of_the_workspace(driver: ExecDriver, context: CallContext, workspace: Path, sandboxes: Watched) -> None:
    """They arrive as the process sees them, and so does its folder; one that leads out is refused, and nothing is started."""
    (workspace / "sub").mkdir()
    (workspace / "sub" / "a").write_text("A")
    (workspace / "b").write_text("B")
    (workspace / "link").symlink_to("/etc")
    cat = tool("cat", {"arg": "file"}, workspaceArgs=["file"])
    assert (await driver.call(cat, {"file": ["sub/a", "b", "./sub//a"]}, context)).content == "ABA"
    here = script('pwd; cat a; echo "$1"', {"arg": "file"}, folder="sub", workspaceArgs=["file"])
    top = sandboxes.workspace(context.profile, workspace)
    assert (await driver.call(here, {"file": ""}, context)).content == f"{top}/sub\nA{top}\n"
    started = len(sandboxes.launches)
    for path in ("../b", "/etc/passwd", "link/passwd", "link", "sub/../../b", "a\0b", "\ud800", "x" * 300):
        with pytest.raises(DriverError):
            await driver.call(cat, {"file": path}, context)
    for folder in ("..", "/", "link", "link/ssl"):
        with pytest.raises(DriverError):
            await driver.call(script("pwd", folder=folder), {}, context)
    assert len(sandboxes.launches) == started


async def test_a_sandbox_without_a_workspace(driver: ExecDriver, context: CallContext) -> None:
    """What acts on the workspace is refused there."""
    bare = replace(context, profile=replace(context.profile, workspace=Access.NONE))
    for asked in (tool("cat", {"arg": "file"}, workspaceArgs=["file"]), script("pwd", folder="sub")):
        with pytest.raises(DriverError, match="no workspace"):
            await driver.call(asked, {"file": "a"}, bare)


async def test_what_is_written_is_there(driver: ExecDriver, context: CallContext, workspace: Path) -> None:
    """Files of the process are files of the workspace, and the other way round."""
    (workspace / "in").write_text("in")
    await driver.call(script("cat in > out; mkdir -p d/e; echo x > d/e/f"), {}, context)
    assert (workspace / "out").read_text() == "in"
    assert (workspace / "d/e/f").read_text() == "x\n"


async def test_variables(driver: ExecDriver, context: CallContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are declared, the key of the call, and a handful: nothing of the runtime's own."""
    monkeypatch.setenv("OF_THE_RUNTIME", "private")
    profile = replace(context.profile, env={"OF_SANDBOX": "1", "BOTH": "sandbox"})
    asked = tool("env", env={"OF_TOOL": "a b", "BOTH": "tool", "AGENTOS_CALL_KEY": "forged"})
    result = await driver.call(asked, {"OF_CALLER": "x"}, replace(context, profile=profile))
    found = dict(line.split("=", 1) for line in result.content.splitlines())
    known = {"OF_TOOL": "a b", "BOTH": "tool", "OF_SANDBOX": "1", "AGENTOS_CALL_KEY": "s-1/call-1-1"}
    assert {name: found.pop(name) for name in known} == known
    assert set(found) <= {"PATH", "HOME", "LANG", "LC_CTYPE", "TZ", "PWD", "TMPDIR", "USER", "LOGNAME"}, found


async def test_a_credential_by_variable(driver: ExecDriver, context: CallContext) -> None:
    """The process has it, in the shape that is declared; no word of any process has, nor a result."""
    asked = script(
        'printf %s "$TOKEN" | wc -c; echo "$1$2" >p; cat /proc/*/cmdline 2>/dev/null | grep -acf p; echo "$TOKEN" >&2; exit 1',
        CANARY[:10],
        CANARY[10:],
        credentials=(Credential("token", env="TOKEN", format="Bearer {}"),),
    )
    result = await driver.call(asked, {}, replace(context, leases=Vault()))
    assert result.content == f"exit code 1\nBearer [masked]\n{len(CANARY) + 7}\n0\n"
    assert CANARY not in str(result.data)
    with pytest.raises(DriverError):
        await driver.call(asked, {}, context)


async def test_a_credential_by_file(driver: ExecDriver, context: CallContext, profile: Profile) -> None:
    """In a sandbox it is a file that the process can read; without one there is no place for it, and nothing is started."""
    asked = script("wc -c < /run/secrets/token; env | grep -c canary", credentials=(Credential("token", file="token"),))
    leased = replace(context, leases=Vault())
    if profile.isolation is Isolation.UNSAFE_NONE:
        with pytest.raises(DriverError):
            await driver.call(asked, {}, leased)
        return
    result = await driver.call(replace(asked, driver={"exec": {**asked.driver["exec"], "okExitCodes": [1]}}), {}, leased)
    assert result.content == f"{len(CANARY)}\n0\n"


async def test_long_output_is_kept_whole_and_clean(driver: ExecDriver, context: CallContext, outputs: Memory) -> None:
    """The beginning is shown, the whole has a digest. A credential at the very cut is in neither, not even a part of it."""
    limit = 2048
    for shift in range(limit - 256 - len(CANARY), limit - 256, 5):
        outputs.kept.clear()
        asked = script(f"head -c {shift} /dev/zero | tr '\\0' x; printf %s {CANARY}; yes | head -c 5000", output_bytes=limit)
        result = await driver.call(asked, {}, context)
        (kept,) = outputs.kept.values()
        assert kept == b"x" * shift + b"[masked]" + b"y\n" * 2500
        assert facts(result)["digest"] == digest(kept)
        assert facts(result)["truncated"] is True
        assert CANARY[:4] not in result.content
        assert len(result.content.encode()) <= limit


async def test_an_error_fits_the_limit(driver: ExecDriver, context: CallContext) -> None:
    """Whatever is written on both outputs."""
    result = await driver.call(
        script("yes out | head -c 9999; yes err | head -c 9999 >&2; exit 2", output_bytes=1024), {}, context
    )
    assert result.content.startswith("exit code 2\n")
    assert len(result.content.encode()) <= 1024
    assert "cut here" in result.content


@pytest.mark.usefixtures("nothing_left")
async def test_a_flood_is_stopped(driver: ExecDriver, context: CallContext, outputs: Memory) -> None:
    """Who writes without end is killed at the bound, and the model is told; what was taken is kept."""
    result = await driver.call(tool("yes"), {}, context)
    assert result.is_error
    assert result.content.startswith(f"it was stopped: it wrote more than {MAX_KEPT} bytes\n")
    told = facts(result)
    assert (told["stopped"], told["bytes"], told["truncated"]) == ("output", MAX_KEPT, True)
    assert [len(kept) for kept in outputs.kept.values()] == [MAX_KEPT]


async def test_a_flood_of_complaints_is_bounded(driver: ExecDriver, context: CallContext) -> None:
    """Of standard error the end is kept."""
    result = await driver.call(script("yes noise | head -c 18000000 >&2; echo the last >&2; exit 1"), {}, context)
    said = facts(result)["stderr"]
    assert isinstance(said, str)
    assert len(said) <= 8192
    assert said.endswith("noise\nthe last")


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    "text",
    [
        "sleep 1000",
        "exec >&- 2>&- <&-; sleep 1000",
        "trap '' TERM HUP INT; while :; do sleep 1000; done",
        "sleep 1000 & sleep 1000 & wait",
    ],
    ids=["sleeps", "closes everything", "ignores signals", "waits for others"],
)
async def test_the_deadline(driver: ExecDriver, context: CallContext, text: str) -> None:
    """Who does not end is stopped: for a tool that writes nobody knows what it did, one that reads did nothing."""
    with pytest.raises(OutcomeUnknown, match="did not end within 1500 ms, and was stopped"):
        await driver.call(script(text, timeout_ms=1500), {}, context)
    with pytest.raises(DriverError, match="did not end within 1500 ms") as caught:
        await driver.call(script(f"echo why >&2; {text}", timeout_ms=1500, effect=ToolEffect.READ), {}, context)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert caught.value.message.endswith("it said: why")


@asynccontextmanager
async def _held(workspace: Path) -> AsyncIterator[asyncio.StreamReader]:
    """A FIFO `alive` in the workspace: whoever has it open for writing is seen to live, and to die, from outside."""
    path = workspace / "alive"
    os.mkfifo(path)
    path.chmod(0o666)
    reader = asyncio.StreamReader()
    pipe = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        yield reader
    finally:
        transport.close()


@pytest.mark.usefixtures("nothing_left")
async def test_cancelling_kills_all_of_it(driver: ExecDriver, context: CallContext, workspace: Path, profile: Profile) -> None:
    """The program, what it started, and in a sandbox also what has left its session."""
    detach = "" if profile.isolation is Isolation.UNSAFE_NONE else "setsid "
    hold = f"exec 9<>alive; {detach}sh -c 'echo y >&9; sleep 1000' & "
    async with _held(workspace) as alive:
        call = asyncio.create_task(driver.call(script(hold + "sleep 1000"), {}, context))
        async with asyncio.timeout(20):
            assert await alive.readexactly(2) == b"y\n"
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await alive.read() == b""


@pytest.mark.usefixtures("nothing_left")
async def test_what_it_leaves_behind_ends_with_it(
    driver: ExecDriver, context: CallContext, workspace: Path, profile: Profile
) -> None:
    """A background process that keeps the output open delays nobody, and does not survive the call."""
    detach = "" if profile.isolation is Isolation.UNSAFE_NONE else "setsid "
    hold = f"exec 9<>alive; {detach}sh -c 'touch ready; sleep 1000' & while [ ! -e ready ]; do sleep 0.02; done; "
    async with _held(workspace) as alive, asyncio.timeout(20):
        result = await driver.call(script(hold + "echo done"), {}, context)
        assert (result.content, facts(result)["exit"]) == ("done\n", 0)
        assert await alive.read() == b""


@pytest.mark.usefixtures("nothing_left")
async def test_cancelling_at_any_moment_leaves_nothing(driver: ExecDriver, context: CallContext) -> None:
    """After ever more steps of the event loop, until the call is through."""
    others = _children()  # such as the server that other tests of this process share
    for steps in itertools.chain(range(20), (int(20 * 1.4**power) for power in range(40))):
        call = asyncio.create_task(driver.call(script("sleep 0.01; echo x"), {}, context))
        for _ in range(steps):
            await asyncio.sleep(0)
        if call.done():
            break
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert _children() <= others, steps
    else:
        raise AssertionError("the call never ended")
    assert (await call).content == "x\n"


async def test_what_cannot_be_started(driver: ExecDriver, context: CallContext, workspace: Path) -> None:
    """It is said to have not begun, whatever the tool would do."""
    (workspace / "data").write_text("no program")
    for asked in (tool("no-such-program-here"), tool("/no/such/program"), script("pwd", folder="missing")):
        with pytest.raises(DriverError) as caught:
            await driver.call(asked, {}, context)
        assert not isinstance(caught.value, OutcomeUnknown)


async def test_it_does_not_go_out_when_it_may_not_any_more(driver: ExecDriver, context: CallContext, workspace: Path) -> None:
    """Asked just before it starts."""

    async def still() -> None:
        raise DriverError("somebody else serves the session")

    with pytest.raises(DriverError, match="somebody else"):
        await driver.call(script("touch begun"), {}, replace(context, still=still))
    assert not (workspace / "begun").exists()


async def test_there_is_no_network_without_a_door(driver: ExecDriver, context: CallContext) -> None:
    """A sandbox that declares a network gets it through a proxy or not at all; a header needs one."""
    with pytest.raises(DriverError, match="no way out"):
        await driver.call(script("pwd"), {}, replace(context, profile=replace(context.profile, network=Network())))
    with pytest.raises(DriverError, match="has no network"):
        await driver.call(script("pwd", credentials=(Credential("token", header="Authorization"),)), {}, context)


@pytest.mark.usefixtures("nothing_left")
async def test_many_at_once(driver: ExecDriver, context: CallContext) -> None:
    """Each gets its own answer, and nothing is left."""
    calls = [driver.call(tool("echo", {"arg": "n"}), {"n": n}, replace(context, call=f"call-{n}")) for n in range(30)]
    assert [result.content for result in await asyncio.gather(*calls)] == [f"{n}\n" for n in range(30)]


async def test_nobody_can_be_asked_later(driver: ExecDriver, context: CallContext) -> None:
    """A process that is gone tells nothing; there is nothing to release or close."""
    assert await driver.reconcile(tool("true"), {}, context) is None
    await driver.release("s-1")
    await driver.close()
