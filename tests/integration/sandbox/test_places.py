"""What a place gives a program, and what is left of it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sandbox_run import MARK, living, run, running

from agentos.abi.errors import DriverError
from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.port import Door, Launch, SandboxUnavailable
from agentos.sandbox.profile import Access, Limits, Mount, Network, standard

SLEEPER = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
STRAY = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for stream in range(3):
            os.close(stream)
        while True:
            with open("/workspace/alive", "a") as file:
                file.write("x")
            time.sleep(0.005)
    os._exit(0)
time.sleep(0.2)
"""


@pytest.fixture
def sandboxes(tmp_path: Path) -> HostSandboxes:
    (tmp_path / "home").mkdir()
    return HostSandboxes(tmp_path / "home")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    found = tmp_path / "home" / "workspace"
    found.mkdir(parents=True, exist_ok=True)
    return found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            (
                "python3",
                "-c",
                "import ssl, multiprocessing as m; m.Lock(); print(len(ssl.create_default_context().get_ca_certs()) > 0)",
            ),
            "True",
        ),
        (
            (
                "python3",
                "-c",
                "import subprocess as s; print(s.run(['id', '-un'], capture_output=True, text=True).stdout.strip())",
            ),
            "agent",
        ),
        (
            (
                "sh",
                "-c",
                "git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git log --format=%s",
            ),
            "x",
        ),
        (("sh", "-c", "echo 'int main(void){return 7;}' > a.c && gcc a.c -o a && ./a; echo $?"), "7"),
        (("node", "-e", "console.log(require('os').userInfo().username)"), "agent"),
        (("curl", "--version"), None),
        (("sh", "-c", "mktemp -p /tmp >/dev/null && ls -d /workspace /var/tmp/. && pwd"), "/var/tmp/.\n/workspace\n/workspace"),
        (("sh", "-c", "seq 200 | xargs -P 8 -n 1 echo | wc -l"), "200"),
    ],
)
async def test_ordinary_programs_work(
    words: tuple[str, ...], said: str | None, sandboxes: HostSandboxes, workspace: Path
) -> None:
    """Interpreters, compilers, version control and shells work in a sandbox as they do outside."""
    ended = await run(sandboxes, workspace, words)
    assert (ended.code, ended.err) == (0, "")
    assert said is None or ended.out.strip() == said


async def test_a_program_is_found_as_on_the_host(sandboxes: HostSandboxes, workspace: Path) -> None:
    """A name is looked for on PATH, an absolute path is one of the host's, and a program in the workspace can be started."""
    own = workspace / "own"
    own.write_text("#!/bin/sh\necho own $1\n")
    own.chmod(0o755)
    assert (await run(sandboxes, workspace, ("true",))).code == 0
    assert (await run(sandboxes, workspace, ("/bin/true",))).code == 0
    assert (await run(sandboxes, workspace, (sys.executable, "-c", "print(1)"))).out == "1\n"
    assert (await run(sandboxes, workspace, (os.fspath(own), "x y"))).out == "own x y\n"
    for word in ("no-such-program", "/no/such/program", "bin/true", "/etc/passwd", "../true"):
        with pytest.raises(DriverError):
            await run(sandboxes, workspace, (word,))


async def test_the_workspace_is_what_the_profile_says(sandboxes: HostSandboxes, workspace: Path) -> None:
    """A workspace can be changed, or only read, or is not there."""
    words = ("sh", "-c", "pwd; echo new > file && cat file; ls")
    (workspace / "old").write_text("old")
    (workspace / "old").chmod(0o600)
    write = await run(sandboxes, workspace, words)
    assert write.out == "/workspace\nnew\nfile\nold\n"
    assert (workspace / "file").read_text() == "new\n"
    read = await run(sandboxes, workspace, ("sh", "-c", "cat old; echo x > file"), replace(standard(), workspace=Access.READ))
    assert (read.out, read.code != 0) == ("old", True)
    assert (workspace / "file").read_text() == "new\n"
    none = await run(sandboxes, workspace, words, replace(standard(), workspace=Access.NONE))
    # Where this Python itself is below /tmp, that is there too.
    prefix = Path(sys.prefix).parts
    seen = [name for name in none.out.splitlines() if not (prefix[1] == "tmp" and name == prefix[2])]
    assert seen == ["/tmp", "new", "file"]


async def test_it_starts_in_its_folder(sandboxes: HostSandboxes, workspace: Path) -> None:
    """A process starts in the folder that was asked for, and never outside of the workspace."""
    (workspace / "a" / "b").mkdir(parents=True)
    assert (await run(sandboxes, workspace, ("pwd",), folder="a/b")).out == "/workspace/a/b\n"
    for folder in ("..", "a/../..", "/etc"):
        with pytest.raises(DriverError):
            await run(sandboxes, workspace, ("pwd",), folder=folder)
    (workspace / "out").symlink_to("/etc/ssl")
    assert "shadow" not in (await run(sandboxes, workspace, ("ls",), folder="out")).out


