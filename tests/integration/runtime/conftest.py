"""Makes a home for a runtime a fixture."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from house import Door, House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "home")


@pytest.fixture
async def door(house: House) -> AsyncIterator[Door]:
    """A runtime that runs."""
    async with house.open() as opened:
        yield opened
