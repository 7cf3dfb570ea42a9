"""One account of a backup, brought back and proven: every stream with its positions, every event under every checkpoint.

    ends = await bring_back(client, backup, log)
    outcome = await prove(client, log, keys, read_folder, clock, random, signs_on=True)

What does not hold raises EvidenceError; whoever restores then throws the whole home away.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

from nats.aio.client import Client

from agentos.abi.errors import EvidenceError
from agentos.abi.ids import FLEET, Clock, Random
from agentos.audit.checkpoint import open_checkpoint
from agentos.audit.keyring import KeyRing
from agentos.audit.keys import SigningKey
from agentos.audit.merkle import root_of
from agentos.audit.prover import Prover
from agentos.audit.recheck import Recheck, Rechecked
from agentos.audit.rotation import TrustedKey
from agentos.audit.tiles import TileStore
from agentos.boot.backup_file import Backup
from agentos.boot.backup_manifest import LogEntry, StreamEntry
from agentos.boot.home import Home
from agentos.eventlog.adapters.jetstream import JetStreamLog, ensure_streams
from agentos.eventlog.adapters.snapshot import Snapshot, delete_stream, restore
from agentos.eventlog.adapters.streams import describe_streams
from agentos.eventlog.subject import CHECKPOINT_STREAM, REGISTRY_STREAM

SIGNING_KEY: Final = "evidence.pem"


class _Trusting(KeyRing):
    """Keys whose signatures count, and none to sign with: what it holds to sign is thrown away with it."""

    def __init__(self, keys: Sequence[TrustedKey], random: Random) -> None:
        super().__init__(None, SigningKey.from_seed(random.token(32)))
        self._keys = tuple(keys)

    @property
    def trusted(self) -> tuple[TrustedKey, ...]:
        """See `KeyRing.trusted`."""
        return self._keys


async def bring_back(client: Client, backup: Backup, log: LogEntry, entry: StreamEntry) -> None:
    """Restore one stream of `log` from its archive. Raises EvidenceError for an archive that the manifest does not name."""
    archive = backup.archive(log, entry)
    # The server stands alone, however many replicas the stream had.
    await restore(client, Snapshot(entry.name, {**entry.config, "num_replicas": 1}, entry.state, entry.size), archive)
    backup.require(log, entry, archive)


async def ends_of(client: Client, log: LogEntry) -> dict[str, tuple[int, int]]:
    """How many messages each stream has now and where it ends; all that the manifest promised. Raises EvidenceError."""
    names = [entry.name for entry in log.streams]
    await ensure_streams(client, names)
    found: dict[str, tuple[int, int]] = {}
    for entry, now in zip(log.streams, await describe_streams(client, names), strict=True):
        if now.messages < entry.messages or now.last < entry.last or (entry.messages and now.first != entry.first):
            said = f"{entry.messages} messages up to {entry.last} were saved, {now.messages} up to {now.last} came back"
            raise EvidenceError(said, where=log.member(entry.name))
        found[entry.name] = now.messages, now.last
    return found


async def prove(
    client: Client, log: LogEntry, keys: Sequence[TrustedKey], home: Home, clock: Clock, random: Random, *, signs_on: bool
) -> Rechecked:
    """Every event under every checkpoint, every chain followed, the roots of the manifest. Raises EvidenceError.

    `signs_on` says whether the old signing key goes on, which alone can vouch for streams that were retired.
    """
    eventlog, ring = JetStreamLog(client), _Trusting(keys, random)
    streams = (REGISTRY_STREAM,) if log.tenant == FLEET else None
    tiles = await asyncio.to_thread(TileStore.open, home.read / f"{log.name}.tiles.db", tenant=log.name)
    try:
        prover = Prover(log.name, eventlog, tiles, ring, clock, streams=streams)
        await prover.open(whole=True)
        if prover.alarm is not None:
            raise EvidenceError(f"the log is not what was signed: {prover.alarm}", where=log.name)
        if prover.retired and not signs_on:
            raise unvouched(log.name)
        outcome = await Recheck(prover).run(0, open_checkpoint(log.note, keys))
        if outcome.findings:
            raise EvidenceError(f"the log is not what was signed: {outcome.findings[0]}", where=log.name)
        for entry in log.streams:
            if entry.root is None:
                continue
            root = await asyncio.to_thread(root_of, tiles.nodes(entry.name), entry.last)
            if root.hex() != entry.root:
                said = f"its first {entry.last} messages are not those that were saved"
                raise EvidenceError(said, where=log.member(entry.name))
    finally:
        await asyncio.to_thread(tiles.close)
    return outcome


def unvouched(name: str) -> EvidenceError:
    """Why a log with retired streams cannot go on under a new key."""
    return EvidenceError(
        "streams of this log were retired, which only the old signing key can vouch for",
        where=name,
        mend=f"bring the old keys: --keys with {SIGNING_KEY} in it",
    )


async def lay_aside(client: Client, log: LogEntry, home: Home) -> None:
    """Keep the checkpoints of `log` as a file, and take their stream out: no key goes on with it.

    The file is JSON lines, a string each: the notes as they were signed, oldest first.
    """
    folder = home.root / "restored"
    folder.mkdir(mode=0o700, exist_ok=True)
    async with aclosing(JetStreamLog(client).scan(CHECKPOINT_STREAM)) as notes:
        lines = [json.dumps(stored.data.decode("utf-8"), ensure_ascii=False) async for stored in notes]
    path: Path = folder / f"{log.name}.notes.jsonl"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    await delete_stream(client, CHECKPOINT_STREAM)
    for tiles in home.read.glob(f"{log.name}.tiles.db*"):
        tiles.unlink()
