"""What a runtime before us left, when the index has to be built from the log first."""

from __future__ import annotations

import pytest
from house import WORKER, House, documents

from agentos.boot import standing


async def test_a_start_does_not_wait_for_an_index_that_is_built_anew(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime serves at once; what ran runs on and what waits is counted as soon as the index is there."""
    async with house.open() as door:
        await door.apply(*documents(WORKER))
        gate = door.hold(lambda _tool, args: args["path"] == "n1.txt")
        waits, runs = [await door.run(goal=goal) for goal in ("to be paused", "to run on")]
        for _ in range(2):
            await gate.begun.acquire()
        await door("session.pause", session=waits, reason="wait a moment")
    monkeypatch.setattr(standing, "PATIENCE_S", 0.0)
    for suffix in ("", "-wal", "-shm"):
        (house.root / "read" / f"default.db{suffix}").unlink(missing_ok=True)
    async with house.open() as door:
        sessions, tenant = door.runtime.sessions, door.runtime.tenants.get("default")
        assert (await door("session.get", session=runs))["state"] == "running"
        assert not sessions.live("default")
        await tenant.projector.caught_up()
        await door.runtime.standing.look()
        assert not sessions.live("default"), "it has no patience yet, not even for an answer of the server"
        monkeypatch.setattr(standing, "PATIENCE_S", 30.0)
        await door.runtime.standing.look()
        assert waits in sessions.live("default")
        await door.until(runs, "finished")
        assert (await door("session.get", session=waits))["state"] == "paused"
