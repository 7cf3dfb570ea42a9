"""A month is retired as a person does it: a runtime that worked two months ago, one of today, and the packs on the disk."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e_runtime import ROOT, Cli

DAYS = 62

PAST = f"""
from agentos.boot.system import SystemTimer
now_ms = SystemTimer.now_ms
SystemTimer.now_ms = lambda self: now_ms(self) - {DAYS} * 86_400_000
from agentos.cli.main import run
run()
"""
"""The command `agentos` with a clock that is two months behind."""

BASIS = ("--basis", "retention has passed")


@contextmanager
def two_months_ago(cli: Cli) -> Iterator[None]:
    """A runtime on the home of `cli` in a process of its own, whose clock is behind."""
    words = [sys.executable, "-c", PAST, "up"]
    log = cli.home.parent / "past.log"
    with log.open("wb") as out, subprocess.Popen(words, cwd=ROOT, env=cli.environment(), stdout=out, stderr=out) as process:
        end = time.monotonic() + 30
        while not (cli.home / "run" / "endpoint.json").exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        try:
            yield
        finally:
            cli("down", expect=None)
            assert process.wait(30) == 0, log.read_text()


def test_a_month_is_exported_verified_and_dropped(cli: Cli, tmp_path: Path) -> None:
    """Without a yes, under a hold, or over a file that is there, nothing happens. Else the packs are on the disk for their owner
    alone and verify offline, the month is in no list and no file any more, the log still verifies, and asking again says so.
    """
    with two_months_ago(cli):
        cli("apply", "examples/01-hello", "--yes", "--allow-widen")
        old = [str(cli("run", "hello", "kestrel-canary-44b0", "--wait", "-o", "json").json["session"]) for _ in range(2)]
    cli("up", "--detach")
    young = str(cli("run", "hello", "say hello", "--wait", "-o", "json").json["session"])
    streams = [name for name in cli("audit", "checkpoint", "--now", "-o", "json").json["streams"] if name.startswith("EV_")]
    period = min(name.split("_")[1] for name in streams)
    key, to = tmp_path / "runtime.pub", tmp_path / "archive"
    cli("evidence", "key", "-o", str(key))

    unsure = cli("audit", "retire", period, "--to", str(to), *BASIS, expect=64)
    assert "--yes" in unsure.err
    assert all(name in unsure.out for name in old)
    assert not to.exists()
    hold = cli("audit", "hold", "--period", period, "--reason", "a case", "-o", "json").json["hold"]
    assert f"agentos audit release {hold}" in cli("audit", "retire", period, "--to", str(to), *BASIS, "--yes", expect=4).err
    assert not to.exists()
    cli("audit", "release", hold, "--reason", "closed")

    to.mkdir(mode=0o700)
    there = to / f"agentos-{period}-0001.zip"
    there.write_text("mine")
    assert str(there) in cli("audit", "retire", period, "--to", str(to), *BASIS, "--yes", expect=4).err
    assert there.read_text() == "mine"
    there.unlink()

    done = cli("audit", "retire", period, "--to", str(to), *BASIS, "--yes", "-o", "json").json
    assert {one["session"] for one in done["sessions"]} == set(old)
    packs = sorted(to.iterdir())
    assert [pack["file"] for pack in done["packs"]] == [str(path) for path in packs]
    assert {path.stat().st_mode & 0o777 for path in (to, *packs)} == {0o700, 0o600}
    for path in packs:
        assert cli("evidence", "verify", str(path), "--trust", str(key), "-o", "json").json["ok"]

    assert [row["id"] for row in cli("ps", "--all", "-o", "json").json] == [young]
    words = [path for path in cli.home.rglob("*") if path.is_file() and b"kestrel-canary-44b0" in path.read_bytes()]
    assert words == []
    assert cli("audit", "verify", "-o", "json").json["ok"]
    assert "retired already" in cli("audit", "retire", period, "--to", str(tmp_path / "again"), *BASIS, "--yes", expect=4).err
    assert cli("status", "-o", "json").json["warnings"] == []
