"""Sessions that begin later, as an operator meets them: after another one, at a time, over a killed runtime, and never."""

from __future__ import annotations

import os
import signal

from e2e_runtime import ROOT, Cli

HELLO = str(ROOT / "examples" / "01-hello")


def state(cli: Cli, session: str) -> str:
    return str(cli("session", "show", session, "-o", "json").json["state"])


def test_one_session_after_another(up: Cli) -> None:
    """It says what it waits for in every place, also after the runtime was killed; it fails with a sentence when that cannot come
    about, and its follower follows it through the wait."""
    up("apply", HELLO, "--yes", "--allow-widen")
    held = up("run", "hello", "world", "--not-before", "9h")
    first = held.out.strip()
    assert "deferred: it begins not before " in held.err
    second = up("run", "hello", "again", "--after", first, "--after-any", first)
    assert f"begins after {first} has finished, after {first} has ended" in second.err
    name = second.out.strip()
    assert f"deferred after {first} +1" in up("ps").out
    assert f"  begins       after {first} has finished" in up("session", "show", name).out
    assert f"{name} waits for {first} (to begin)" in up("locks").out

    os.kill(up.runtime_pid(), signal.SIGKILL)
    up("up", "--detach")
    rows = {row["id"]: row for row in up("ps", "-o", "json").json}
    assert (rows[name]["state"], rows[name]["deferred"]) == ("deferred", {"after": [first], "after_any": [first]})

    up("cancel", first, "--reason", "not tonight")
    ended = up("wait", name, expect=1)
    assert f"failed: session {first} was cancelled, and this one was to begin after it had finished" in ended.err

    done = up("run", "hello", "world", "--wait").out.strip()
    follower = up("run", "hello", "last", "--after", done, "--not-before", "1s", "--wait")
    assert f"begins: {done} finished" in follower.err
    typo = done[:-1] + ("0" if done[-1] != "0" else "1")
    assert f"did you mean {done}?" in up("run", "hello", "x", "--after", typo, expect=1).err
    up("run", "hello", "x", "--not-before", "2026-13-01T00:00:00Z", expect=64)
    up("run", "hello", "x", "--not-before", "tomorrow", expect=64)
    assert state(up, done) == "finished"
