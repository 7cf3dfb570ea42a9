"""Attempts to get out of a sandbox: what each tries, and how what came of it is to be read.

`agentos doctor --escape` makes them, one process each, on the host that it stands on: a sandbox is what the kernel does, not what
was asked of it. What the process says of itself is not believed alone. There is something to get for most attempts, a text that
only the host knows or a listener that sees who comes (`adapters/escape_ground.py`), and what was got from outside counts.

    async for tried in attempts(profile, ground, run): print(tried.attempt, tried.outcome, tried.by)
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from platform import machine
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.sandbox import escape_probe
from agentos.sandbox.port import Launch, SandboxUnavailable
from agentos.sandbox.profile import Isolation, Limits, Network, Profile

QUICK: Final = Limits(memory_mib=128, processes=64, cpu_s=30, file_mib=32, tmp_mib=16, open_files=256)
"""Limits that attempts are made under: low ones are met soon, and are kept in the same way as high ones."""


class Outcome(StrEnum):
    """What came of an attempt."""

    REFUSED = "refused"
    WEAK = "weak"
    """Something worked that leads nowhere by itself, but should not."""
    ESCAPED = "ESCAPED"
    UNKNOWN = "unknown"
    """It could not be made, so nothing is known: no better than an escape."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way out."""

    name: str
    """Of `escape_probe.ATTEMPTS`."""
    tried: str
    refused_by: str = "uid"
    """Who refuses where the kernel says no more than `not permitted`."""
    weak: frozenset[str] = frozenset()
    """What may work without anything being got by it."""
    missing_by: str = "namespace (mount)"
    """Who refuses where the kernel says that there is no such thing."""
    network: bool = False
    """Whether it is made in a sandbox that has a network."""


def _weak(*what: str) -> frozenset[str]:
    return frozenset(what)


_SHADOWS: Final = ("/etc/shadow", "/etc/gshadow", "/proc/1/root/etc/shadow", "/proc/self/root/../etc/shadow")

