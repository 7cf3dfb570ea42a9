"""Processes in containers of docker or podman: another root file system, and where an OCI runtime such as gVisor's is declared,
another kernel's face.

`container_words` is pure: a launch and what the host has become the words of `run`. Nothing is on by default: no network, a
read-only root, no capabilities, no new privileges, bounds on all. The image is whatever the engine has or fetches under that
name; name it by digest. A way out needs `python3` in the image, since the relay runs inside.

The engine's client is what is started here, so it is given the variables of the process by a file in memory, never by words, and
the container is removed by its name when the place is left, however the client ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import agentos
from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.sandbox.adapters.ending import kill, readable, watched
from agentos.sandbox.adapters.mounts import declared
from agentos.sandbox.adapters.users import give_tree, users
from agentos.sandbox.inside import (
    AUTHORITY,
    PORT,
    RELAY,
    SECRETS,
    SOCKET,
    WORKSPACE,
    Tree,
    apart,
    environment,
    folder_of,
    relayed,
    with_late,
    workspace_at,
)
from agentos.sandbox.port import Launch, Place, SandboxUnavailable
from agentos.sandbox.profile import Access, Profile

_log = logging.getLogger(__name__)

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENGINES: Final = ("podman", "docker")
_CLIENT: Final = (
    "HOME",
    "PATH",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "CONTAINER_HOST",
)
"""Variables of the runtime that the engine's client needs; no process in a container sees them."""

_ASK_S: Final = 20.0
_DEATH_S: Final = 30.0
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Given:
    """What the words of one container refer to."""

    engine: str
    name: str
    variables: str
    """The file of its variables."""
    uid: int
    trees: tuple[Tree, ...] = ()
    """What is mounted beside the workspace."""
    relay: str | None = None
    shared: bool = False
    """Whether the engine is podman without root, which must be told to keep the runtime's user."""


def container_words(launch: Launch, given: Given) -> tuple[str, ...]:
    """The words to start the client of the engine with. No variable's value is among them."""
    profile = launch.profile
    limits = profile.limits
    size = f"{limits.tmp_mib}m"
    words = [given.engine, "run", "--rm", "--interactive", "--init", "--name", given.name, "--hostname", "sandbox"]
    if profile.runtime:
        words += ("--runtime", profile.runtime)
    words += ("--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--ipc", "private")
    words += ("--user", f"{given.uid}:{given.uid}")
    if given.shared:
        words += ("--userns", "keep-id")
    memory = f"{limits.memory_mib}m"
    words += ("--memory", memory, "--memory-swap", memory, "--pids-limit", str(limits.processes), "--shm-size", size)
    words += ("--tmpfs", f"/tmp:rw,nosuid,nodev,size={size},mode=1777")  # noqa: S108 - the container's own
    words += ("--ulimit", "core=0:0", "--ulimit", f"nofile={limits.open_files}:{limits.open_files}")
    words += ("--ulimit", f"fsize={limits.file_mib * _MIB}:{limits.file_mib * _MIB}")
    if limits.cpu_s is not None:
        words += ("--ulimit", f"cpu={limits.cpu_s}:{limits.cpu_s}")
    if profile.workspace is not Access.NONE:
        words += _mounted(Tree(os.fspath(launch.workspace), WORKSPACE, profile.workspace is Access.WRITE))
    for tree in given.trees:
        words += _mounted(tree)
    words += ("--workdir", folder_of(launch), "--env-file", given.variables, "--entrypoint", "", "--", profile.image)
    command = launch.command
    if given.relay is not None:
        words += relayed("python3", RELAY, SOCKET, PORT, command)
    else:
        words += command
    return tuple(words)


def variables_file(env: Mapping[str, str]) -> bytes:
    """Variables as `--env-file` reads them. Raises DriverError for one that cannot stand in it."""
    for name, value in env.items():
        if "\n" in value or "\r" in value or "\0" in value:
            raise DriverError(f"the variable {name} has several lines, which a container cannot be given", mend="use a file")
    return "".join(f"{name}={value}\n" for name, value in env.items()).encode()


def _mounted(tree: Tree) -> tuple[str, str]:
    if "," in tree.source or "," in tree.at or '"' in tree.source + tree.at:
        raise SandboxUnavailable(f"{tree.source} cannot be mounted in a container", mend="use a path without commas and quotes")
    return "--mount", f"type=bind,source={tree.source},target={tree.at}" + ("" if tree.write else ",readonly")


