"""The file of the payload keys: durable before it is used, and gone when it is destroyed."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest

from agentos.abi.errors import Conflict, LogUnavailable, PayloadErased
from agentos.eventlog.adapters.keystore import SqliteKeyStore


class Seeded:
    def __init__(self, seed: int = 5) -> None:
        self._random = random.Random(seed)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "default.db"


def opened(path: Path) -> SqliteKeyStore:
    return SqliteKeyStore.open(path, Seeded())


def everything(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()))


async def test_a_key_is_made_once_and_survives(path: Path) -> None:
    """Fifty who ask at one time get the same key, and so does the next process; only the owner can read the file."""
    keys = opened(path)
    found = await asyncio.gather(*(keys.of_session("s-1") for _ in range(50)))
    assert len(set(found)) == 1
    keys.close()
    again = opened(path)
    assert await again.of_session("s-1") == found[0] == await again.find(found[0].id)
    assert path.stat().st_mode & 0o777 == 0o600
    assert found[0].secret.hex() not in repr(found[0])
    assert str(found[0].secret) not in repr(found[0])
    again.close()


async def test_a_key_is_in_the_file_before_it_is_used(path: Path) -> None:
    """Another process that opens the file the moment after has it."""
    keys = opened(path)
    made = await keys.of_session("s-1")
    other = opened(path)
    assert await other.find(made.id) == made
    other.close()
    keys.close()


async def test_a_destroyed_key_is_nowhere(path: Path) -> None:
    """Not in the file, not in what SQLite keeps beside it, not in memory; that it was there stays known."""
    keys = opened(path)
    kept, gone = await keys.of_session("s-kept"), await keys.of_session("s-gone")
    await keys.assign("s-person", "customer 17")
    person = await keys.of_session("s-person")
    assert gone.secret in everything(path)
    assert await keys.destroy([gone.id, person.id]) == 2
    for secret in (gone.secret, person.secret, b"customer 17"):
        assert secret not in everything(path)
    assert kept.secret in everything(path)
    assert await keys.find(gone.id) is None
    assert await keys.of_subject("customer 17") is None
    with pytest.raises(PayloadErased):
        await keys.of_session("s-gone")
    assert await keys.destroy([gone.id]) == 0
    assert await keys.find(kept.id) == kept
    keys.close()


@pytest.mark.parametrize("seed", [3, 21])
async def test_no_copy_of_a_destroyed_key_stays_between_the_rows(path: Path, seed: int) -> None:
    """SQLite moves rows between pages and overwrites no copy that it leaves: neither half of a key nor a person is found."""
    keys = SqliteKeyStore.open(path, Seeded(seed))
    keys._connection.execute("PRAGMA synchronous = OFF")
    made = {}
    for number in range(600):
        if number % 3 == 0:
            keys._assign(f"s-{number}", f"customer-{number:06}@example.org")
        made[number] = keys._of_session(f"s-{number}")
    gone = {number: key for number, key in made.items() if number % 5 == 0}
    assert await keys.destroy([key.id for key in gone.values()]) == len(gone)
    left = everything(path)
    assert not [number for number, key in gone.items() if key.secret[:16] in left or key.secret[16:] in left]
    assert not [number for number in gone if f"customer-{number:06}@".encode() in left]
    for key in made.values():
        assert keys._find(key.id) == (None if key in gone.values() else key)
    keys.close()


async def test_what_a_reader_or_a_crash_prevented_is_made_up_for(path: Path) -> None:
    """While somebody reads the file a destruction is not said to be done; the next start of the store finishes it."""
    keys = opened(path)
    gone = await keys.of_session("s-gone")
    keys._connection.execute("PRAGMA busy_timeout = 10")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM keys").fetchone()
    with pytest.raises(LogUnavailable):
        await keys.destroy([gone.id])
    assert await keys.find(gone.id) is None
    assert gone.secret in everything(path)
    reader.close()
    keys.close()
    again = opened(path)
    assert gone.secret not in everything(path)
    assert again._connection.execute("SELECT count(*) FROM unswept").fetchone() == (0,)
    again.close()


async def test_destroying_what_never_was_is_remembered(path: Path) -> None:
    """A tombstone that is replayed before an older copy of a key comes back."""
    keys = opened(path)
    assert await keys.destroy([b"0" * 16]) == 0
    assert await keys.find(b"0" * 16) is None
    keys.close()


async def test_a_session_has_one_key(path: Path) -> None:
    """It cannot be given to another person; saying the same twice is fine."""
    keys = opened(path)
    await keys.assign("s-1", "ann")
    await keys.assign("s-1", "ann")
    with pytest.raises(Conflict):
        await keys.assign("s-1", "bob")
    own = await keys.of_session("s-2")
    with pytest.raises(Conflict):
        await keys.assign("s-2", "ann")
    assert await keys.of_session("s-2") == own
    assert await keys.sharing("s-3") is None
    keys.close()


@pytest.mark.parametrize("harm", ["not a database" * 1000, "", "other"], ids=["junk", "empty", "another database"])
async def test_a_file_of_another_kind_is_refused_and_kept(path: Path, harm: str) -> None:
    """An empty file is as good as none; anything else is never replaced, for it may be all that opens the log."""
    path.parent.mkdir()
    if harm == "other":
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE t (x)")
        other.close()
    else:
        path.write_text(harm)
    before = path.read_bytes()
    if harm == "":
        opened(path).close()
        return
    with pytest.raises(LogUnavailable):
        opened(path)
    assert path.read_bytes() == before or harm == "other"


async def test_a_store_that_is_gone_is_unavailable(path: Path) -> None:
    """Who cannot read keys must not take payloads for erased."""
    keys = opened(path)
    keys.close()
    with pytest.raises(LogUnavailable):
        await keys.find(b"0" * 16)
