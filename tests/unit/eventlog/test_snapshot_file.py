"""Snapshots as files: what was kept is found as it was, or not at all."""

from __future__ import annotations

import random
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentos.abi.chain import Head
from agentos.abi.errors import PayloadErased, Unavailable
from agentos.eventlog.adapters import snapshot_file
from agentos.eventlog.adapters.keystore import SqliteKeyStore
from agentos.eventlog.adapters.snapshot_file import SnapshotFiles
from agentos.eventlog.snapshots import Snapshot
from agentos.eventlog.subject import session_subject, stream_of

WORDS = b"kanarienvogel " * 40
ONE = Snapshot("s-1", Head(1200, "sha256:" + "1" * 64), 3456, "v 1", WORDS)
OTHER = Snapshot("s-2", Head(7, "sha256:" + "2" * 64), 9, "v 1", b"")
STREAMS = {stream_of(session_subject(one.session)) for one in (ONE, OTHER)}


class Seeded:
    """Random bytes that can be repeated."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)


class World:
    """The snapshots of one tenant, with keys in a real file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "snapshots" / "default"
        self.keys = SqliteKeyStore.open(folder / "keys.db", Seeded(2))
        self.store = SnapshotFiles(self.folder, "default", self.keys, Seeded(3))
        self.path = self.folder / "s-1.state"

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*"))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    made.keys.close()


async def test_what_is_kept_is_found(world: World) -> None:
    """Each session's own, the last one; nothing for a session that has none."""
    assert await world.store.find("s-1") is None
    await world.store.keep(ONE)
    await world.store.keep(OTHER)
    assert (await world.store.find("s-1"), await world.store.find("s-2")) == (ONE, OTHER)
    newer = replace(ONE, head=Head(1600, "sha256:" + "3" * 64), position=4000, body=b"newer")
    await world.store.keep(newer)
    assert await world.store.find("s-1") == newer
    await world.store.drop("s-1")
    await world.store.drop("s-1")
    assert await world.store.find("s-1") is None
    assert world.files() == ["s-2.state"]


async def test_a_file_tells_no_words_and_is_for_its_owner_alone(world: World) -> None:
    """The body is sealed, the file has mode 0600, its folder 0700."""
    await world.store.keep(ONE)
    assert b"kanarienvogel" not in world.path.read_bytes()
    assert stat.S_IMODE(world.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(world.folder.stat().st_mode) == 0o700


async def test_a_changed_file_is_none(world: World) -> None:
    """Whatever byte of it was changed, wherever it was cut: it is not believed, and it is gone."""
    await world.store.keep(ONE)
    whole = world.path.read_bytes()
    broken = [whole[:place] + bytes([byte ^ 1]) + whole[place + 1 :] for place, byte in enumerate(whole)]
    broken += [whole[:length] for length in range(len(whole))] + [whole + b"\0"]
    for data in broken:
        world.path.write_bytes(data)
        assert await world.store.find("s-1") is None
        assert not world.path.exists()
    world.path.write_bytes(whole)
    assert await world.store.find("s-1") == ONE


async def test_a_file_in_the_place_of_another_is_none(world: World, tmp_path: Path) -> None:
    """Another session's, also one with the same key; another tenant's, also with the same keys."""
    await world.store.keep(ONE)
    await world.keys.join("s-2", "s-1")
    data = world.path.read_bytes()
    (world.folder / "s-2.state").write_bytes(data)
    assert await world.store.find("s-2") is None
    foreign = SnapshotFiles(tmp_path / "acme", "acme", world.keys, Seeded(4))
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "s-1.state").write_bytes(data)
    assert await foreign.find("s-1") is None
    assert await world.store.find("s-1") == ONE


async def test_it_goes_with_its_key(world: World) -> None:
    """Once the key is destroyed nobody reads it, nobody makes another one, and a sweep takes the file."""
    await world.store.keep(ONE)
    await world.store.keep(OTHER)
    kept = world.path.read_bytes()
    await world.keys.destroy([(await world.keys.of_session("s-1")).id])
    assert await world.store.sweep(STREAMS) == 1
    assert world.files() == ["s-2.state"]
    world.path.write_bytes(kept)
    assert await world.store.find("s-1") is None
    assert world.files() == ["s-2.state"]
    with pytest.raises(PayloadErased):
        await world.store.keep(ONE)
    assert world.files() == ["s-2.state"]
    assert await world.store.find("s-2") == OTHER


async def test_a_sweep_takes_what_belongs_to_nobody(world: World) -> None:
    """Sessions whose stream was dropped, files under a wrong name, files of somebody else; not what is just being written."""
    assert await world.store.sweep(STREAMS) == 0
    await world.store.keep(ONE)
    data = world.path.read_bytes()
    (world.folder / "s-9.state").write_bytes(data)
    (world.folder / "foreign").write_text("hello")
    (world.folder / "s-8.state").symlink_to(world.path)
    (world.folder / "s-1.state.new").write_bytes(data)
    (world.folder / "s-2.state.new").write_bytes(b"")
    (world.folder / "s-3.state.new").write_bytes(data)
    assert await world.store.sweep(STREAMS) == 4
    assert world.files() == ["s-1.state", "s-1.state.new", "s-2.state.new"]
    assert await world.store.sweep({"EV_202611_0"}) == 2
    assert world.files() == ["s-2.state.new"]


@pytest.mark.parametrize("name", ["", "..", "../s-1", "a/b", "s-1\0", "ä", "x" * 300])
async def test_a_name_of_no_session_leads_nowhere(world: World, name: str) -> None:
    """Nothing is read, written or deleted beside the folder."""
    beside = world.folder.parent / "s-1.state"
    beside.parent.mkdir(parents=True)
    beside.write_text("beside")
    await world.store.keep(replace(ONE, session=name))
    assert await world.store.find(name) is None
    await world.store.drop(name)
    assert [path for path in world.folder.parent.rglob("*") if path.is_file()] == [beside]


async def test_a_link_is_not_followed(world: World, tmp_path: Path) -> None:
    """What lies in the place of a file and is none is taken away, and what it leads to stays."""
    await world.store.keep(ONE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(world.path.read_bytes())
    world.path.unlink()
    world.path.symlink_to(elsewhere)
    assert await world.store.find("s-1") is None
    assert not world.path.is_symlink()
    (world.folder / "s-1.state.new").symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    await world.store.keep(ONE)
    assert (elsewhere.read_bytes(), await world.store.find("s-1")) == (before, ONE)


async def test_a_disk_that_fails_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written, or is too large, leaves the one before, and nothing half done."""
    await world.store.keep(ONE)
    newer = replace(ONE, position=4000)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(Unavailable, match="No space left"):
            await world.store.keep(newer)
    with monkeypatch.context() as patched:
        patched.setattr(snapshot_file, "LARGEST", 100)
        with pytest.raises(Unavailable, match="more than 100 bytes"):
            await world.store.keep(newer)
        assert world.files() == ["s-1.state"]
    assert await world.store.find("s-1") == ONE
