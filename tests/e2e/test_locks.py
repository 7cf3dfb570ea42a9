"""Locks as an operator meets them: `examples/locks` on a real runtime, a deadlock, a broken lock, and kills in between."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from e2e_runtime import ROOT, Cli
from test_crash_points import alive

from agentos.abi.canonical import Json

EXAMPLE = str(ROOT / "examples" / "locks")


def held(cli: Cli) -> dict[str, Json]:
    return {one["resource"]: one for one in cli("locks", "-o", "json").json["locks"]}


def until(cli: Cli, what: str, met: Any) -> dict[str, Json]:
    """The locks, once `met` says so of them."""
    deadline = time.monotonic() + 30
    while not met(found := held(cli)):
        assert time.monotonic() < deadline, f"never came: {what}; {found}"
        time.sleep(0.1)
    return found


def start(cli: Cli) -> tuple[str, str]:
    """A clerk that holds the ledger and waits for a person, and a packer that holds the stock and waits for the ledger."""
    cli("apply", EXAMPLE, "--yes", "--allow-widen")
    cli("principal", "create", "pat", "--role", "approver")
    clerk = cli("run", "clerk", "post").out.strip()
    cli("wait", clerk, expect=5)
    packer = cli("run", "packer", "pack").out.strip()
    until(cli, "the packer waits", lambda locks: "stock" in locks and locks["ledger"]["waiters"])
    return clerk, packer


def failures(cli: Cli, session: str) -> list[Json]:
    events = cli("logs", session, "-o", "json").json
    return [event["data"]["error"] for event in events if event["type"] == "agentos.syscall.failed"]


def tokens(cli: Cli, session: str) -> list[int]:
    events = cli("logs", session, "-o", "json").json
    results = [event["data"]["result"].get("data") for event in events if event["type"] == "agentos.syscall.finished"]
    return [data["token"] for data in results if isinstance(data, dict) and "token" in data]


def test_two_agents_that_wait_for_each_other_are_told_and_go_on(up: Cli) -> None:
    """`agentos locks` shows holders, waiters and the person behind them; whoever closes the cycle gets an error that names it and
    lets go, and both finish. Every later token is higher, and nothing stays locked."""
    clerk, packer = start(up)
    answer = up("locks", "-o", "json").json
    assert answer["waits"] == [
        {"waiter": clerk, "holder": "a person", "reason": "approval of call-2-1"},
        {"waiter": packer, "holder": clerk, "reason": "lock ledger"},
    ]
    ledger, stock = (next(one for one in answer["locks"] if one["resource"] == name) for name in ("ledger", "stock"))
    assert (ledger["session"], ledger["agent"], ledger["waiters"]) == (clerk, "clerk", [{"session": packer, "agent": "packer"}])
    assert (stock["session"], stock["waiters"]) == (packer, [])
    table = up("locks").out
    assert f"{packer} waits for {clerk} (lock ledger)" in table
    assert f"{clerk} waits for a person (approval of call-2-1)" in table

    up("--as", "pat", "approvals", "approve", clerk, "--reason", "fine")
    up("wait", clerk)
    up("wait", packer)
    (error,) = failures(up, clerk)
    assert error["code"] == "lock.deadlock"
    assert f"{clerk} (agent clerk) waits for lock stock, which {packer} (agent packer) holds" in error["message"]
    assert f"{packer} (agent packer) waits for lock ledger, which {clerk} (agent clerk) holds" in error["message"]
    assert failures(up, packer) == []
    first, *later = tokens(up, clerk)
    assert first < min(tokens(up, packer)) < max(tokens(up, packer)) < min(later)
    assert up("locks").err.strip() == "nothing is locked"


def test_a_lock_that_is_broken_goes_to_the_next_and_stands_in_the_audit_chain(up: Cli) -> None:
    """Only an operator may; the former holder's token counts for nothing, and its session is told so when it uses it."""
    clerk, packer = start(up)
    up("--as", "pat", "locks", "break", "ledger", "--reason", "no", expect=3)
    token = held(up)["ledger"]["token"]
    assert "ledger was held by" in up("locks", "break", "ledger", "--reason", "its session hangs").err
    up("wait", packer)
    assert min(tokens(up, packer)) > token
    up("locks", "break", "ledger", "--reason", "again", expect=1)
    up("--as", "pat", "approvals", "approve", clerk, "--reason", "fine")
    up("wait", clerk)
    assert tokens(up, clerk)[0] == token


def test_killed_while_one_holds_and_another_waits(up: Cli) -> None:
    """The next runtime finds the locks as they were: tokens stay, the call that waited waits again, and both go on to the end."""
    clerk, packer = start(up)
    before = held(up)
    os.kill(up.runtime_pid(), signal.SIGKILL)
    up("up", "--detach")
    after = until(up, "the packer waits again", lambda locks: locks.get("ledger", {}).get("waiters"))
    assert {name: one["token"] for name, one in after.items()} == {name: one["token"] for name, one in before.items()}
    up("--as", "pat", "approvals", "approve", clerk, "--reason", "fine")
    up("wait", clerk)
    up("wait", packer)
    assert up("locks").err.strip() == "nothing is locked"


def test_killed_once_a_lock_was_taken_or_given_back_and_before_it_was_told(cli: Cli) -> None:
    """SIGKILL between a change of a lock and its event, at each of the packer's four: it goes on, and nothing stays locked."""
    cli("up", "--detach")
    cli("apply", EXAMPLE, "--yes", "--allow-widen")
    for number in (1, 2, 3, 4):
        cli("down")
        cli("up", "--detach", more={"AGENTOS_FAILPOINT": f"after-act:{number}"})
        pid = cli.runtime_pid()
        session = cli("run", "packer", "pack").out.strip()
        deadline = time.monotonic() + 30
        while alive(pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cli("up", "--detach")
        cli("wait", session)
        assert failures(cli, session) == []
        assert cli("locks").err.strip() == "nothing is locked"
