"""What runs inside a sandbox and tries to get out of it: a program of its own, of the standard library alone.

    python -I -S -c SOURCE ATTEMPT FACTS

ATTEMPT is a name of `ATTEMPTS`, FACTS a JSON object that says where there is something to get. It prints one JSON object:
`{worked: [what], refused: {what: name of the error}, seen: text that was read, notes: {…}}`. Where it works it does no harm:
what is filled is bounded, what is killed was started for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import signal
import socket
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

Facts = dict[str, Any]

_CALLS: Final[dict[str, int]] = {}
"""Numbers of system calls on this machine, from the facts."""

_NAMESPACES: Final = {"user": 0x10000000, "mount": 0x00020000, "network": 0x40000000, "pid": 0x20000000}
_MIB: Final = 1024 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


class Told:
    """What came of an attempt."""

    def __init__(self) -> None:
        self.worked: list[str] = []
        self.refused: dict[str, str] = {}
        self.seen = ""
        self.notes: dict[str, Any] = {}

    @contextlib.contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """`what` has worked, unless the block raises OSError or MemoryError."""
        try:
            yield
        except TimeoutError:
            self.refused[what] = "ETIMEDOUT"
        except OSError as error:
            self.refused[what] = errno.errorcode.get(error.errno or 0, type(error).__name__)
        except MemoryError:
            self.refused[what] = "ENOMEM"
        else:
            self.worked.append(what)

    def read(self, path: str | Path, what: str = "") -> None:
        with self.trying(what or str(path)):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            try:
                self.seen += os.read(descriptor, 65536).decode("utf-8", "replace")
            finally:
                os.close(descriptor)


def _syscall(name: str, *args: object) -> int:
    number = _CALLS[name]
    ctypes.set_errno(0)
    result: int = _libc.syscall(ctypes.c_long(number), *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def passwords(_: Facts, told: Told) -> None:
    for path in ("/etc/shadow", "/proc/1/root/etc/shadow", "/proc/self/root/../etc/shadow", "/etc/gshadow"):
        told.read(path)


def files(facts: Facts, told: Told) -> None:
    """Files of others: by their paths, by the roots of processes, by climbing out of the folder that one stands in."""
    for path in facts["paths"]:
        told.read(path, "its path")
        told.read(f"/proc/1/root{path}", "the root of process 1")
        told.read("../" * 32 + path.lstrip("/"), "the folder above")
        told.read(f"/proc/{facts['pid']}/root{path}", "the root of another process")


def descriptors(facts: Facts, told: Told) -> None:
    """What was left open, here and by a process of the host. Of pipes nothing is taken: it belongs to somebody."""
    for folder, first in (("/proc/self/fd", 3), (f"/proc/{facts['pid']}/fd", 0)):
        with told.trying(folder):
            found = [path for path in Path(folder).iterdir() if int(path.name) >= first and path.exists()]
            for path in filter(Path.is_file, found):
                told.read(path, "a descriptor")
            if not found:
                raise OSError(errno.EBADF, folder)


def processes(facts: Facts, told: Told) -> None:
    """The environment, the memory and the files of processes of the host."""
    process = Path("/proc") / str(facts["pid"])
    told.read(process / "environ", "environ")
    with told.trying("mem"):
        first = (process / "maps").read_text().split("-", 1)[0]
        with (process / "mem").open("rb", buffering=0) as memory:
            memory.seek(int(first, 16))
            memory.read(16)
    with told.trying("root"):
        list((process / "root").iterdir())
    for other in Path("/proc").iterdir():
        if other.name.isdecimal() and other.name not in {"1", str(os.getpid())}:
            told.read(other / "environ", "environ of another process")


def tracing(facts: Facts, told: Told) -> None:
    """Debugging a process of the host, reading its memory, being debugged."""
    attach, detach, traced, pid = 16, 17, 0, facts["pid"]
    with told.trying("attach to a process of the host"):
        _syscall("ptrace", attach, pid, None, None)
        os.waitpid(pid, 0)
        _syscall("ptrace", detach, pid, None, None)
    with told.trying("read the memory of a process of the host"):
        buffer = ctypes.create_string_buffer(8)
        local = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(buffer), 8))
        remote = ctypes.create_string_buffer(struct.pack("PN", facts["address"], 8))
        _syscall("process_vm_readv", pid, local, 1, remote, 1, 0)
    _in_child(told, "be traced", partial(_syscall, "ptrace", traced, 0, None, None))


def signals(facts: Facts, told: Told) -> None:
    with told.trying("SIGTERM"):
        os.kill(facts["pid"], signal.SIGTERM)


def network(facts: Facts, told: Told) -> None:
    """Listeners of the host."""
    for host, port in facts["tcp"]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with told.trying(f"TCP {host}"), socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(1)
            connection.connect((host, port))
            connection.sendall(b"hello")


def proxied(facts: Facts, told: Told) -> None:
    """The same through the proxy, as a tunnel and as a request, by address and by name."""
    proxy = os.environ["HTTP_PROXY"].removeprefix("http://").split(":")
    port = facts["tcp"][0][1]
    hosts = ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0x7f000001", "127.1", "0.0.0.0", "169.254.169.254")  # noqa: S104
    for host in hosts:
        for line in (f"CONNECT {host}:{port}", f"GET http://{host}:{port}/"):
            with socket.create_connection((proxy[0], int(proxy[1])), 5) as connection:
                connection.sendall(f"{line} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                status = connection.recv(4096).split()[1:2]
            if not status:
                raise ConnectionError(f"the proxy does not answer {line}")
            if status in ([b"403"], [b"400"]):
                told.refused[line] = "proxy"
            else:
                told.worked.append(f"{line} was answered {status}")


def names(facts: Facts, told: Told) -> None:
    """A name server of the host, and whichever the resolver of the system finds."""
    query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01"
    with told.trying("UDP"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(1)
        connection.connect(tuple(facts["udp"]))
        connection.send(query)
        connection.recv(512)
    with told.trying("the resolver"):
        signal.setitimer(signal.ITIMER_REAL, 3)
        try:
            socket.getaddrinfo("example.com", 443)
        except socket.gaierror as error:
            raise OSError(errno.EHOSTUNREACH, str(error)) from error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def packets(_: Facts, told: Told) -> None:
    """Sockets below TCP and UDP, and the one to the hypervisor, which belongs to no network namespace."""
    for what, family, kind, protocol in (
        ("raw", socket.AF_INET, socket.SOCK_RAW, 1),
        ("packet", socket.AF_PACKET, socket.SOCK_RAW, 0),
        ("vsock", 40, socket.SOCK_STREAM, 0),
    ):
        with told.trying(what), socket.socket(family, kind, protocol):
            pass


def unix_sockets(facts: Facts, told: Told) -> None:
    for what, address in (("by its path", facts["unix"]), ("without a path", "\0" + facts["abstract"])):
        with told.trying(what), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(address)
            connection.sendall(b"hello")


def forks(facts: Facts, told: Told) -> None:
    """More children than there may be; they sleep, and are killed."""
    children: list[int] = []
    try:
        with told.trying("fork"):
            while len(children) < facts["processes"] + 16:
                child = os.fork()
                if child == 0:
                    signal.pause()
                children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def memory(facts: Facts, told: Told) -> None:
    """More than there may be in one process: of its own, and such as could be shared."""
    with told.trying("one process"):
        _hold(bytearray(facts["memory_mib"] * 3 // 2 * _MIB))
    with told.trying("shared memory"):
        _hold(mmap.mmap(-1, facts["memory_mib"] * 6 * _MIB))


def memory_together(facts: Facts, told: Told) -> None:
    """The same in eight processes, each of which stays below the limit."""
    children = []
    with told.trying("several processes"):
        try:
            for _ in range(8):
                reader, writer = os.pipe()
                child = os.fork()
                if child == 0:
                    _hold_and_say(facts["memory_mib"] * 3 // 4, writer)
                children.append(child)
                os.close(writer)
                # Whoever has no room dies, and so does who had some, to make it.
                if not os.read(reader, 1) or any(os.waitpid(held, os.WNOHANG)[0] for held in children):
                    raise MemoryError
        finally:
            for child in children:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)


def _hold(held: bytearray | mmap.mmap) -> None:
    for place in range(0, len(held), 4096):
        held[place] = 1


def _hold_and_say(mib: int, writer: int) -> None:
    try:
        held = bytearray(mib * _MIB)
        _hold(held)
        os.write(writer, b"x")
        signal.pause()
    finally:
        os._exit(0)


def disk(facts: Facts, told: Told) -> None:
    """More than /tmp may take, in each folder that takes anything and is no workspace."""
    for folder in ("/tmp", "/dev/shm", "/run", "/var/tmp", "/dev", "/"):  # noqa: S108 - these are what is attacked
        path = Path(folder) / "agentos-escape"
        with told.trying(folder):
            _fill(path, facts["tmp_mib"] + 8)


def large_file(facts: Facts, told: Told) -> None:
    with told.trying("the workspace"):
        _fill(Path("agentos-escape"), facts["file_mib"] + 8)


def _fill(path: Path, mib: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for _ in range(mib):
            written = os.write(descriptor, b"\1" * _MIB)
            if written < _MIB:
                raise OSError(errno.ENOSPC, "no more")
    finally:
        os.close(descriptor)
        path.unlink()


def namespaces(_: Facts, told: Told) -> None:
    """Namespaces of one's own, in which one is root; each in a child, since one that works changes whoever asks."""
    for name, flag in _NAMESPACES.items():
        _in_child(told, f"{name} namespace", partial(_syscall, "unshare", flag))