ATTEMPTS: Final = (
    # Of an image its own; that of the host is known when it is seen.
    Attempt("passwords", "read /etc/shadow of the host", weak=_weak(*_SHADOWS)),
    Attempt("files", "read the runtime's home and the workspace of another tenant"),
    Attempt(
        "descriptors",
        "use files that the runtime has open",
        weak=_weak("a descriptor", "/proc/self/fd"),
        missing_by="namespace (pid)",
    ),
    Attempt(
        "processes",
        "read the environment, memory and files of a process of the runtime's user",
        weak=_weak("environ of another process"),
        missing_by="namespace (pid)",
    ),
    Attempt("tracing", "debug a process of the host, and read its memory", "seccomp", weak=_weak("be traced")),
    Attempt("signals", "kill a process of the host"),
    Attempt("network", "connect to services of the host", missing_by="namespace (network)"),
    Attempt("proxied", "reach services of the host through the proxy, under a policy that allows all", network=True),
    Attempt("names", "ask a name server", missing_by="namespace (network)"),
    Attempt("packets", "open raw, packet and hypervisor sockets", "seccomp", weak=_weak("raw", "packet", "vsock")),
    Attempt("unix-sockets", "connect to unix sockets of the host"),
    Attempt("forks", "start more processes than it may"),
    Attempt("memory", "hold more memory than it may", weak=_weak("shared memory")),
    Attempt("memory-together", "hold more memory than it may, in several processes", weak=_weak("several processes")),
    Attempt("disk", "fill /tmp, and other folders, beyond their size"),
    Attempt("large-file", "write a file into the workspace that is larger than it may be"),
    Attempt(
        "namespaces",
        "be root in namespaces of its own",
        "seccomp",
        weak=_weak("user namespace", "mount namespace", "network namespace", "pid namespace"),
    ),
    Attempt("mounts", "mount something, and make /usr writable", "seccomp", weak=_weak("a new one")),
    Attempt("setuid", "become root by setuid programs"),
    Attempt("system-files", "write to /usr and /etc, and turn knobs of the kernel"),
    Attempt("devices", "open devices of the host, and make one"),
    Attempt("keyrings", "put keys into the kernel's keyrings", "seccomp", weak=_weak("add_key", "keyctl")),
    Attempt(
        "kernel-calls",
        "call bpf, perf_event_open, userfaultfd and io_uring_setup",
        "seccomp",
        weak=_weak("bpf", "perf_event_open", "userfaultfd", "io_uring_setup"),
    ),
    Attempt("terminal", "type into the terminal that the runtime was started from", "seccomp"),
)
"""All of them, in the order in which they are made."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How the process of an attempt ended. `limits` is what the place reports: `cgroup`, `rlimit` or `none`."""

    code: int
    output: bytes
    complaints: bytes
    limits: str


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one attempt. `by` is who refused; `found` says more where it was not simply refused."""

    isolation: str
    attempt: str
    tried: str
    outcome: Outcome
    by: tuple[str, ...] = ()
    found: str = ""


class Ground(Protocol):
    """What there is to get, on the host."""

    @property
    def workspace(self) -> Path:
        """The workspace that the attempts are made in."""

    @property
    def owner(self) -> str:
        """Whose it is."""

    def facts(self) -> dict[str, Json]:
        """Where there is something to get: what the attempts are told."""

    def got(self, seen: str) -> list[str]:
        """What only the host knows, and `seen` shows."""

    def witnessed(self) -> list[str]:
        """What was seen from outside since the last time: connections, deaths, files that should not be."""


Run = Callable[[Launch], Awaitable[Finished]]
"""Runs a process in a place to its end; one that has a network gets a door to a proxy. Raises SandboxUnavailable."""


async def attempts(profile: Profile, ground: Ground, run: Run, only: Sequence[Attempt] = ATTEMPTS) -> AsyncIterator[Tried]:
    """Make the attempts in sandboxes of `profile`, one after the other. Raises SandboxUnavailable when there can be none."""
    limits = QUICK
    bounds = {"processes": limits.processes, "memory_mib": limits.memory_mib}
    if machine() not in _MACHINES:
        raise SandboxUnavailable(f"escapes are known on {' and '.join(_MACHINES)}, and this is {machine()}")
    calls = {name: numbers[_MACHINES.index(machine())] for name, numbers in _CALLS.items()}
    facts = {**ground.facts(), **bounds, "file_mib": limits.file_mib, "tmp_mib": limits.tmp_mib, "calls": calls}
    python = "python3" if profile.isolation is Isolation.CONTAINER else sys.executable
    quick = replace(profile, limits=limits)
    for attempt in only:
        command = (python, "-I", "-S", "-c", _source(), attempt.name, json.dumps(facts))
        place = replace(quick, network=Network()) if attempt.network else quick
        finished = await run(Launch(command, place, ground.workspace, ground.owner))
        yield judge(attempt, str(profile.isolation), finished, ground)


_MACHINES: Final = ("x86_64", "aarch64")
_CALLS: Final = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "perf_event_open": (298, 241),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
"""Numbers of system calls, on each of the machines."""


@cache
def _source() -> str:
    return Path(escape_probe.__file__).read_text(encoding="utf-8")


def judge(attempt: Attempt, isolation: str, finished: Finished, ground: Ground) -> Tried:
    """Read what came of an attempt."""
    witnessed = ground.witnessed()
    answer = _answer(finished.output)
    got = ground.got(str(answer.get("seen", "")) if answer else finished.output.decode("utf-8", "replace"))
    tried = Tried(isolation, attempt.name, attempt.tried, Outcome.REFUSED)
    if got or witnessed:
        return replace(tried, outcome=Outcome.ESCAPED, found=", ".join((*got, *witnessed)))
    if answer is None:
        if finished.code == _KILLED and attempt.name in _TAKING:
            return replace(tried, by=(finished.limits,), found="killed")
        said = finished.complaints.decode("utf-8", "replace").strip().splitlines()
        return replace(
            tried, outcome=Outcome.UNKNOWN, found=f"exit code {finished.code}: {said[-1][:200] if said else 'no word'}"
        )
    worked = [str(what) for what in answer["worked"]]
    by = _refused_by(attempt, answer, finished.limits)
    if worked:
        outcome = Outcome.WEAK if attempt.weak.issuperset(worked) else Outcome.ESCAPED
        return replace(tried, outcome=outcome, by=by, found=f"worked: {', '.join(worked)}")
    return replace(tried, by=by)


_KILLED: Final = 137
_TAKING: Final = frozenset({"forks", "memory", "memory-together", "disk", "large-file"})
_BY: Final[Mapping[str, str]] = {
    **dict.fromkeys(("ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "ETIMEDOUT"), "namespace (network)"),
    **dict.fromkeys(("ENXIO", "ENOTTY"), "session"),
    "EROFS": "namespace (mount)",
    "ESRCH": "namespace (pid)",
    "ENOSPC": "tmpfs",
    "EFBIG": "rlimit",
    "EBADF": "closed",
    "EACCES": "uid",
}


def _refused_by(attempt: Attempt, answer: Mapping[str, Json], limits: str) -> tuple[str, ...]:
    status = answer.get("notes", {}).get("status", {})
    filtered = status.get("Seccomp") == "2"
    named = set()
    for error in answer["refused"].values():
        if error in {"EAGAIN", "ENOMEM"}:
            named.add(limits)
        elif error == "ENOENT":
            named.add(attempt.missing_by)
        elif error == "EPERM":
            named.add(attempt.refused_by if filtered else "uid")
        elif error in {"ENOSYS", "EAFNOSUPPORT"}:
            named.add("seccomp" if filtered else "kernel")
        else:
            named.add(_BY.get(str(error), str(error)))
    return tuple(sorted(named))


def _answer(output: bytes) -> dict[str, Json] | None:
    try:
        answer = json.loads(output)
    except ValueError:
        return None
    shaped = isinstance(answer, dict) and isinstance(answer.get("worked"), list) and isinstance(answer.get("refused"), dict)
    return answer if shaped else None
