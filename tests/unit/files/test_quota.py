"""Quotas: what may be written, what is counted, and what a process left."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from agentos.abi.errors import DriverError
from agentos.files.adapters.versions_sqlite import SqliteVersions
from agentos.files.guard import Guard
from agentos.files.measure import Roots, measure
from agentos.files.put import put
from agentos.files.quota import NOTHING, Amount, QuotaExceeded, Quotas
from agentos.files.versions import FOUND, Author, Place
from agentos.kernel.workspace import Workspaces, pack

PLACE = Place("acme", "session", "s-1")
ANN = Author("principal/ann")


class Clock:
    def now_ms(self) -> int:
        return 1


class House:
    """A tenant's files on disk, with quotas over them."""

    def __init__(self, top: Path, most: Amount) -> None:
        self.top, self.most = top, most
        self.roots = Roots(top / "workspaces", top / "spaces", top / "versions")
        self.walks = 0
        self.quotas = Quotas(lambda _tenant: self.most, self.measure)
        self.workspaces = Workspaces(self.roots.workspaces, self.quotas)
        self.versions = SqliteVersions(self.roots.versions, Clock(), quotas=self.quotas)
        self.folder = self.workspaces.path("acme", "s-1")

    def measure(self, tenant: str) -> dict[str, Amount]:
        self.walks += 1
        return measure(self.roots, tenant)

    def write(self, name: str, size: int) -> None:
        with self.versions.room(PLACE, Amount(size, 1)):
            put(self.folder, name, os.urandom(size), Guard())
            self.versions.capture(PLACE, self.folder, ANN, Guard(), paths=(name,))

    def look(self) -> None:
        self.versions.capture(PLACE, self.folder, FOUND, Guard(), op="found")

    def true(self) -> Amount:
        """What is there, measured anew."""
        held = measure(self.roots, "acme").values()
        return Amount(sum(one.bytes for one in held), sum(one.files for one in held))


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path, Amount(4 << 20, 50))
    made.workspaces.create("acme", "s-1", None)
    return made