def mounts(_: Facts, told: Told) -> None:
    """Mounts: something new, and what is there with more rights; where it works, in namespaces of a child's own."""
    remount, bind = 32, 4096
    _in_child(told, "a new one", partial(_mount_apart, b"/tmp", b"tmpfs", 0))
    _in_child(told, "/usr for writing", partial(_mount_apart, b"/usr", None, remount | bind))


def _mount_apart(path: bytes, kind: bytes | None, flags: int) -> None:
    recursive, private = 16384, 1 << 18
    _syscall("unshare", _NAMESPACES["mount"])
    _syscall("mount", b"none", b"/", None, recursive | private, None)
    _syscall("mount", b"none", path, kind, flags, None)


def _in_child(told: Told, what: str, act: Callable[[], object]) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = 0
        try:
            act()
        except OSError as error:
            said = error.errno or errno.EIO
        finally:
            os.write(writer, bytes([said]))
            os._exit(0)
    os.close(writer)
    said_by_child = os.read(reader, 1)
    os.close(reader)
    os.waitpid(child, 0)
    with told.trying(what):
        if said_by_child != b"\0":
            raise OSError(said_by_child[0] if said_by_child else errno.EIO, what)


def setuid(_: Facts, told: Told) -> None:
    """Programs that would make root of whoever starts them: as whom they really run."""
    for name in ("su", "mount", "passwd", "sudo", "newgrp"):
        path = shutil.which(name, path="/usr/bin:/bin")
        if path is None or not Path(path).stat().st_mode & 0o4000:
            continue
        with told.trying(path):
            child = os.fork()
            if child == 0:
                nothing = os.open("/dev/null", os.O_RDWR)
                for descriptor in (0, 1, 2):
                    os.dup2(nothing, descriptor)
                os.execv(path, [path, "--help"])  # noqa: S606 - started to be looked at
            # What has ended still says as whom it ran, until it is waited for.
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
            status = Path(f"/proc/{child}/status").read_text()
            os.waitpid(child, 0)
            if next(line.split()[2] for line in status.splitlines() if line.startswith("Uid:")) != "0":
                raise PermissionError(errno.EACCES, "no root")


