"""A file that breaks while the projector runs is found, thrown away and built anew from the log; and it is said."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from agentos.projections import projector as module
from agentos.projections import read
from agentos.projections.dump import dump
from agentos.projections.projector import Projector
from agentos.projections.store import Store
from agentos.projections.text_store import TextStore


@pytest.fixture(params=[Store, TextStore])
def store(tmp_path, request):
    made = request.param.open(tmp_path / "default.db", tenant="default")
    yield made
    made.close()


@pytest.fixture
async def filled(log, store, record, monkeypatch):
    """A projector at the end of a log of six sessions, that looks often."""
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    for number in range(6):
        await log.put(f"s-{number}", *record.busy_session(f"s-{number}").stored)
    async with Projector(log, store, pause_s=0.01) as projector:
        await projector.caught_up()
        yield projector


def _change(store) -> None:
    """Change a row behind the store's back: its structure is sound, its text is not what was written."""
    table = store.tables[0]
    column = table.columns[-1]
    with sqlite3.connect(store.path) as connection:
        connection.execute(f"UPDATE {table.name} SET {column} = 'changed'")  # noqa: S608 - a constant
    connection.close()


async def _mended(projector) -> None:
    async with asyncio.timeout(20):
        while projector.store.rebuilds == 0:
            await asyncio.sleep(0.01)
        await projector.caught_up()
        while await asyncio.to_thread(projector.store.positions) != await projector._log.ends():
            await asyncio.sleep(0.01)


async def test_a_changed_row_is_found_once_a_reader_stumbles(filled, store):
    """The reader's error is the reason to read the whole file; then all rows are those of the log again, and status tells why."""
    before = list(dump(store))
    _change(store)
    with pytest.raises(sqlite3.DatabaseError, match="not what was written"):
        list(dump(store))
    await _mended(filled)
    assert list(dump(store)) == before
    status = await filled.status()
    assert (status.rebuilds, status.problem) == (1, None)
    assert "not what was written" in (status.broken or "")


async def test_a_changed_row_that_nobody_reads_is_found_in_time(filled, store):
    """The file is read whole every so often, whoever asks."""
    before = list(dump(store))
    _change(store)
    filled._check_in_s = 0.05
    await _mended(filled)
    assert list(dump(store)) == before


async def test_a_sound_file_is_left_alone(filled, store):
    """A check that finds nothing changes nothing, and the next one is a day away."""
    filled._check_in_s = 0.05
    async with asyncio.timeout(20):
        while filled._check_in_s < 60:
            await asyncio.sleep(0.01)
    assert (store.rebuilds, read.faults(store)) == (0, [])
