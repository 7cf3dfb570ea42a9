"""A machine dies in the middle of its work; what was saved and replicated comes back on another one."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from e2e_runtime import AGENTOS, ROOT, Cli


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def kill_all(cli: Cli) -> None:
    """SIGKILL of the runtime and everything it started."""
    runtime = cli.runtime_pid()
    below = children(runtime)
    os.kill(runtime, signal.SIGKILL)
    for pid in below:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it died with the runtime
            continue


def until(done, what: str, seconds: float = 30.0) -> Any:
    """Ask again and again until `done` answers something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := done():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not in time: {what}")


def hello(cli: Cli) -> str:
    return str(cli("run", "hello", "say hello", "--wait", "-o", "json").json["session"])


def shown(cli: Cli, session: str) -> list[Any]:
    return [cli("session", "show", session, "-o", "json").json, cli("logs", session, "-o", "json").out]


def tables(path: Path) -> dict[str, list[Any]]:
    """Every row of every table that is ours."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {
            name: sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)  # noqa: S608
            for name in names
            if not name.startswith("_litestream")
        }
    finally:
        connection.close()


@pytest.fixture
def second(tmp_path: Path):
    """The command on another home, which is not there yet."""
    command = Cli(tmp_path / "second")
    yield command
    command("down", expect=None)


def test_saved_under_load_killed_and_restored(cli: Cli, second: Cli, tmp_path: Path) -> None:
    """What was over before the backup is shown the same on the new machine, to the letter; the log verifies and goes on."""
    cli("up", "--detach")
    cli("apply", "examples/01-hello", "--yes", "--allow-widen")
    before = [hello(cli)]
    known = {name: shown(cli, name) for name in before}
    words = ["run", "hello", "under load", "--wait"]
    load = [
        subprocess.Popen([AGENTOS, *words], cwd=ROOT, env=cli.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(3)
    ]
    saved, key = tmp_path / "saved.tar", tmp_path / "runtime.pub"
    report = cli("backup", "create", "--to", str(saved), "-o", "json").json
    assert (report["tenants"], report["file"]) == (["default"], str(saved))
    assert "already is" in cli("backup", "create", "--to", str(saved), expect=4).err
    cli("evidence", "key", "-o", str(key))
    kill_all(cli)
    for process in load:
        process.wait()
    facts = cli("backup", "show", str(saved), "--trust", str(key), "-o", "json").json
    assert facts["signature"] == "good"
    assert {row["tenant"] for row in facts["streams"]} == {"default", "*"}
    keys = tmp_path / "keys"
    shutil.copytree(cli.home / "keys", keys)
    identities = tmp_path / "identities"
    shutil.copytree(cli.home / "identities", identities)
    shutil.rmtree(cli.home)

    bent = tmp_path / "bent.tar"
    data = bytearray(saved.read_bytes())
    data[len(data) // 3] ^= 16
    bent.write_bytes(data)
    assert "error[evidence]" in second("restore", str(bent), "--keys", str(keys), expect=1).err
    assert not second.home.exists()

    done = second("restore", str(saved), "--keys", str(keys), "-o", "json").json
    assert (done["home"], done["keys"], done["signs_on"]) == (str(second.home), True, True)
    assert "not empty" in second("backup", "restore", str(saved), "--keys", str(keys), expect=4).err
    shutil.copytree(identities, second.home / "identities", dirs_exist_ok=True)
    second("up", "--detach")
    assert {name: shown(second, name) for name in before} == known
    assert hello(second)
    assert second("audit", "verify", "-o", "json").json["ok"]
    assert second("status", "-o", "json").json["warnings"] == []


def test_replicated_killed_and_restored(cli: Cli, second: Cli, tmp_path: Path) -> None:
    """Litestream sends the read models away while they are written; after the machine is gone they come back as what the log
    says, and what holds payloads was never sent.
    """
    replica = tmp_path / "replica"
    said = cli("up", "--detach", "--litestream", "auto", expect=None)
    assert said.code == 1
    assert "backup config" in said.err
    cli("backup", "config", "--replica", replica.as_uri())
    cli("up", "--detach", "--litestream", "auto")
    cli("apply", "examples/01-hello", "--yes", "--allow-widen")
    sessions = [hello(cli)]
    status = cli("status", "-o", "json").json
    assert "read models, pid" in status["litestream"]

    # It is started again when it ends, and goes on.
    first = int(status["litestream"].rpartition(" ")[2])
    os.kill(first, signal.SIGKILL)

    def again() -> bool:
        state = cli("status", "-o", "json").json["litestream"]
        return "pid" in state and not state.endswith(f" {first}")

    until(again, "litestream runs again")
    sessions += [hello(cli)]
    saved = tmp_path / "saved.tar"

    def replicated() -> bool:
        """Whether what is in the replica now is all that there is."""
        out = tmp_path / "probe.db"
        for path in tmp_path.glob("probe.db*"):
            path.unlink()
        binary = AGENTOS.with_name("litestream")
        words = ["restore", "-config", str(cli.home / "litestream.yml"), "-o", str(out), str(cli.home / "read" / "default.db")]
        done = subprocess.run([binary, *words], capture_output=True, check=False)
        return done.returncode == 0 and all(
            sqlite3.connect(out)
            .execute("SELECT count(*) FROM sessions WHERE id = ? AND state = 'finished'", (name,))
            .fetchone()[0]
            for name in sessions
        )

    until(replicated, "all sessions are in the replica")
    cli("backup", "create", "--to", str(saved))
    kill_all(cli)
    names = sorted(path.name for path in replica.iterdir())
    assert "default.db" in names
    assert not [name for name in names if "text" in name]

    done = second(
        "restore", str(saved), "--keys", str(cli.home / "keys"), "--litestream", str(cli.home / "litestream.yml"), "-o", "json"
    )
    assert done.json["read_models"] == ["default"], done
    assert b"Hello, say hello!" not in (second.home / "read" / "default.db").read_bytes()
    brought = tables(second.home / "read" / "default.db")
    assert {row[0] for row in brought["sessions"]} == set(sessions)
    shutil.copytree(cli.home / "identities", second.home / "identities", dirs_exist_ok=True)
    second("up", "--detach")
    second("ps", "--all")
    assert tables(second.home / "read" / "default.db") == brought
    second("audit", "rebuild")
    assert tables(second.home / "read" / "default.db") == brought
    assert second("audit", "verify", "-o", "json").json["ok"]


def test_what_cannot_be_saved_or_restored(up: Cli, second: Cli, tmp_path: Path) -> None:
    """Each says what is wrong and how to mend it, and leaves nothing behind."""
    assert "absolute" not in up("backup", "create", "--to", str(tmp_path / "none" / "x.tar"), expect=64).err
    assert "inside the home" in up("backup", "create", "--to", str(up.home / "x.tar"), expect=64).err
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "others can write" in up("backup", "create", "--to", str(tmp_path / "open"), expect=64).err
    (tmp_path / "open").rmdir()
    own = Path(up("backup", "create", "-o", "json").json["file"])
    assert (own.parent, own.stat().st_mode & 0o777) == (up.home / "backups", 0o600)
    saved = tmp_path / "saved.tar"
    up("backup", "create", "--to", str(saved))
    assert "whose signature counts" in second("restore", str(saved), expect=64).err
    assert "runs on" in up("restore", str(saved), "--keys", str(up.home / "keys"), expect=4).err
    assert "cannot be read" in second("backup", "show", str(tmp_path / "none.tar"), expect=1).err
    assert "no replica" in up("backup", "config", "--replica", "ftp://x/y", expect=64).err
    assert not second.home.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "saved.tar"]