def system_files(facts: Facts, told: Told) -> None:
    """Files of the system: new ones beside them, and the knobs of the kernel."""
    for folder in facts["folders"]:
        with told.trying(f"a file in {folder}"):
            (Path(folder) / facts["name"]).write_text("here")
    for path in (
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/kernel/uevent_helper",
    ):
        with told.trying(path):
            os.close(os.open(path, os.O_WRONLY))


def devices(facts: Facts, told: Told) -> None:
    """Devices of the machine, those that are there and one that is made."""
    block = facts["block"]
    for path in ("/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/net/tun", *block[:1]):
        with told.trying(path):
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    with told.trying("a node of its own"):
        path = Path("agentos-escape-node")
        os.mknod(path, 0o020600, os.makedev(1, 1))
        try:
            os.close(os.open(path, os.O_RDONLY))
        finally:
            path.unlink()


def keyrings(_: Facts, told: Told) -> None:
    """The keys that the kernel keeps for a user, which belong to no namespace of files."""
    session = -3
    with told.trying("add_key"):
        _syscall("add_key", b"user", b"agentos-escape", b"x", 1, session)
    with told.trying("keyctl"):
        _syscall("keyctl", 0, -4, 0)


def kernel_calls(_: Facts, told: Told) -> None:
    """Calls into parts of the kernel that no tool needs, and where its faults are found."""
    nothing = ctypes.create_string_buffer(128)
    with told.trying("bpf"):
        _syscall("bpf", 0, ctypes.create_string_buffer(struct.pack("IIIII", 2, 4, 4, 1, 0) + bytes(100)), 72)
    with told.trying("perf_event_open"):
        event = ctypes.create_string_buffer(struct.pack("IIQ", 1, 112, 0) + bytes(24) + struct.pack("Q", 0x60) + bytes(64))
        _syscall("perf_event_open", event, 0, -1, -1, 0)
    with told.trying("userfaultfd"):
        _syscall("userfaultfd", 1)
    with told.trying("io_uring_setup"):
        _syscall("io_uring_setup", 4, nothing)


