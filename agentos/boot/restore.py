"""A home made from a backup: checked whole, built beside its place, proven by its checkpoints, and only then put there.

Order: the file's layout, signature and digests → keys copied, if there are any → a server in a folder beside the new home, with
an account per tenant → every stream, its sequences unchanged → every event hashed anew and compared with every signed checkpoint,
every session's chain followed → what was erased is erased again → the folder gets the home's name. Whatever is wrong on the way:
the folder is removed and there is no new home. The read models are built from the log by the next `agentos up`.

With the old runtime's signing key the log of checkpoints goes on. Without it the old checkpoints, once they have proven the log,
are laid beside it as files (`restored/`), and the next start begins a new log of checkpoints with a new key.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nats.aio.client import Client

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Conflict, EvidenceError, UsageError
from agentos.abi.ids import FLEET, Clock, Random
from agentos.audit.checkpoint import open_checkpoint
from agentos.audit.keyring import KeyRing
from agentos.audit.keys import SigningKey
from agentos.audit.merkle import root_of
from agentos.audit.prover import Prover
from agentos.audit.recheck import Recheck, Rechecked
from agentos.audit.rotation import TrustedKey
from agentos.audit.tiles import TileStore
from agentos.audit.trust import Trust
from agentos.boot.backend import Embedded
from agentos.boot.backup_file import Backup, open_backup
from agentos.boot.backup_manifest import LogEntry, StreamEntry
from agentos.boot.erased_again import destroy_again, read_tombstones
from agentos.boot.home import Home
from agentos.boot.key_copy import copy_keys
from agentos.boot.litestream import named, read_config, restore_database
from agentos.eventlog.adapters.jetstream import JetStreamLog, ensure_streams
from agentos.eventlog.adapters.snapshot import Snapshot, delete_stream, restore
from agentos.eventlog.adapters.streams import describe_streams
from agentos.eventlog.subject import AUDIT_STREAM, CHECKPOINT_STREAM, REGISTRY_STREAM
from agentos.projections.store import Store

SIGNING_KEY: Final = "evidence.pem"

LEFTOVERS: Final = ("nats.conf", "nats.log", "nats.pid", "lock")
"""Files of the server that restored, which name a folder that is no more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a restore is asked for: at least one of `trust` and `keys` says whose signature counts."""

    backup: Path
    home: Path
    trust: Trust | None = None
    keys: Path | None = None
    """The folder `keys` of the old home, or a copy of it."""
    tombstones: Path | None = None
    """A newer backup, whose erasures are made again too."""
    litestream: Path | None = None
    """The configuration by which the old runtime replicated its read models."""


@dataclass(slots=True)
class Restored:
    """What came of it."""

    home: str
    created_at: str
    tenants: tuple[str, ...]
    streams: int = 0
    messages: int = 0
    checkpoints: int = 0
    unsigned: int = 0
    """Events behind the last checkpoint: in their chains, and under the backup's own signature."""
    keys: bool = False
    signs_on: bool = False
    erased: int = 0
    read_models: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape of `agentos restore -o json` (`schemas/v1/restore-report.json`)."""
        return {
            "home": self.home,
            "created_at": self.created_at,
            "tenants": list(self.tenants),
            "streams": self.streams,
            "messages": self.messages,
            "checkpoints": self.checkpoints,
            "unsigned": self.unsigned,
            "keys": self.keys,
            "signs_on": self.signs_on,
            "erased": self.erased,
            "read_models": list(self.read_models),
            "warnings": list(self.warnings),
        }


class _Trusting(KeyRing):
    """Keys whose signatures count, and none to sign with: what it holds to sign is thrown away with it."""

    def __init__(self, keys: Sequence[TrustedKey], random: Random) -> None:
        super().__init__(None, SigningKey.from_seed(random.token(32)))
        self._keys = tuple(keys)

    @property
    def trusted(self) -> tuple[TrustedKey, ...]:
        """See `KeyRing.trusted`."""
        return self._keys


class Restoring:
    """One restore. `told` hears sentences for people about what is being done."""

    def __init__(self, wanted: Wanted, clock: Clock, random: Random, told: Callable[[str], None]) -> None:
        self._wanted = wanted
        self._clock = clock
        self._random = random
        self._told = told
        self._ends: dict[str, dict[str, int]] = {}

    async def run(self) -> Restored:
        """Make the home. Raises UsageError, Conflict where a home is already, EvidenceError for a backup that does not hold."""
        wanted = self._wanted
        if wanted.trust is None and wanted.keys is None:
            raise UsageError(
                "nothing says whose signature counts: whoever changes a backup can also sign it with another key",
                mend="add --trust runtime.pub (agentos evidence key), or --keys with the old home's folder keys",
            )
        home = wanted.home.resolve()
        _require_empty(home)
        left = await asyncio.to_thread(lambda: sorted(home.parent.glob(f".{home.name}.restoring-*")))
        try:
            with wanted.backup.open("rb") as file:
                backup = open_backup(file)
                staging = Path(tempfile.mkdtemp(prefix=f".{home.name}.restoring-", dir=home.parent))
                try:
                    done = await self._build(backup, Home(staging), str(home))
                    await asyncio.to_thread(_settle, staging, home)
                finally:
                    await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
        except OSError as error:
            where = error.filename if isinstance(error.filename, str) else str(wanted.backup)
            raise AgentOSError(f"the backup cannot be restored: {error.strerror}", where=where) from error
        done.warnings += [f"a restore that was killed has left {path}, which may hold keys: delete it" for path in left]
        return done

    async def _build(self, backup: Backup, home: Home, name: str) -> Restored:
        wanted, manifest = self._wanted, backup.manifest
        home.prepare()
        if wanted.keys is not None:
            await asyncio.to_thread(copy_keys, wanted.keys, home.keys)
        signing = home.keys / SIGNING_KEY
        ring = KeyRing.open(signing, self._random) if signing.exists() else None
        keys = self._keys(backup, ring)
        self._told("reading the backup")
        await asyncio.to_thread(backup.check)
        done = Restored(name, manifest.created_at, manifest.tenants, keys=wanted.keys is not None, signs_on=ring is not None)
        gone = {} if wanted.tombstones is None else await self._newer(wanted.tombstones, backup, keys, home)
        async with _server(home.nats, home.keys, manifest.tenants, self._random) as server:
            for log in manifest.logs:
                client = await server.connect(log.tenant)
                try:
                    await self._log(client, backup, log, keys, home, done)
                    if any(entry.name == AUDIT_STREAM for entry in log.streams):
                        gone[log.tenant] = gone.get(log.tenant, frozenset()) | await read_tombstones(
                            client, log.tenant, self._clock, self._random
                        )
                    if ring is None:
                        await _lay_aside(client, log, home)
                finally:
                    await client.close()
        done.erased = await destroy_again(gone, home.keys / "payload", self._random)
        if wanted.litestream is not None:
            await self._read_models(wanted.litestream, home, done)
        if done.keys and wanted.tombstones is None:
            told = "payloads that were erased after this backup was made can be read again if the keys are a copy from before"
            done.warnings.append(f"{told}: restore with --tombstones and a newer backup, or erase them again")
        if not done.keys:
            done.warnings.append("without keys no payload can be read, and sessions that were running cannot go on")
        if ring is None:
            done.warnings.append("a new signing key begins a new log of checkpoints; the old ones, which held, are in restored/")
        return done

    def _keys(self, backup: Backup, ring: KeyRing | None) -> tuple[TrustedKey, ...]:
        """The keys whose signatures count, one of which signed the backup. Raises EvidenceError, UsageError."""
        wanted, manifest = self._wanted, backup.manifest
        keys: tuple[TrustedKey, ...] = ()
        if wanted.trust is not None:
            keys = backup.keys(wanted.trust)
            backup.require_signed(keys)
        if ring is not None:
            backup.require_signed(ring.trusted if wanted.trust is None else keys)
            known = {one.id for one in ring.trusted}
            if ring.rotations[: len(manifest.rotations)] != manifest.rotations or manifest.key not in known:
                raise EvidenceError(
                    f"the signing key {ring.current.id} is not the one that goes on behind this backup",
                    where=str(wanted.keys),
                    mend=f"bring the keys of the backup's time or later, or leave {SIGNING_KEY}* out and begin with a new key",
                )
            return ring.trusted
        if wanted.trust is None:
            raise UsageError(f"{wanted.keys} holds no {SIGNING_KEY}", mend="add --trust runtime.pub, the runtime's public key")
        return keys

    async def _log(
        self, client: Client, backup: Backup, log: LogEntry, keys: Sequence[TrustedKey], home: Home, done: Restored
    ) -> None:
        """Restore one account and prove it."""
        for entry in log.streams:
            self._told(f"restoring {log.member(entry.name)}: {entry.messages} messages")
            archive = backup.archive(log, entry)
            await restore(client, _alone(entry), archive)
            backup.require(log, entry, archive)
        names = [entry.name for entry in log.streams]
        await ensure_streams(client, names)
        for entry, now in zip(log.streams, await describe_streams(client, names), strict=True):
            if now.messages < entry.messages or now.last < entry.last or (entry.messages and now.first != entry.first):
                said = f"{entry.messages} messages up to {entry.last} were saved, {now.messages} up to {now.last} came back"
                raise EvidenceError(said, where=log.member(entry.name))
            done.streams, done.messages = done.streams + 1, done.messages + now.messages
            self._ends.setdefault(log.tenant, {})[entry.name] = now.last
        self._told(f"proving the log {log.name}")
        outcome = await self._prove(client, log, keys, home, done)
        done.checkpoints, done.unsigned = done.checkpoints + outcome.checkpoints, done.unsigned + outcome.unsigned

    async def _prove(self, client: Client, log: LogEntry, keys: Sequence[TrustedKey], home: Home, done: Restored) -> Rechecked:
        """Every event under every checkpoint, every chain followed, the roots of the manifest. Raises EvidenceError."""
        eventlog, ring = JetStreamLog(client), _Trusting(keys, self._random)
        streams = (REGISTRY_STREAM,) if log.tenant == FLEET else None
        tiles = await asyncio.to_thread(TileStore.open, home.read / f"{log.name}.tiles.db", tenant=log.name)
        try:
            prover = Prover(log.name, eventlog, tiles, ring, self._clock, streams=streams)
            await prover.open(whole=True)
            if prover.alarm is not None:
                raise EvidenceError(f"the log is not what was signed: {prover.alarm}", where=log.name)
            if prover.retired and not done.signs_on:
                raise EvidenceError(
                    "streams of this log were retired, which only the old signing key can vouch for",
                    where=log.name,
                    mend=f"bring the old keys: --keys with {SIGNING_KEY} in it",
                )
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

    async def _read_models(self, config: Path, home: Home, done: Restored) -> None:
        """Bring back the indexes from their replicas; one that cannot be used is left to be built from the log."""
        replicated = named(read_config(config, None))
        for tenant in done.tenants:
            self._told(f"bringing back the read model of {tenant}")
            if tenant not in replicated:
                done.warnings.append(f"the read model of {tenant} is not in {config}: it is built from the log")
                continue
            target = home.read / f"{tenant}.db"
            why = await restore_database(config, replicated[tenant], target)
            if why is None:
                why = await asyncio.to_thread(_unfit, target, tenant, self._ends.get(tenant, {}))
            if why is None:
                done.read_models.append(tenant)
            else:
                done.warnings.append(f"the read model of {tenant} is built from the log: {why}")

    async def _newer(self, path: Path, backup: Backup, keys: Sequence[TrustedKey], home: Home) -> dict[str, frozenset[bytes]]:
        """The keys that a newer backup says were destroyed, by tenant. Raises EvidenceError."""
        self._told(f"reading what was erased by the time of {path}")
        with path.open("rb") as file:
            newer = open_backup(file)
            newer.require_signed(newer.keys(self._wanted.trust) if self._wanted.trust is not None else keys)
            if newer.manifest.created_at < backup.manifest.created_at:
                raise UsageError(f"{path} is older than the backup itself", mend="name a newer one, or leave --tombstones out")
            await asyncio.to_thread(newer.check)
            found: dict[str, frozenset[bytes]] = {}
            async with _server(home.root / "newer", home.root / "newer-keys", newer.manifest.tenants, self._random) as server:
                for log in newer.manifest.logs:
                    entry = next((one for one in log.streams if one.name == AUDIT_STREAM), None)
                    if entry is None:
                        continue
                    client = await server.connect(log.tenant)
                    try:
                        await restore(client, _alone(entry), newer.archive(log, entry))
                        found[log.tenant] = await read_tombstones(client, log.tenant, self._clock, self._random)
                    finally:
                        await client.close()
        for folder in ("newer", "newer-keys"):
            await asyncio.to_thread(shutil.rmtree, home.root / folder)
        return found


@asynccontextmanager
async def _server(folder: Path, keys: Path, tenants: Sequence[str], random: Random) -> AsyncIterator[Embedded]:
    """An embedded server with an account per tenant, while the block runs.

    Nobody is told that anything is stored, so it does not sync each message, of which a log has millions: `_settle` syncs all.
    """
    server = Embedded(folder, keys, random, 0, sync_always=False)
    try:
        await server.start(tenants)
        yield server
    finally:
        await server.stop()


def _alone(entry: StreamEntry) -> Snapshot:
    """The snapshot of a stream for a server that stands alone, however many replicas it had."""
    return Snapshot(entry.name, {**entry.config, "num_replicas": 1}, entry.state, entry.size)


async def _lay_aside(client: Client, log: LogEntry, home: Home) -> None:
    """Keep the checkpoints of `log` as a file, and take their stream out: no key goes on with it.

    The file is JSON lines, a string each: the notes as they were signed, oldest first.
    """
    folder = home.root / "restored"
    folder.mkdir(mode=0o700, exist_ok=True)
    async with aclosing(JetStreamLog(client).scan(CHECKPOINT_STREAM)) as notes:
        lines = [json.dumps(stored.data.decode("utf-8"), ensure_ascii=False) async for stored in notes]
    path = folder / f"{log.name}.notes.jsonl"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    await delete_stream(client, CHECKPOINT_STREAM)
    for tiles in home.read.glob(f"{log.name}.tiles.db*"):
        tiles.unlink()


def _unfit(path: Path, tenant: str, ends: Mapping[str, int]) -> str | None:
    """Why the index that was brought back cannot be used, None if it can; what cannot is removed."""
    store = Store.open(path, tenant=tenant)
    try:
        positions = store.positions()
    finally:
        store.close()
    ahead = sorted(stream for stream, position in positions.items() if position > ends.get(stream, 0))
    if positions and not ahead:
        return None
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    return f"the replica has read further than the backup goes in {', '.join(ahead)}" if ahead else "the replica is none of ours"


def _require_empty(home: Path) -> None:
    """A home is made where there is nothing. Raises Conflict, UsageError."""
    if not home.parent.is_dir():
        raise UsageError(f"there is no folder {home.parent}", mend="make it first")
    if not os.path.lexists(home):
        return
    owner = Home(home).owner() if home.is_dir() else None
    if owner is not None:
        raise Conflict(f"a runtime (pid {owner}) runs on {home}", mend="restore into a new home: --home DIR")
    if not home.is_dir() or any(home.iterdir()):
        raise Conflict(f"{home} is not empty", mend="a restore replaces nothing: name a new home with --home DIR")


def _settle(staging: Path, home: Path) -> None:
    """Take away what names the folder, have everything on disk, and make the folder the home. Raises OSError, Conflict."""
    nats = staging / "nats"
    for name in LEFTOVERS:
        (nats / name).unlink(missing_ok=True)
    for path in (*nats.glob("*.ports"), staging / "run" / "endpoint.json"):
        path.unlink(missing_ok=True)
    for path in (*staging.rglob("*"), staging):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    _require_empty(home)
    staging.rename(home)
