"""Programs that try to get out of a sandbox, and what each of them must say in the end.

`ATTEMPTS` are run twice: by a runtime of root in the tests' own process, and by one of an ordinary user, in a process of that
user's (`python sandbox_attempts.py FOLDER`, which prints the answers as JSON). Each program is Python and prints what it got.
"""

# ruff: noqa: E501 - programs and their answers are easier to compare with a line for a line
from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sandbox_run import Ended, run

from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.profile import Limits, Profile, standard

CANARY = "canary-7f3a9c"
"""A text that only the host has: in files, in the environment of a process, behind a listener."""

SMALL = Limits(memory_mib=128, processes=24, file_mib=8, tmp_mib=8, open_files=64, cpu_s=20)


@dataclass(frozen=True)
class Attempt:
    """What is tried: a program, in which `HOST` is what `Bait.told` knows; and all that it may print, line by line."""

    program: str
    said: str
    code: int = 0
    limits: Limits = SMALL


BASE = """
import ctypes, errno, json, os, socket, struct, sys
HOST = json.loads(os.environ["HOST"])
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return errno.errorcode[ctypes.get_errno()] if result == -1 else "DONE"
def refused(act):
    try:
        print("GOT", act())
    except OSError:
        print("refused")
def tried(name, act):
    try:
        print(name, "GOT", act())
    except OSError as error:
        print(name, errno.errorcode[error.errno])
"""

X86 = os.uname().machine == "x86_64"

