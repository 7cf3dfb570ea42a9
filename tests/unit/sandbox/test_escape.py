"""Escapes are judged by what was got and seen from outside first, and by what the process says of itself only then."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentos.abi.canonical import Json
from agentos.sandbox.escape import ATTEMPTS, QUICK, Attempt, Finished, Outcome, Tried, attempts, judge
from agentos.sandbox.escape_probe import ATTEMPTS as PROGRAMS
from agentos.sandbox.port import Launch
from agentos.sandbox.profile import Isolation, standard

TRACING = Attempt("tracing", "debug a process", "seccomp", weak=frozenset({"be traced"}), missing_by="namespace (pid)")


class Ground:
    """Where nothing is, and a canary that is `secret`."""

    workspace = Path("/w")
    owner = "ours/s-1"

    def __init__(self, *witnessed: str) -> None:
        self._witnessed = list(witnessed)

    def facts(self) -> dict[str, Json]:
        return {"pid": 1}

    def got(self, seen: str) -> list[str]:
        return ["read a secret"] if "secret" in seen else []

    def witnessed(self) -> list[str]:
        return self._witnessed


def ended(code: int = 0, limits: str = "cgroup", complaints: bytes = b"", **answer: Any) -> Finished:
    told = {"worked": [], "refused": {}, "seen": "", "notes": {"status": {"Seccomp": "2"}}} | answer
    return Finished(code, json.dumps(told).encode() if answer else b"", complaints, limits)


def judged(finished: Finished, *witnessed: str, attempt: Attempt = TRACING) -> Tried:
    return judge(attempt, "bubblewrap", finished, Ground(*witnessed))


@pytest.mark.parametrize(
    ("error", "by"),
    [
        ("EPERM", "seccomp"),
        ("ENOSYS", "seccomp"),
        ("ENOENT", "namespace (pid)"),
        ("ESRCH", "namespace (pid)"),
        ("EACCES", "uid"),
        ("EAGAIN", "cgroup"),
        ("ENOMEM", "cgroup"),
        ("ENOSPC", "tmpfs"),
        ("EFBIG", "rlimit"),
        ("EROFS", "namespace (mount)"),
        ("ECONNREFUSED", "namespace (network)"),
        ("ENXIO", "session"),
        ("EDOM", "EDOM"),
    ],
)
def test_who_refused_is_read_from_the_error(error: str, by: str) -> None:
    """What nobody has thought of is shown as it is."""
    assert judged(ended(refused={"x": error})) == Tried("bubblewrap", "tracing", "debug a process", Outcome.REFUSED, (by,))


def test_a_filter_that_is_not_there_refuses_nothing() -> None:
    """The kernel says itself whether calls are filtered; without that it was the user, or the kernel."""
    for error, by in (("EPERM", "uid"), ("ENOSYS", "kernel")):
        assert judged(ended(refused={"x": error}, notes={"status": {"Seccomp": "0"}})).by == (by,)


def test_what_worked() -> None:
    """What leads nowhere by itself is weak, everything else has escaped, and one is enough."""
    assert judged(ended(worked=["be traced"], refused={"x": "EPERM"})).outcome is Outcome.WEAK
    tried = judged(ended(worked=["be traced", "attach"]))
    assert (tried.outcome, tried.found) == (Outcome.ESCAPED, "worked: be traced, attach")


@pytest.mark.parametrize(
    ("finished", "witnessed"),
    [
        (ended(refused={"x": "EPERM"}, seen="the secret"), ()),
        (Finished(0, b"no JSON, but the secret", b"", "none"), ()),
        (ended(refused={"x": "EPERM"}), ("a listener was reached",)),
        (ended(137), ("a process was killed",)),
    ],
)
def test_what_was_got_counts_whatever_it_says(finished: Finished, witnessed: tuple[str, ...]) -> None:
    """A process that says it was refused, or says nothing, has escaped if the host sees it."""
    tried = judged(finished, *witnessed)
    assert tried.outcome is Outcome.ESCAPED
    assert tried.found


def test_silence_is_no_refusal() -> None:
    """Nothing is known of an attempt that gave no answer, unless it was to take too much and was killed for it."""
    tried = judged(ended(1, complaints=b"Traceback\nImportError: json\n"))
    assert (tried.outcome, tried.found) == (Outcome.UNKNOWN, "exit code 1: ImportError: json")
    assert judged(ended(137)).outcome is Outcome.UNKNOWN
    assert judged(Finished(0, b"[1]", b"", "none")).outcome is Outcome.UNKNOWN
    killed = judged(ended(137), attempt=replace(TRACING, name="memory"))
    assert (killed.outcome, killed.by) == (Outcome.REFUSED, ("cgroup",))


def test_each_program_is_an_attempt() -> None:
    """None is forgotten, none is without a program."""
    assert {attempt.name for attempt in ATTEMPTS} == PROGRAMS.keys()


@pytest.mark.parametrize(("isolation", "python"), [(Isolation.BUBBLEWRAP, "/"), (Isolation.CONTAINER, "python3")])
async def test_attempts_are_made_one_by_one(isolation: Isolation, python: str) -> None:
    """Each in a place of its own of the profile, with low limits, told where there is something to get."""
    launches: list[Launch] = []

    async def run(launch: Launch) -> Finished:
        launches.append(launch)
        return ended(refused={"x": "EPERM"})

    profile = replace(standard(), isolation=isolation)
    tried = [one async for one in attempts(profile, Ground(), run, ATTEMPTS[:3])]
    assert [one.attempt for one in tried] == ["passwords", "files", "descriptors"]
    assert {one.isolation for one in tried} == {str(isolation)}
    for launch, attempt in zip(launches, ATTEMPTS, strict=False):
        assert launch.command[0].startswith(python)
        assert launch.command[1:4] == ("-I", "-S", "-c")
        assert launch.command[5] == attempt.name
        assert json.loads(launch.command[6])["pid"] == 1
        assert launch.profile.network is None
        assert (launch.profile.limits, launch.workspace, launch.owner) == (QUICK, Path("/w"), "ours/s-1")


async def test_only_what_is_about_the_proxy_has_a_network() -> None:
    """All others are made in the sandbox as it is where nothing is declared."""
    launches: list[Launch] = []

    async def run(launch: Launch) -> Finished:
        launches.append(launch)
        return ended(refused={"x": "proxy"})

    tried = [one async for one in attempts(standard(), Ground(), run)]
    assert [launch.command[5] for launch in launches if launch.profile.network is not None] == ["proxied"]
    assert {one.by for one in tried} == {("proxy",)}
