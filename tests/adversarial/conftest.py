"""Makes a house with two tenants, one of which holds something of every kind; one for all tests of a process."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parents[1] / "integration" / "runtime"))
sys.path.insert(0, str(Path(__file__).parent))

from adversarial_world import HOOK_SECRETS, World, built


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def whole_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BETA_TOKEN", "a-value-of-beta-alone")
        for name, secret in HOOK_SECRETS.items():
            patch.setenv(name, secret)
        async with built(tmp_path_factory.mktemp("world") / "home") as found:
            yield found


@pytest_asyncio.fixture(loop_scope="session")
async def world(whole_world: World) -> AsyncIterator[World]:
    async with whole_world.visited() as found:
        yield found
