"""Records of triggers in a real bucket: the first writer wins, all is found again, and what is forgotten is gone."""

from __future__ import annotations

from typing import Any

import pytest

from agentos.boot.system import SystemRandom
from agentos.drivers.adapters.triggers_nats import NatsProgress
from agentos.supervisor.progress import Moved

pytestmark = pytest.mark.timeout(120)


async def test_the_first_of_two_writers_wins(open_account: Any) -> None:
    async with open_account() as door:
        one, other = (NatsProgress(door.client, SystemRandom(), Moved) for _ in range(2))
        assert await one.read("state.t") is None
        first = await one.write("state.t", b"1", expected=0)
        with pytest.raises(Moved):
            await other.write("state.t", b"2", expected=0)
        second = await other.write("state.t", b"2", expected=first)
        with pytest.raises(Moved):
            await one.write("state.t", b"3", expected=first)
        await one.write("mark.t.0123", b"m", expected=None)
        assert await one.read("state.t") == (b"2", second)
        assert await other.all() == [("state.t", b"2"), ("mark.t.0123", b"m")]
        await one.forget("state.t")
        assert await other.read("state.t") is None
        with pytest.raises(Moved):
            await one.write("state.t", b"4", expected=second)
        assert await one.write("state.t", b"4", expected=0) > second