ATTEMPTS: dict[str, Attempt] = {
    "files of the host": Attempt(
        """
for name in ("/etc/shadow", "/etc/sudoers", "/root/.ssh", HOST["secret"], HOST["other"], HOST["home"], "/sys/kernel", "/boot"):
    try:
        os.stat(name); print("GOT", name)
    except OSError as error:
        print(errno.errorcode[error.errno])
""",
        "ENOENT\n" * 8,
    ),
    "links that lead out": Attempt(
        """
for number, target in enumerate((HOST["secret"], HOST["home"], "/etc/shadow", "../../../../../../../../" + HOST["secret"])):
    os.symlink(target, f"link-{number}")
    try:
        print("GOT", open(f"link-{number}").read())
    except OSError as error:
        print(errno.errorcode[error.errno])
""",
        "ENOENT\n" * 4,
    ),
    "the network": Attempt(
        """
def reach(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.settimeout(5)
        link.connect(address)
        return link.recv(100)
tried("loopback", lambda: reach(socket.AF_INET, ("127.0.0.1", HOST["port"])))
tried("host", lambda: reach(socket.AF_INET, (HOST["address"], HOST["port"])))
tried("far", lambda: reach(socket.AF_INET, ("192.0.2.1", 443)))
tried("far6", lambda: reach(socket.AF_INET6, ("2001:db8::1", 443)))
tried("metadata", lambda: reach(socket.AF_INET, ("169.254.169.254", 80)))
tried("datagram", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)))
tried("path", lambda: reach(socket.AF_UNIX, HOST["socket"]))
tried("abstract", lambda: reach(socket.AF_UNIX, "\\0" + HOST["abstract"]))
try:
    print("GOT", socket.getaddrinfo("example.com", 443))
except socket.gaierror:
    print("no name")
print([name for _, name in socket.if_nameindex()])
""",
        "loopback ECONNREFUSED\nhost ENETUNREACH\nfar ENETUNREACH\nfar6 ENETUNREACH\nmetadata ENETUNREACH\ndatagram ENETUNREACH\n"
        "path ENOENT\nabstract ECONNREFUSED\nno name\n['lo']\n",
    ),
    "processes of the host": Attempt(
        """
import signal
seen = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
print(len(seen) <= 3, os.getpid() in seen)
found = []
for pid in seen:
    for part in ("environ", "cmdline"):
        try:
            found.append(open(f"/proc/{pid}/{part}", "rb").read())
        except OSError:
            pass
print(HOST["canary"].encode() in b"".join(found).replace(os.environ["HOST"].encode(), b""))
tried("signal", lambda: os.kill(HOST["pid"], 9))
refused(lambda: os.listdir("/proc/1/root/home"))
refused(lambda: open("/proc/1/environ", "rb").read())
refused(lambda: open("/proc/1/mem", "r+b"))
tried("everybody", lambda: os.kill(-1, signal.SIGKILL))
""",
        "True True\nFalse\nsignal ESRCH\nrefused\nrefused\nrefused\neverybody ESRCH\n",
    ),
    "a bomb of processes": Attempt(
        """
import time
children = 0
try:
    while children < 500:
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        children += 1
    print("GOT", children)
except BlockingIOError:
    print(children < 120)
""",
        "True\n",
    ),
    "memory of one process": Attempt(
        """
try:
    held = b"x" * (200 * 1024 * 1024)
    print("GOT", len(held))
except MemoryError:
    print("refused")
""",
        "refused\n",
    ),
    "disks": Attempt(
        """
def fill(path):
    for number in range(20):
        with open(f"{path}-{number}", "wb", buffering=0) as file:
            for _ in range(112 if path != "/workspace/full" else 1000):
                if file.write(b"x" * 65536) < 65536:
                    break
for path in ("/tmp/full", "/dev/shm/full", "/workspace/full", "/full", "/usr/full", "/etc/full", "/dev/full2", "/run/full", "/run/agentos/full"):
    try:
        print("GOT", path, fill(path))
    except OSError as error:
        print(errno.errorcode[error.errno] if error.errno not in (errno.EROFS, errno.EACCES) else "refused")
""",
        "ENOSPC\nENOSPC\nEFBIG\n" + "refused\n" * 6,
    ),
    "programs that set their user": Attempt(
        """
import subprocess
uid = os.getuid()
print(uid != 0, os.geteuid() == uid, os.getgroups())
found = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(found["NoNewPrivs"], found["CapEff"], found["CapPrm"], found["CapAmb"], found["Seccomp"])
print([line.split()[4] for line in open("/proc/self/mountinfo") if "nosuid" not in line.split()[5].split(",")])
if os.path.exists("/workspace/setuid"):
    assert os.stat("/workspace/setuid").st_mode & 0o4000
    assert subprocess.run(["/workspace/setuid", "-u"], capture_output=True, text=True).stdout == f"{uid}\\n"
for act in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.chroot("/usr")):
    refused(act)
""",
        "True True []\n1 0000000000000000 0000000000000000 0000000000000000 2\n[]\n" + "refused\n" * 4,
    ),
    "devices": Attempt(
        """
known = {"core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}
print(sorted(set(os.listdir("/dev")) - known))
tried("memory", lambda: os.mknod("/tmp/mem", 0o600 | 0o20000, os.makedev(1, 1)))
tried("terminal", lambda: os.open("/dev/tty", os.O_RDWR))
for name in ("/proc/sysrq-trigger", "/proc/kcore", "/proc/1/mem", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory"):
    try:
        open(name, "r+").write("x"); print("GOT", name)
    except OSError:
        print("refused")
""",
        "[]\nmemory EPERM\nterminal ENXIO\n" + "refused\n" * 6,
    ),
    "a terminal's input": Attempt(
        """
import fcntl, pty
leader, follower = pty.openpty()
for request in (0x5412, 0x5412 | 1 << 32, 0x541C):
    number = ctypes.c_ulong(request)
    libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p)
    ctypes.set_errno(0)
    print(libc.ioctl(follower, number, b"x"), errno.errorcode.get(ctypes.get_errno()))
""",
        "-1 EPERM\n" * 3,
    ),
    "dumps": Attempt(
        """
import resource, signal
print(resource.getrlimit(resource.RLIMIT_CORE))
pid = os.fork()
if pid == 0:
    os.chdir("/workspace")
    os.kill(os.getpid(), signal.SIGSEGV)
_, status = os.waitpid(pid, 0)
print(os.WTERMSIG(status), os.WCOREDUMP(status), [name for name in os.listdir("/workspace") if name.startswith("core")])
""",
        "(1, 1)\n11 False []\n",
    ),
    "families of addresses": Attempt(
        """
for family, kind, protocol in ((40, 1, 0), (17, 3, 0), (38, 5, 0), (16, 3, 9), (16, 3, 12), (31, 3, 1), (29, 3, 1), (44, 3, 0), (9, 1, 0)):
    tried(str(family), lambda: socket.socket(family, kind, protocol))
print(call(41, 17 | 1 << 32, 3, 0))
for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
    socket.socket(family).close()
socket.socket(16, 3, 0).close()
print(socket.getaddrinfo("localhost", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4])
""",
        "".join(f"{family} EPERM\n" for family in (40, 17, 38, 16, 16, 31, 29, 44, 9)) + "EPERM\n('127.0.0.1', 80)\n",
    ),
    "where it is": Attempt(
        """
print(socket.gethostname(), os.getcwd(), os.environ["HOME"])
print(sorted(os.listdir("/proc/self/fd"))[:3], len(os.listdir("/proc/self/fd")))
print(sorted(set(os.environ) - {"HOST", "MARK", "PATH", "HOME", "USER", "LOGNAME", "PWD", "LC_CTYPE", "SHLVL", "_"}))
""",
        "sandbox /workspace /workspace\n['0', '1', '2'] 4\n[]\n",
    ),
}