async def test_a_session_has_a_user_of_its_own(sandboxes: HostSandboxes, workspace: Path, tmp_path: Path) -> None:
    """Under root each owner's processes are another user, who owns the workspace; nobody is root."""
    other = tmp_path / "home" / "other"
    other.mkdir()
    one = await run(sandboxes, workspace, ("sh", "-c", "id -u; touch mine"))
    two = await run(sandboxes, other, ("id", "-u"), owner="default/s-2")
    assert int(one.out) != 0
    if os.geteuid() == 0:
        assert int(one.out) != int(two.out)
        assert workspace.stat().st_uid == (workspace / "mine").stat().st_uid == int(one.out)


async def test_secrets_are_given_and_nowhere_else(sandboxes: HostSandboxes, workspace: Path) -> None:
    """A secret stands in a file or a variable of the process, and in no words that others see; the file is gone with it."""
    secret = "hunter2-canary"
    launch = Launch(
        ("sh", "-c", "cat /run/secrets/token; echo $TOKEN; sleep 600"),
        standard(),
        workspace,
        "default/s-1",
        env=MARK | {"TOKEN": secret},
        secrets={"token": f"{secret}-file\n"},
    )
    async with asyncio.timeout(30), running(sandboxes, launch) as (place, process):
        assert process.stdout is not None
        assert await process.stdout.readline() == f"{secret}-file\n".encode()
        assert await process.stdout.readline() == f"{secret}\n".encode()
        assert secret not in " ".join(place.argv)
        for words in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                assert secret.encode() not in words.read_bytes()
    ended = await run(sandboxes, workspace, ("ls", "/run/secrets"))
    assert ended.out == ""
    for name in ("../become", "a/b", "..", ""):
        with pytest.raises(DriverError):
            await run(sandboxes, workspace, ("true",), secrets={name: "x"})


async def test_variables_that_the_loader_obeys_reach_the_command_alone(sandboxes: HostSandboxes, workspace: Path) -> None:
    """What would make another program load a library does so in the command, not in what starts it."""
    library = workspace / "library.c"
    library.write_text(
        '#include <unistd.h>\n__attribute__((constructor)) void f(void){if(getuid()==0)write(1,"ROOT\\n",5);write(1,"in\\n",3);}'
    )
    subprocess.run(["/usr/bin/gcc", "-shared", "-fPIC", "-o", workspace / "library.so", library], check=True)
    ended = await run(sandboxes, workspace, ("true",), env={"LD_PRELOAD": "/workspace/library.so"})
    assert (ended.code, ended.out) == (0, "in\n")


async def test_declared_mounts(sandboxes: HostSandboxes, workspace: Path, tmp_path: Path) -> None:
    """A folder of the host is where it was declared to be, and can be changed only if that was declared."""
    shared, file = tmp_path / "shared", tmp_path / "one.txt"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    file.write_text("one")
    (shared / "data").write_text("data")
    mounts = (
        Mount(os.fspath(shared), "/opt/models"),
        Mount(os.fspath(shared), "/tmp/w/rw", write=True),
        Mount(os.fspath(file), "/srv/one"),
    )
    profile = replace(standard(), mounts=mounts)
    words = ("sh", "-c", "cat /opt/models/data /srv/one; echo new > /tmp/w/rw/new; echo x > /opt/models/no")
    ended = await run(sandboxes, workspace, words, profile)
    assert ended.out == "dataone"
    assert (shared / "new").read_text() == "new\n"
    assert not (shared / "no").exists()


async def test_mounts_that_are_refused(sandboxes: HostSandboxes, workspace: Path, tmp_path: Path) -> None:
    """The runtime's home, what holds it, links, and places that the sandbox has itself cannot be mounted."""
    (tmp_path / "link").symlink_to("/etc")
    inside = workspace / "inside"
    inside.mkdir()
    for path, at in (
        (tmp_path / "home", "/mnt/a"),
        (workspace, "/mnt/a"),
        (tmp_path, "/mnt/a"),
        (Path("/"), "/mnt/a"),
        (tmp_path / "link", "/mnt/a"),
        (tmp_path / "none", "/mnt/a"),
        (Path("/opt"), "/proc/x"),
        (Path("/opt"), "/dev"),
        (Path("/opt"), "/run/agentos/x"),
        (Path("/opt"), "/"),
        (Path("/opt"), "/workspace"),
        (Path("/opt"), "/usr/no-such-folder"),
    ):
        profile = replace(standard(), mounts=(Mount(os.fspath(path), at),))
        with pytest.raises(SandboxUnavailable):
            await run(sandboxes, workspace, ("true",), profile)


