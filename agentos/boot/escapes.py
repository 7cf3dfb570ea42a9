"""Escapes: attempts to get out of each kind of sandbox that this host has, made for real."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from agentos.abi.errors import Unavailable
from agentos.abi.ids import Random
from agentos.boot.finding import Finding, Level
from agentos.boot.system import SystemRandom, SystemTimer
from agentos.drivers.process import Child
from agentos.egress.adapters.proxy import Proxies
from agentos.egress.asking import NetRequest, Permit
from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.adapters.escape_ground import ground
from agentos.sandbox.escape import ATTEMPTS, Attempt, Finished, Outcome, Tried, attempts
from agentos.sandbox.port import Door, Launch, Sandboxes
from agentos.sandbox.profile import Isolation, Profile, standard

TIMEOUT_S: Final = 60
"""Seconds that one attempt may take; what has not ended then has not got out either, but nobody knows why."""

LATE: Final = 124
"""The exit code of an attempt that took too long, as timeout(1) has it."""


def try_escapes() -> list[Finding]:
    """A finding for each attempt in the sandbox of tools that name none. Raises SandboxUnavailable, Unavailable."""
    try:
        return [_finding(tried) for tried in asyncio.run(escapes(SystemRandom()))]
    except OSError as error:
        raise Unavailable(f"escapes cannot be tried here: {error}", mend="see that TMPDIR is a short path with room") from error


def _finding(tried: Tried) -> Finding:
    found = f"{tried.outcome}: {tried.found}" if tried.found else str(tried.outcome)
    return Finding(tried.attempt, _LEVELS[tried.outcome], found, _MEND.get(tried.outcome, ""), tried)


_LEVELS: Final = {
    Outcome.REFUSED: Level.OK,
    Outcome.WEAK: Level.WEAK,
    Outcome.ESCAPED: Level.FAIL,
    Outcome.UNKNOWN: Level.FAIL,
}
_MEND: Final = {
    Outcome.ESCAPED: "run no tool here that you would not run yourself, and report it",
    Outcome.UNKNOWN: "see why it could not be made: what is not known to be refused is not refused",
}


async def escapes(
    random: Random, isolations: Sequence[Isolation] = (Isolation.BUBBLEWRAP,), only: Sequence[Attempt] = ATTEMPTS
) -> list[Tried]:
    """Make the attempts in each kind of sandbox. Raises SandboxUnavailable where there can be none, OSError without a /tmp."""
    found: list[Tried] = []
    async with ground(random) as laid:
        sandboxes, proxies = HostSandboxes(laid.home), Proxies(SystemTimer())

        async def run(launch: Launch) -> Finished:
            return await _run(sandboxes, launch, proxies, laid.home / "way")

        for isolation in isolations:
            profile: Profile = replace(standard(), isolation=isolation)
            found += [tried async for tried in attempts(profile, laid, run, only)]
    return found


async def _run(sandboxes: Sandboxes, launch: Launch, proxies: Proxies, folder: Path) -> Finished:
    async with AsyncExitStack() as stack:
        if launch.profile.network is not None:
            way = await stack.enter_async_context(
                proxies.open(gatekeeper=_Everything, network=launch.profile.network, folder=folder)
            )
            launch = replace(launch, door=Door(way.socket, way.authority, way.settle))
        place = await stack.enter_async_context(sandboxes.place(launch))
        child = Child(place)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                ended = await child.run()
        except TimeoutError:
            return Finished(LATE, b"", child.complaints, str(place.report()["limits"]))
        return Finished(ended.code, ended.output, ended.complaints, str(place.report()["limits"]))


class _Everything:
    """A gatekeeper under which all may leave: what is refused then is refused by the proxy itself."""

    async def ask(self, request: NetRequest) -> Permit:
        """Yes."""
        del request
        return _Noted()


class _Noted:
    """A permit that nobody wants to hear about."""

    async def finished(self, *, status: int | None, sent: int, received: int, address: str) -> None:
        """It was answered."""

    async def failed(self, message: str) -> None:
        """It came to nothing."""
