"""Keys are copied as files of our own, and destroyed ones stay destroyed."""

from __future__ import annotations

import os
import secrets
import stat

import pytest

from agentos.abi.errors import IdentityError
from agentos.boot.erased_again import destroy_again
from agentos.boot.key_copy import copy_keys
from agentos.boot.system import SystemRandom
from agentos.eventlog.adapters.keystore import SqliteKeyStore


@pytest.fixture
def old(tmp_path):
    folder = tmp_path / "old"
    (folder / "nats").mkdir(parents=True)
    (folder / "nats" / "AGENTOS.nk").write_text("SU…")
    (folder / "evidence.pem").write_text("secret")
    (folder / "evidence.pem.pub").write_text("public")
    return folder


async def test_keys_and_stores_come_along(old, tmp_path):
    """Files with mode 0600, the public one readable; a store in use is copied whole, also what is in its write-ahead log only."""
    store = SqliteKeyStore.open(old / "payload" / "acme.db", SystemRandom())
    key = await store.of_session("s-1")
    new = tmp_path / "new"
    new.mkdir()
    copy_keys(old, new)
    modes = {str(path.relative_to(new)): stat.S_IMODE(path.stat().st_mode) for path in new.rglob("*") if path.is_file()}
    assert modes == {"nats/AGENTOS.nk": 0o600, "evidence.pem": 0o600, "evidence.pem.pub": 0o644, "payload/acme.db": 0o600}
    again = SqliteKeyStore.open(new / "payload" / "acme.db", SystemRandom())
    assert await again.of_session("s-1") == key
    again.close()
    store.close()


def test_what_is_no_key_of_ours(old, tmp_path):
    """A link among the keys is refused, and so is a folder that holds none."""
    (old / "nats" / "more.nk").symlink_to("/etc/passwd")
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with pytest.raises(IdentityError, match="file of your own"):
        copy_keys(old, one)
    with pytest.raises(IdentityError, match="no folder of keys"):
        copy_keys(tmp_path / "nothing", one)
    os.mkfifo(old / "nats" / "pipe")
    (old / "nats" / "more.nk").unlink()
    with pytest.raises(IdentityError, match="file of your own"):
        copy_keys(old, two)


async def test_erased_keys_are_destroyed_again(tmp_path):
    """What the audit chain names goes, in the tenant's own store; nothing else does, and none is made for a tenant without."""
    store = SqliteKeyStore.open(tmp_path / "acme.db", SystemRandom())
    gone, kept = await store.of_session("s-1"), await store.of_session("s-2")
    store.close()
    ids = frozenset({gone.id, secrets.token_bytes(16)})
    assert await destroy_again({"acme": ids, "other": ids, "none": frozenset()}, tmp_path, SystemRandom()) == 1
    assert not (tmp_path / "other.db").exists()
    store = SqliteKeyStore.open(tmp_path / "acme.db", SystemRandom())
    assert await store.find(gone.id) is None
    assert await store.find(kept.id) == kept
    store.close()
    assert gone.secret not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert await destroy_again({"acme": ids}, tmp_path, SystemRandom()) == 0