async def test_the_way_out(sandboxes: HostSandboxes, workspace: Path, tmp_path: Path) -> None:
    """Where a sandbox has a network, what its process says to the proxy it is told of arrives at the socket of the host."""
    path = tmp_path / "egress.sock"
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, path)
    try:
        profile = replace(standard(), network=Network(inspect=True))
        ended = await run(
            sandboxes,
            workspace,
            ("sh", "-c", "curl -s http://example.com/x; cat $SSL_CERT_FILE; exit 3"),
            profile,
            door=Door(path, b"AUTHORITY"),
        )
    finally:
        server.close()
        await server.wait_closed()
    assert (ended.code, ended.out) == (3, "helloAUTHORITY")
    assert heard[0].startswith(b"GET http://example.com/x HTTP/1.1\r\n")


async def test_nobody_outlives_a_place(sandboxes: HostSandboxes, workspace: Path) -> None:
    """A process that left its parent, its session and its streams is dead when its place is left."""
    ended = await run(sandboxes, workspace, ("python3", "-c", STRAY))
    assert ended.code == 0
    written = (workspace / "alive").stat().st_size
    await asyncio.sleep(0.1)
    assert (workspace / "alive").stat().st_size == written > 0


@pytest.mark.parametrize("moment", [0.0, 0.001, 0.003, 0.006, 0.03, 0.12])
async def test_whoever_is_cancelled_leaves_nobody_behind(moment: float, sandboxes: HostSandboxes, workspace: Path) -> None:
    """At whatever moment a call is cancelled, nothing of it runs when that is over."""
    await run(sandboxes, workspace, ("true",))
    for _ in range(5):
        task = asyncio.create_task(run(sandboxes, workspace, ("python3", "-c", SLEEPER)))
        await asyncio.sleep(moment)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert living() == set()


async def test_a_place_that_is_never_used(sandboxes: HostSandboxes, workspace: Path) -> None:
    """A place can be left without a process; and a process that nobody lets begin does not."""
    launch = Launch(("touch", "/workspace/began"), standard(), workspace, "default/s-1", env=MARK)
    await run(sandboxes, workspace, ("true",))
    async with sandboxes.place(launch):
        pass
    async with sandboxes.place(launch) as place:
        process = await asyncio.create_subprocess_exec(
            *place.argv,
            env=dict(place.env),
            cwd=place.cwd,
            pass_fds=tuple(place.pass_fds),
            process_group=0,
            stderr=subprocess.DEVNULL,
        )
    assert await process.wait() != 0
    assert not (workspace / "began").exists()


async def test_a_process_in_the_group_of_the_runtime_does_not_begin(sandboxes: HostSandboxes, workspace: Path) -> None:
    """A process that could signal the runtime's own group is not let in."""
    launch = Launch(("touch", "/workspace/began"), standard(), workspace, "default/s-1", env=MARK)
    with pytest.raises(SandboxUnavailable, match="process group"):  # noqa: PT012 - the place is left by what is raised in it
        async with sandboxes.place(launch) as place:
            process = await asyncio.create_subprocess_exec(
                *place.argv, env=dict(place.env), cwd=place.cwd, pass_fds=tuple(place.pass_fds)
            )
            await place.started(process.pid)
    assert await process.wait() != 0
    assert not (workspace / "began").exists()


async def test_nothing_is_left_after_many(sandboxes: HostSandboxes, workspace: Path) -> None:
    """After hundreds of calls there is no descriptor, process, control group or folder more than before."""

    async def some(count: int) -> None:
        for number in range(count):
            words = ("sh", "-c", "sleep 0.1") if number % 50 == 0 else ("true",)
            assert (await run(sandboxes, workspace, words)).code == 0

    await some(3)
    before = _traces()
    for _ in range(5):
        await asyncio.gather(*(some(25) for _ in range(4)))
    # The first process of each sandbox is reaped by the host's own, in its own time.
    async with asyncio.timeout(20):
        while _traces() != before:
            await run(sandboxes, workspace, ("sleep", "0.1"))


async def test_limits_are_those_of_the_profile(sandboxes: HostSandboxes, workspace: Path) -> None:
    """What a process may use is what was declared, for it and for whatever it starts."""
    profile = replace(standard(), limits=Limits(memory_mib=200, processes=40, cpu_s=7, file_mib=3, tmp_mib=5, open_files=77))
    words = ("sh", "-c", "ulimit -d; ulimit -f; ulimit -n; ulimit -t; df -k --output=size /tmp /dev/shm | tail -n 2")
    ended = await run(sandboxes, workspace, words, profile)
    assert ended.out.split() == ["204800", "6144", "77", "7", "5120", "5120"]


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """No test starts with a process of another one."""
    assert living() == set()


def _traces() -> tuple[object, ...]:
    descriptors = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = str(entry.readlink()).partition(":")[0]
            descriptors[target] = descriptors.get(target, 0) + 1
    groups = sorted(folder.name for folder in Path("/sys/fs/cgroup").glob("*/**/agentos-*") if f"-{os.getpid()}-" in folder.name)
    shared = sorted(path.name for path in Path("/dev/shm").glob(f"agentos-*-{os.getpid()}-*"))
    return descriptors.get("pipe", 0), descriptors.get("anon_inode", 0), len(groups), len(shared), len(living())
