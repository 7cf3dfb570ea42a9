"""Kills under load: SIGKILL of the nats-server, of the runtime, and of both in turn, while twenty sessions run at once.

usage: python tests/e2e/e2e_kills.py [KILLS]; `make kills KILLS=50`. Prints what it did; ends with 1 when something was lost,
repeated or left standing.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from e2e_ledger import Ledger
from e2e_runtime import Cli

AT_ONCE = 20
COUNT = 30
MILLISECONDS = 400
STUCK_S = 300.0
"""Seconds within which all sessions that are left end after the last kill."""


def run(cli: Cli, folder: Path, kills: int, *, seed: int = 1) -> str:
    """Kill `kills` times during the load, then let it end; what was done, in one line. Raises AssertionError."""
    dice, started = random.Random(f"{seed}/kills"), time.monotonic()
    cli("up", "--detach")
    ledger = Ledger.applied(cli, folder, count=COUNT, milliseconds=MILLISECONDS)
    for number in range(kills):
        ledger.start_many(AT_ONCE - len(_live(cli)))
        time.sleep(dice.uniform(0.2, 1.5))
        _kill(cli, ("server", "runtime", "both")[number % 3])
        cli("up", "--detach", expect=None)
    cli("up", "--detach", expect=None)
    left, deadline = _live(cli), time.monotonic() + STUCK_S
    while left:
        assert time.monotonic() < deadline, f"these do not end: {left}"
        time.sleep(1.0)
        left = _live(cli)
    sessions = [row["id"] for row in cli("ps", "--all", "--limit", "1000", "-o", "json").json]
    types = ledger.check(sessions)
    return (
        f"{kills} kills, {len(sessions)} sessions, {sum(types.values())} events, {len(ledger.lines())} effects, "
        f"{types['session.owned']} taken over, {types['syscall.unknown']} outcomes unknown, {time.monotonic() - started:.0f} s"
    )


def _live(cli: Cli) -> list[str]:
    return [row["id"] for row in cli("ps", "--limit", "1000", "-o", "json").json]


def _kill(cli: Cli, what: str) -> None:
    """SIGKILL now, in whatever they do. A server that is killed alone is started again by the runtime."""
    if what in {"runtime", "both"}:
        pid = int(json.loads((cli.home / "run" / "endpoint.json").read_text())["pid"])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if what in {"server", "both"}:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
            os.kill(int((cli.home / "nats" / "nats.pid").read_text()), signal.SIGKILL)


def main() -> int:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory() as folder:
        cli = Cli(Path(folder) / "home")
        try:
            print(run(cli, Path(folder), kills))
        except AssertionError as error:
            print(f"failed: {error}")
            return 1
        finally:
            cli("down", expect=None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