if X86:
    # Numbers of x86_64. 56: clone, 272: unshare, 308: setns, 165: mount, 101: ptrace …
    ATTEMPTS["system calls"] = Attempt(
        """
for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
    print(call(56, flag | 17, 0, 0, 0, 0), call(272, flag))
print(call(435, 0, 0), call(425, 1, 0), call(308, 0, 0))
path = ctypes.c_char_p(b"/tmp")
print(call(165, path, path, path, 0, 0), call(166, path, 0), call(155, path, path), call(428, 0, path, 0), call(430, path, 0))
print(call(429, 0, path, 0, path, 0), call(442, 0, path, 0, 0, 0))
print(call(101, 0, 0, 0, 0), call(310, 1, 0, 0, 0, 0, 0), call(311, 1, 0, 0, 0, 0, 0), call(312, 1, 1, 0, 0, 0), call(438, 0, 0, 0))
print(call(248, path, path, 0, 0, -3), call(249, path, path, 0, -3), call(250, 0, -3, 1))
print(call(321, 0, 0, 0), call(298, 0, 0, 0, 0, 0), call(323, 0), call(246, 0, 0, 0, 0), call(320, 0, 0, 0, 0, 0))
print(call(175, 0, 0, path), call(313, 0, path, 0), call(176, path, 0), call(303, 0, path, 0, 0, 0), call(304, 0, 0, 0))
print(call(169, 0, 0, 0, 0), call(167, path, 0), call(163, path), call(164, 0, 0), call(227, 0, 0), call(179, 0, path, 0, 0))
print(call(135, 0x0400000), call(135, 0x80400000), call(135, 0xFFFFFFFE), call(135, 0xFFFFFFFF), call(135, 0x0040000), call(135, 0))
""",
        "EPERM EPERM\n" * 7
        + "ENOSYS ENOSYS EPERM\nEPERM EPERM EPERM EPERM EPERM\nEPERM EPERM\nEPERM EPERM EPERM EPERM EPERM\nEPERM EPERM EPERM\n"
        + "EPERM EPERM EPERM EPERM EPERM\nEPERM EPERM EPERM EPERM EPERM\nEPERM EPERM EPERM EPERM EPERM EPERM\nEPERM EPERM EPERM DONE DONE DONE\n",
    )
    # mov eax, 20; int 0x80; ret: getpid of i386. And getpid of x32.
    ATTEMPTS["system calls of i386"] = Attempt(
        """
import mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))
pid = os.fork()
if pid == 0:
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    print("GOT")
    os._exit(0)
_, status = os.waitpid(pid, 0)
print(os.WIFSIGNALED(status) and os.WTERMSIG(status))
pid = os.fork()
if pid == 0:
    libc.syscall(ctypes.c_long(0x40000000 | 39))
    print("GOT")
    os._exit(0)
_, status = os.waitpid(pid, 0)
print(os.WIFSIGNALED(status) and os.WTERMSIG(status))
""",
        "31\n31\n",
    )


@dataclass(frozen=True)
class Bait:
    """What there is to get, and where."""

    workspace: Path
    told: dict[str, object]


@contextlib.contextmanager
def bait(folder: Path) -> Iterator[Bait]:
    """Lay it out below `folder`, with listeners of this process."""
    home, workspace, other = folder / "home", folder / "home" / "mine", folder / "home" / "other"
    for place in (home, workspace, other):
        place.mkdir(exist_ok=True)
    secret = other / "secret"
    secret.write_text(CANARY)
    path = folder / "listener"
    with contextlib.ExitStack() as stack:
        listeners = [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_INET)]
        for listener, address in zip(listeners, (os.fspath(path), f"\0agentos-{os.getpid()}", ("0.0.0.0", 0)), strict=True):  # noqa: S104
            stack.enter_context(listener)
            listener.bind(address)
            listener.listen()
        path.chmod(0o777)
        address = "127.0.0.2"
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
            found.connect(("192.0.2.1", 9))
            address = found.getsockname()[0]
        told = {
            "secret": os.fspath(secret),
            "home": os.fspath(home),
            "other": os.fspath(other),
            "socket": os.fspath(path),
            "abstract": f"agentos-{os.getpid()}",
            "port": listeners[2].getsockname()[1],
            "address": address,
            "pid": os.getpid(),
            "canary": CANARY,
        }
        yield Bait(workspace, told)


def profile_for(attempt: Attempt) -> Profile:
    """The sandbox that it is made in."""
    return replace(standard("hostile"), limits=attempt.limits)


async def attempted(sandboxes: HostSandboxes, laid: Bait, name: str) -> Ended:
    """Make one attempt."""
    attempt = ATTEMPTS[name]
    env = {"HOST": json.dumps(laid.told)}
    return await run(sandboxes, laid.workspace, ("python3", "-c", BASE + attempt.program), profile_for(attempt), env=env)


async def _all(folder: Path) -> dict[str, list[object]]:
    os.environ["CANARY"] = CANARY
    with bait(folder) as laid:
        sandboxes = HostSandboxes(folder / "home")
        answers: dict[str, list[object]] = {}
        for name in ATTEMPTS:
            for left in laid.workspace.iterdir():
                left.unlink()
            ended = await attempted(sandboxes, laid, name)
            answers[name] = [ended.code, ended.out, ended.err, ended.report]
        return answers


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_all(Path(sys.argv[1])))))
