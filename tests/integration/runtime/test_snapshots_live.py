"""Snapshots in a whole runtime: the next one goes on from them, and an erasure or a retirement takes them along."""

from __future__ import annotations

import base64
import hashlib
import stat
from pathlib import Path

import pytest
from house import WORKER, Door, House, documents

from agentos.abi.errors import NotFound, PayloadErased
from agentos.abi.retention import DAY_MS
from agentos.boot.system import SystemTimer
from agentos.eventlog.subject import period_of
from agentos.kernel.snapshot import Snapshots

CANARY = "kestrel-canary-91cd"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short sessions get snapshots too."""
    monkeypatch.setattr(Snapshots, "due", lambda _self, seq, kept: seq - kept >= 3)


def files(house: House) -> list[Path]:
    return sorted(path for path in (house.root / "snapshots").rglob("*") if path.is_file())


def of(house: House, *sessions: str) -> list[Path]:
    return sorted(house.root / "snapshots" / "default" / f"{session}.state" for session in sessions)


async def finished(door: Door, goal: str = CANARY) -> str:
    session = await door.run(goal=goal)
    assert (await door.until(session))["state"] == "finished"
    await door.runtime.snapshots.close()
    return session


async def test_the_next_runtime_goes_on_from_it(house: House) -> None:
    """A session tells the same from its snapshot as from its log; a broken file costs nothing, and is made anew."""
    async with house.open() as door:
        await door.apply(*documents(WORKER))
        session = await finished(door)
        before = await door("session.get", session=session)
        assert files(house) == of(house, session)
    (path,) = files(house)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert CANARY.encode() not in path.read_bytes()
    async with house.open() as door:
        async with door.runtime.sessions.journal("default", session) as journal:
            assert journal.head.seq - 3 < journal.kept
        assert await door("session.get", session=session) == before
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert await door("session.get", session=session) == before
        await door.runtime.snapshots.close()
        assert files(house) == [path]
        async with door.runtime.sessions.journal("default", session) as journal:
            assert journal.kept == journal.head.seq


async def test_an_erasure_takes_it_along(house: House) -> None:
    """Of the session that was erased nothing is there, not in this runtime and not in the next; another's is."""
    async with house.open() as door:
        await door.apply(*documents(WORKER))
        gone, kept = await finished(door), await finished(door)
        (copy,) = of(house, gone)
        data = copy.read_bytes()
        await door("audit.erase", sessions=[gone], basis="request 17")
        assert files(house) == of(house, kept)
        # Somebody puts the file back from a copy of his own.
        copy.write_bytes(data)
        with pytest.raises(PayloadErased):
            await door("session.get", session=gone)
        assert files(house) == of(house, kept)
        copy.write_bytes(data)
    async with house.open() as door:
        assert files(house) == of(house, kept)
        assert (await door("session.get", session=kept))["goal"] == CANARY


async def test_a_retirement_takes_it_along(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A month that was dropped leaves no snapshot of its sessions."""
    now_ms = SystemTimer.now_ms
    with monkeypatch.context() as patch:
        patch.setattr(SystemTimer, "now_ms", lambda self: now_ms(self) - 62 * DAY_MS)
        async with house.open() as door:
            await door.apply(*documents(WORKER))
            old = await finished(door)
    async with house.open() as door:
        young = await finished(door)
        assert files(house) == of(house, old, young)
        pack = base64.b64decode((await door("evidence.export", sessions=[old]))["pack"])
        told = {"digest": f"sha256:{hashlib.sha256(pack).hexdigest()}", "sessions": [old]}
        await door("audit.retire", period=period_of(old), packs=[told], basis="retention has passed")
        assert files(house) == of(house, young)
        with pytest.raises(NotFound):
            await door("session.get", session=old)