class Containers:
    """Places in containers."""

    def __init__(self, home: Path | None, environ: Mapping[str, str]) -> None:
        """`home`: the runtime's own folder; `environ`: the variables that the engine's client is given some of."""
        self._home = home
        self._client = {name: environ[name] for name in _CLIENT if name in environ}
        self._answered: set[str] = set()

    def place(self, launch: Launch) -> AbstractAsyncContextManager[Place]:
        """See `Sandboxes.place`."""
        return self._place(launch)

    def workspace(self, workspace: Path) -> str:
        """Where the workspace is found."""
        return WORKSPACE

    @asynccontextmanager
    async def _place(self, launch: Launch) -> AsyncIterator[Place]:
        profile = launch.profile
        engine = _engine(profile, self._client.get("PATH", _PATH))
        if engine not in self._answered:
            await self._ask(engine)
            self._answered.add(engine)
        able = users()
        uid = able.of(launch.owner) if able.root else os.geteuid()
        name = f"agentos-{secrets.token_hex(8)}"
        with contextlib.ExitStack() as files:
            trees = [declared(mount, self._home, ()) for mount in profile.mounts]
            try:
                if able.root and profile.workspace is not Access.NONE and launch.workspace.lstat().st_uid != uid:
                    await asyncio.to_thread(give_tree, launch.workspace, uid)
                trees += _files(launch, uid, files, root=able.root)
            except OSError as error:
                raise SandboxUnavailable(f"the files of a container cannot be given to its user: {error.strerror}") from error
            proxy = None if launch.door is None else f"http://127.0.0.1:{PORT}"
            authority = AUTHORITY if launch.door is not None and launch.door.authority is not None else None
            home = workspace_at(profile)
            env, late = apart(environment(launch, _PATH, proxy=proxy, authority=authority, home=home))
            stored = os.memfd_create("variables", os.MFD_CLOEXEC)
            files.callback(os.close, stored)
            os.write(stored, variables_file(env))
            os.lseek(stored, 0, os.SEEK_SET)
            given = Given(
                engine=engine,
                name=name,
                variables=f"/proc/self/fd/{stored}",
                uid=uid,
                trees=tuple(trees),
                relay=None if launch.door is None else RELAY,
                shared=Path(engine).name == "podman" and not able.root,
            )
            late_launch = launch if not late else _with_command(launch, with_late(launch.command, late))
            place = ContainerPlace(container_words(late_launch, given), self._client, profile, (stored,), given)
            try:
                yield place
            finally:
                await place.end()

    async def _ask(self, engine: str) -> None:
        """Whether the engine answers. Raises SandboxUnavailable."""
        code, said = await _run((engine, "version"), self._client, _ASK_S)
        if code != 0:
            lines = said.strip().splitlines()
            raise SandboxUnavailable(
                f"{Path(engine).name} does not answer: {lines[-1] if lines else 'it failed'}",
                mend="start its daemon and let the runtime's user talk to it, or declare `isolation: bubblewrap`",
            )


@dataclass(slots=True)
class ContainerPlace:
    """See `sandbox.port.Place`."""

    argv: Sequence[str]
    env: Mapping[str, str]
    profile: Profile
    pass_fds: Sequence[int]
    given: Given
    cwd: str = "/"
    _watched: int | None = field(default=None, init=False)

    async def started(self, pid: int) -> None:
        """See `Place.started`. The engine sets the limits before the program begins."""
        self._watched = watched(pid)

    def report(self) -> dict[str, Json]:
        return self.profile.told() | {"limits": "cgroup"}

    async def end(self) -> None:
        """Remove the container, which may be there even if its client is not, and kill the client."""
        try:
            code, said = await _run((self.given.engine, "rm", "--force", "--volumes", self.given.name), self.env, _DEATH_S)
            if code != 0 and "no such container" not in said.lower():
                _log.error("container %s could not be removed: %s", self.given.name, said.strip()[-300:])
        finally:
            if self._watched is not None:
                kill(self._watched)
                try:
                    await readable(self._watched, _DEATH_S)
                finally:
                    os.close(self._watched)


def _engine(profile: Profile, path: str) -> str:
    """The client of the engine. Raises SandboxUnavailable."""
    names = (profile.engine,) if profile.engine else _ENGINES
    for name in names:
        if (found := shutil.which(name, path=path)) is not None:
            return found
    raise SandboxUnavailable(
        f"there is no {' or '.join(names)} on this host", mend="install one of them, or declare `isolation: bubblewrap`"
    )


def _files(launch: Launch, uid: int, files: contextlib.ExitStack, *, root: bool) -> list[Tree]:
    """What is written for one container and mounted there: secrets, the authority, the relay and its socket."""
    trees: list[Tree] = []
    contents: dict[str, bytes] = {}
    for name, text in launch.secrets.items():
        if "/" in name or name in {"", ".", ".."}:
            raise DriverError(f"{name!r} is not the name of a file below {SECRETS}", mend="write a name without slashes")
        contents[f"{SECRETS}/{name}"] = text.encode()
    if launch.door is not None:
        trees.append(Tree(os.fspath(Path(agentos.__file__).parent / "egress" / "relay.py"), RELAY))
        trees.append(Tree(os.fspath(launch.door.socket), SOCKET))
        if root and launch.door.socket.lstat().st_uid != uid:
            os.chown(launch.door.socket, uid, uid, follow_symlinks=False)
        if launch.door.authority is not None:
            contents[AUTHORITY] = launch.door.authority
    if contents:
        # In memory: a secret is never written to a disk.
        shared = Path("/dev/shm")  # noqa: S108 - a folder of its own in it
        folder = Path(files.enter_context(tempfile.TemporaryDirectory(prefix="agentos-container-", dir=shared)))
        for number, (at, content) in enumerate(contents.items()):
            path = folder / str(number)
            path.touch(mode=0o400)
            path.write_bytes(content)
            if root:
                os.chown(path, uid, uid)
            trees.append(Tree(os.fspath(path), at))
    return trees


def _with_command(launch: Launch, command: tuple[str, ...]) -> Launch:
    from dataclasses import replace

    return replace(launch, command=command)


async def _run(words: Sequence[str], env: Mapping[str, str], seconds: float) -> tuple[int, str]:
    """Run the client of an engine to its end; its exit code and what it said. Raises SandboxUnavailable."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise SandboxUnavailable(f"{words[0]} cannot be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(seconds):
            _, said = await process.communicate()
    except TimeoutError:
        return 1, f"no answer within {seconds:.0f} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, said.decode("utf-8", "replace")
