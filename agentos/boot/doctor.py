"""`agentos doctor`: what this installation and this host really give, one finding per line, nothing assumed."""

from __future__ import annotations

import asyncio
import platform
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agentos import __version__
from agentos.abi.errors import AgentOSError
from agentos.boot.doctor_hands import hands
from agentos.boot.finding import Finding, Level
from agentos.boot.home import Home
from agentos.eventlog.adapters.server_binary import find_server
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.bundle import axioms
from agentos.policy.decide import Decider

MIN_FREE: Final = 512 * 1024 * 1024
"""Bytes of free disk below which the log may soon stop taking events."""


def examine(home: Home) -> list[Finding]:
    """Look at everything that can be looked at without a running runtime. Leaves nothing running, changes nothing."""
    return [*_installation(), *_policy(), *_home(home), *_isolation()]


def _installation() -> Iterator[Finding]:
    yield Finding("agentos", Level.OK, f"{__version__}, Python {platform.python_version()} at {sys.executable}")
    try:
        binary = find_server()
        yield Finding("nats-server", Level.OK, f"{_version(binary)} at {binary}")
    except AgentOSError as error:
        yield Finding("nats-server", Level.FAIL, error.message, error.mend or "")


def _version(binary: Path) -> str:
    return subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def _policy() -> Iterator[Finding]:
    factory = EmbeddedFactory()

    async def probe() -> str:
        decider = await Decider.load(factory, axioms(), {"agentos": {}})
        try:
            decision = await decider.decide_syscall({})
        finally:
            decider.close()
        return str(decision.effect)

    try:
        effect = asyncio.run(probe())
    except AgentOSError as error:
        yield Finding("policy engine", Level.FAIL, f"{error.message}: every syscall is denied", error.mend or "")
        return
    yield Finding("policy engine", Level.OK, f"{factory.version}, {len(axioms())} axiom modules")
    level = Level.OK if effect == "deny" else Level.FAIL
    yield Finding("default deny", level, f"an empty question is answered with {effect}")


def _home(home: Home) -> Iterator[Finding]:
    if not home.root.exists():
        yield Finding("home", Level.OK, f"{home.root} does not exist yet", "agentos up makes it")
        return
    mode = stat.S_IMODE(home.root.stat().st_mode)
    if mode & 0o077:
        yield Finding("home", Level.FAIL, f"{home.root} is open to others (mode {mode:04o})", f"chmod 700 {home.root}")
    else:
        yield Finding("home", Level.OK, f"{home.root} (mode {mode:04o})")
    free = shutil.disk_usage(home.root).free
    level = Level.OK if free >= MIN_FREE else Level.FAIL
    yield Finding(
        "disk", level, f"{free / 2**30:.1f} GiB free", "" if level is Level.OK else "free some: a full disk stops the log"
    )
    for secret in sorted([*home.keys.rglob("*"), *home.identities.glob("*.json")]):
        if secret.is_file() and secret.suffix != ".pub" and stat.S_IMODE(secret.stat().st_mode) & 0o077:
            yield Finding("secret", Level.FAIL, f"{secret} is open to others", f"chmod 600 {secret}")
    owner = home.owner()
    yield Finding("runtime", Level.OK, f"runs, pid {owner}" if owner is not None else "does not run")


def _isolation() -> Iterator[Finding]:
    yield from hands()
