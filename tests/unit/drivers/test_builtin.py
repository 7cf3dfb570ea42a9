"""The builtin driver: primitives under a deadline."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.abi.syscall import Result, ToolEffect
from agentos.drivers.adapters import builtin
from agentos.drivers.adapters.builtin import BuiltinDriver
from agentos.drivers.locks import Grant
from agentos.drivers.port import CallContext, ToolSpec
from agentos.files.guard import Guard, Stopped


def tool(primitive: str, timeout_ms: int = 30_000) -> ToolSpec:
    return ToolSpec(
        name=f"my-{primitive}",
        description="",
        effect=ToolEffect.WRITE,
        idempotent=True,
        input_schema={},
        driver={"builtin": {"primitive": primitive}},
        timeout_ms=timeout_ms,
    )


def context(workspace: Path) -> CallContext:
    return CallContext(tenant="default", session="s-1", call="call-1-1", workspace=workspace)


async def test_a_call(tmp_path: Path) -> None:
    """A primitive runs in the session's workspace."""
    driver = BuiltinDriver()
    await driver.call(tool("write"), {"path": "a", "content": "x"}, context(tmp_path))
    assert (await driver.call(tool("read"), {"path": "a"}, context(tmp_path))).content == "x"
    await driver.release("s-1")
    await driver.close()


async def test_late_but_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A primitive that is slow before its commit surely did nothing, and stops."""
    may_go, stopped = threading.Event(), threading.Event()

    def slow(primitive: str, workspace: Path, args: object, guard: Guard) -> Result:
        may_go.wait()
        try:
            guard.commit()
        except Stopped:
            stopped.set()
            raise
        raise AssertionError("committed after its deadline")

    monkeypatch.setattr(builtin, "perform", slow)
    with pytest.raises(DriverError, match="changed nothing") as caught:
        await BuiltinDriver().call(tool("write", 20), {}, context(tmp_path))
    assert not isinstance(caught.value, OutcomeUnknown)
    may_go.set()
    assert await asyncio.to_thread(stopped.wait, 10)


async def test_late_in_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A primitive that is slow within its commit has an unknown outcome."""
    may_go = threading.Event()

    def slow(primitive: str, workspace: Path, args: object, guard: Guard) -> Result:
        guard.commit()
        may_go.wait()
        return Result("")

    monkeypatch.setattr(builtin, "perform", slow)
    with pytest.raises(OutcomeUnknown):
        await BuiltinDriver().call(tool("write", 20), {}, context(tmp_path))
    may_go.set()


async def test_cancelling_stops_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled call never commits."""
    started, may_go, stopped = threading.Event(), threading.Event(), threading.Event()

    def slow(primitive: str, workspace: Path, args: object, guard: Guard) -> Result:
        started.set()
        may_go.wait()
        try:
            guard.commit()
        except Stopped:
            stopped.set()
        return Result("")

    monkeypatch.setattr(builtin, "perform", slow)
    call = asyncio.create_task(BuiltinDriver().call(tool("write"), {}, context(tmp_path)))
    await asyncio.to_thread(started.wait)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    may_go.set()
    assert await asyncio.to_thread(stopped.wait, 10)


class Recorder:
    """`Locks` that only notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    async def lock(self, place: CallContext, resource: str, *, wait_ms: int, lease_ms: int) -> Grant:
        self.asked.append(("lock", place.session, resource, str(wait_ms), str(lease_ms)))
        return Grant(resource, 17, 1_795_283_194_000)

    async def unlock(self, place: CallContext, resource: str, token: int) -> None:
        self.asked.append(("unlock", place.session, resource, str(token)))


@pytest.mark.parametrize(
    ("args", "wait_ms", "lease_ms"),
    [
        ({}, 20_000, 300_000),
        ({"waitSeconds": 5, "leaseSeconds": 60}, 5000, 60_000),
        ({"waitSeconds": 3600}, 20_000, 300_000),
        ({"waitSeconds": 0}, 0, 300_000),
    ],
)
async def test_a_lock_is_waited_for_no_longer_than_the_tool_may_take(
    args: dict[str, Json], wait_ms: int, lease_ms: int, tmp_path: Path
) -> None:
    """What the model asks for is cut to `timeoutSeconds`, which it also is by itself; the result names token and end."""
    locks = Recorder()
    result = await BuiltinDriver(locks).call(tool("lock", 20_000), {"resource": "ledger", **args}, context(tmp_path))
    assert locks.asked == [("lock", "s-1", "ledger", str(wait_ms), str(lease_ms))]
    assert result.data == {"resource": "ledger", "token": 17, "expires": "2026-11-21T17:46:34.000Z"}
    assert "17" in result.content


async def test_an_unlock_names_its_token(tmp_path: Path) -> None:
    """And without locks neither can be done."""
    locks = Recorder()
    await BuiltinDriver(locks).call(tool("unlock"), {"resource": "ledger", "token": 17}, context(tmp_path))
    assert locks.asked == [("unlock", "s-1", "ledger", "17")]
    with pytest.raises(DriverError, match="no locks here"):
        await BuiltinDriver().call(tool("unlock"), {"resource": "ledger", "token": 17}, context(tmp_path))
