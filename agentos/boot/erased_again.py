"""Erasures survive a restore: what the audit chain says was destroyed is destroyed again in the keys that were copied.

A copy of the keys may be older than an erasure, and a backup older than it does not even tell of it; then a newer backup does.
Its audit chain goes on behind the one that was restored, event by event as they were stored: the log says again what was erased,
held, exported and retired since, so every start carries it out again, whatever copy of the keys somebody puts there later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nats.aio.client import Client

from agentos.abi.errors import ChainBroken, EvidenceError
from agentos.abi.event import AUDIT_RETIRED, Event
from agentos.abi.ids import Clock, Random
from agentos.audit.audit_chain import AuditChain
from agentos.audit.checkpoint import origin_of
from agentos.audit.retired import read_retired
from agentos.audit.rotation import TrustedKey
from agentos.boot.restore_log import SIGNING_KEY, unvouched
from agentos.eventlog.adapters.jetstream import JetStreamLog
from agentos.eventlog.adapters.keystore import SqliteKeyStore
from agentos.eventlog.port import MAX_BATCH, Message
from agentos.eventlog.subject import AUDIT_CHAIN


async def read_chain(client: Client, tenant: str, clock: Clock, random: Random) -> tuple[bytes, ...]:
    """The events of the audit chain in this account, as stored, checked. Raises EvidenceError, LogUnavailable."""
    log = JetStreamLog(client)
    try:
        await AuditChain(log, tenant, clock, random).record()
    except ChainBroken as error:
        raise EvidenceError(f"the audit chain does not hold: {error.message}", where=f"{tenant} {error.where}") from error
    return tuple([stored.data async for stored in log.read(AUDIT_CHAIN)])


async def go_on(
    client: Client,
    tenant: str,
    newer: Sequence[bytes],
    keys: Sequence[TrustedKey],
    clock: Clock,
    random: Random,
    *,
    signs_on: bool,
) -> int:
    """Append what `newer` has behind the audit chain in this account, which must be the beginning of it; how many events.

    `keys` are those that will count in the new home, the ones of its own ring if it `signs_on`. Raises EvidenceError for a chain
    that is not this one gone on, and for streams that were retired by a signature that will not count.
    """
    there = await read_chain(client, tenant, clock, random)
    behind = newer[len(there) :]
    if tuple(newer[: len(there)]) != there[: len(newer)]:
        raise EvidenceError(
            "the audit chain of the newer backup is not the one of this backup gone on: there were two homes of one log",
            where=f"{tenant} {AUDIT_CHAIN}",
            mend="leave --tombstones out, and erase again in the new home what was erased since",
        )
    _require_vouched(behind, tenant, keys, signs_on=signs_on)
    log, position = JetStreamLog(client), 0
    if behind and (last := await log.last(AUDIT_CHAIN)) is not None:
        position = last.position
    for at in range(0, len(behind), MAX_BATCH):
        messages = [Message(Event.from_bytes(data).id, data) for data in behind[at : at + MAX_BATCH]]
        position = await log.append(AUDIT_CHAIN, messages, after=position)
    return len(behind)


def destroyed(chain: Sequence[bytes]) -> frozenset[bytes]:
    """The ids of all keys that the audit chain says were destroyed."""
    events = (Event.from_bytes(data) for data in chain)
    return frozenset(bytes.fromhex(key) for event in events for key in event.data.get("keys", ()))


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


def _require_vouched(events: Sequence[bytes], tenant: str, keys: Sequence[TrustedKey], *, signs_on: bool) -> None:
    """The new home will believe of each retired stream that it was. Raises EvidenceError."""
    for data in events:
        if Event.from_bytes(data).type != AUDIT_RETIRED:
            continue
        if not signs_on:
            raise unvouched(tenant)
        try:
            read_retired(data, origin_of(tenant, keys[0]), keys)
        except EvidenceError as error:
            mend = f"bring the keys of the newer backup's time: --keys with {SIGNING_KEY} in it"
            raise EvidenceError(error.message, where=f"{tenant} {AUDIT_CHAIN}", mend=mend) from error