def test_what_is_known_is_what_is_there(house: House, tmp_path: Path) -> None:
    """After writes, changes by others, removals, and another session: the sum in memory is the one on disk, after one walk."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.txt").write_bytes(b"x" * 1000)
    house.workspaces.create("acme", "s-2", pack(tmp_path / "in")[0])
    house.write("a/b/c.txt", 5000)
    house.write("d.txt", 100)
    (house.folder / "left.bin").write_bytes(b"y" * 12345)
    (house.folder / "link").symlink_to("d.txt")
    Path(os.fsdecode(os.fsencode(house.folder) + b"/\xff")).mkdir()
    Path(os.fsdecode(os.fsencode(house.folder) + b"/\xff/hidden")).write_bytes(b"z" * 777)
    (house.folder / "d.txt").unlink()
    house.look()
    # The folder `input` of the other one is found at its first look, as nobody has looked there yet.
    house.versions.begin(Place("acme", "session", "s-2"), house.workspaces.path("acme", "s-2"), Guard())
    assert house.quotas.used("acme") == house.true()
    house.workspaces.destroy("acme", "s-2")
    house.versions.destroy(Place("acme", "session", "s-2"))
    house.versions.destroy(PLACE)
    house.workspaces.destroy("acme", "s-1")
    assert house.quotas.used("acme") == house.true() == NOTHING
    assert house.walks == 1


def test_a_write_beyond_is_refused_before_it_is_made(house: House) -> None:
    """Too many bytes, or too many names: nothing is written, the words name what there is, and smaller ones still go."""
    house.write("a.txt", 1000)
    with pytest.raises(QuotaExceeded, match="tenant acme has no room for more: it has"):
        house.write("b.txt", 4 << 20)
    assert not (house.folder / "b.txt").exists()
    house.write("b.txt", 10)
    house.most = Amount(1 << 30, 2)
    with pytest.raises(QuotaExceeded, match="2 of 2 files"):
        house.write("c.txt", 10)
    assert sorted(path.name for path in house.folder.iterdir()) == ["a.txt", "b.txt"]


def test_an_input_beyond_leaves_nothing(house: House, tmp_path: Path) -> None:
    """An input that unpacks to more than there is room for is refused whole, and the room is there for another one."""
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / "in" / f"{number}.bin").write_bytes(bytes(1 << 20))
    archive, _ = pack(tmp_path / "in")
    assert len(archive) < 1 << 20
    before = house.quotas.used("acme")
    with pytest.raises(QuotaExceeded):
        house.workspaces.create("acme", "s-2", archive)
    assert not house.workspaces.path("acme", "s-2").exists()
    assert house.quotas.used("acme") == before
    (tmp_path / "in" / "4.bin").unlink()
    (tmp_path / "in" / "3.bin").unlink()
    house.workspaces.create("acme", "s-2", pack(tmp_path / "in")[0])


def test_a_restore_beyond_is_refused(house: House) -> None:
    """What was removed comes back only where there is room for it; taking away always goes."""
    house.versions.begin(PLACE, house.folder, Guard())
    house.write("big.bin", 1 << 20)
    (house.folder / "big.bin").unlink()
    house.look()
    house.most = Amount(house.quotas.used("acme").bytes + 1000, 50)
    with pytest.raises(QuotaExceeded):
        house.versions.restore(PLACE, house.folder, "big.bin", 1, ANN, Guard())
    assert not (house.folder / "big.bin").exists()
    house.most = Amount(1 << 30, 50)
    house.versions.restore(PLACE, house.folder, "big.bin", 1, ANN, Guard())
    house.most = Amount(1, 1)
    house.versions.restore(PLACE, house.folder, "big.bin", 0, ANN, Guard())
    assert not (house.folder / "big.bin").exists()


def test_what_a_process_left_is_found(house: House) -> None:
    """Names that are no UTF-8 and folders of them count; beyond the quota nobody may write whom nobody can stop."""
    house.versions.begin(PLACE, house.folder, Guard())
    house.versions.require(PLACE)
    Path(os.fsdecode(os.fsencode(house.folder) + b"/\xff")).mkdir()
    for number in range(60):
        Path(os.fsdecode(os.fsencode(house.folder) + b"/\xff/%d" % number)).touch()
    house.look()
    with pytest.raises(QuotaExceeded, match="has more files than it may"):
        house.versions.require(PLACE)


def test_folders_too_deep_to_look_into_hold_their_own_session_up(house: House) -> None:
    """Nobody can hide files below a hundred folders: that session writes no more, the others do."""
    deep = house.folder
    for _ in range(100):
        deep = deep / "d"
        deep.mkdir()
    house.most = Amount(1 << 30, 1000)
    house.versions.begin(PLACE, house.folder, Guard())
    with pytest.raises(QuotaExceeded, match="cannot be told"):
        house.versions.require(PLACE)
    house.versions.require(Place("acme", "session", "s-2"))


def test_two_writers_do_not_both_get_the_last_room() -> None:
    """Of many who ask at once so many are let in as there is room for, whatever the order."""
    quotas = Quotas(lambda _tenant: Amount(100, 10), lambda _tenant: {})
    let, start, done = [], threading.Barrier(20), threading.Event()

    def ask() -> None:
        start.wait()
        try:
            with quotas.room("acme", Amount(30, 1)):
                let.append(1)
                done.wait()
        except QuotaExceeded:
            refused.append(1)
            if len(refused) == 17:
                done.set()

    refused: list[int] = []
    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(let), len(refused)) == (3, 17)
    assert quotas.used("acme") == NOTHING
    with quotas.room("acme", Amount(100, 10)):
        pass


def test_one_tenant_is_not_held_up_by_another() -> None:
    """Acme is full, beta is not; and the refusal is of a kind that a tool's caller reads."""
    quotas = Quotas(lambda _tenant: Amount(100, 10), lambda _tenant: {})
    quotas.holds("acme", "session/s-1", Amount(100, 10))
    with pytest.raises(DriverError) as caught, quotas.room("acme", Amount(1, 0)):
        pytest.fail("there is no room")
    assert caught.value.code == "quota.exceeded"
    assert "beta" not in str(caught.value.to_dict())
    with quotas.room("beta", Amount(100, 10)):
        quotas.require("beta", "session/s-1")
