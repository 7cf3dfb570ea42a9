"""Erasures survive a restore: what the audit chain says was destroyed is destroyed again in the keys that were copied.

A copy of the keys may be older than an erasure, and a backup older than it does not even tell of it; then a newer backup does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nats.aio.client import Client

from agentos.abi.ids import Clock, Random
from agentos.audit.audit_chain import AuditChain
from agentos.eventlog.adapters.jetstream import JetStreamLog
from agentos.eventlog.adapters.keystore import SqliteKeyStore


async def read_tombstones(client: Client, tenant: str, clock: Clock, random: Random) -> frozenset[bytes]:
    """The ids of all keys that the audit chain in this account says were destroyed. Raises ChainBroken, LogUnavailable."""
    record = await AuditChain(JetStreamLog(client), tenant, clock, random).record()
    return frozenset(key for tombstone in record.tombstones for key in tombstone.keys)


async def destroy_again(gone: Mapping[str, frozenset[bytes]], folder: Path, random: Random) -> int:
    """Destroy the keys `gone` (by tenant) in the stores in `folder`; how many were still there. Raises LogUnavailable."""
    there = 0
    for tenant, keys in sorted(gone.items()):
        path = folder / f"{tenant}.db"
        if not keys or not path.exists():
            continue
        store = SqliteKeyStore.open(path, random)
        try:
            there += await store.destroy(sorted(keys))
        finally:
            store.close()
    return there