def terminal(_: Facts, told: Told) -> None:
    """Typing into the terminal that the runtime was started from."""
    with told.trying("/dev/tty"):
        descriptor = os.open("/dev/tty", os.O_RDWR)
        fcntl.ioctl(descriptor, termios.TIOCSTI, b"x")
    for descriptor in (0, 1, 2):
        with told.trying("a descriptor of its own"):
            fcntl.ioctl(descriptor, termios.TIOCSTI, b"x")


_REACHING: Final = (passwords, files, descriptors, processes, tracing, signals, network, proxied, names, packets, unix_sockets)
_TAKING: Final = (forks, memory, memory_together, disk, large_file)
_RISING: Final = (namespaces, mounts, setuid, system_files, devices, keyrings, kernel_calls, terminal)
ATTEMPTS: Final[dict[str, Callable[[Facts, Told], None]]] = {
    one.__name__.replace("_", "-"): one for one in (*_REACHING, *_TAKING, *_RISING)
}


_ABOUT: Final = {"Uid", "NoNewPrivs", "Seccomp", "CapEff"}
"""What the kernel says of a process: its users, whether its calls are filtered, what it may do."""


def main(name: str, facts: str) -> None:
    """Make one attempt, and print what came of it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _too_late)
    told = Told()
    lines = Path("/proc/self/status").read_text().splitlines()
    told.notes["status"] = {name: value.strip() for name, value in (line.split(":", 1) for line in lines) if name in _ABOUT}
    known = json.loads(facts)
    _CALLS.update(known["calls"])
    ATTEMPTS[name](known, told)
    answer = {"worked": sorted(set(told.worked)), "refused": told.refused, "seen": told.seen[:_MIB], "notes": told.notes}
    print(json.dumps(answer))


def _too_late(number: int, frame: object) -> None:
    del number, frame
    raise TimeoutError


if __name__ == "__main__":
    main(*sys.argv[1:])
