"""A home made from a backup: checked whole, built beside its place, proven by its checkpoints, and only then put there.

Order: the file's layout, signature and digests → keys copied, if there are any → a server in a folder beside the new home, with
an account per tenant → every stream, its sequences unchanged → every event hashed anew and compared with every signed checkpoint,
every session's chain followed → the audit chain goes on as far as a newer backup has it, if one is named → what was erased is
erased again → the folder gets the home's name. Whatever is wrong on the way: the folder is removed and there is no new home. The
read models are built from the log by the next `agentos up`.

With the old runtime's signing key the log of checkpoints goes on. Without it the old checkpoints, once they have proven the log,
are laid beside it as files (`restored/`), and the next start begins a new log of checkpoints with a new key.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nats.aio.client import Client

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, EvidenceError, UsageError
from agentos.abi.ids import Clock, Random
from agentos.audit.keyring import KeyRing
from agentos.audit.rotation import TrustedKey
from agentos.audit.trust import Trust
from agentos.boot.backup_file import Backup, open_backup
from agentos.boot.backup_manifest import LogEntry
from agentos.boot.erased_again import destroy_again, destroyed, go_on, read_chain
from agentos.boot.home import Home
from agentos.boot.key_copy import copy_keys
from agentos.boot.litestream import named, read_config, restore_database
from agentos.boot.restore_log import SIGNING_KEY, bring_back, ends_of, lay_aside, prove
from agentos.boot.restore_place import require_empty, serving, settle
from agentos.eventlog.subject import AUDIT_STREAM
from agentos.projections.store import Store


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a restore is asked for: at least one of `trust` and `keys` says whose signature counts."""

    backup: Path
    home: Path
    trust: Trust | None = None
    keys: Path | None = None
    """The folder `keys` of the old home, or a copy of it."""
    tombstones: Path | None = None
    """A newer backup, whose audit chain goes on behind this one's: what was erased, held or retired by then."""
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
    """Keys that were in the copy of the keys although they had been destroyed."""
    replayed: int = 0
    """Events of the audit chain that were taken over from the newer backup."""
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
            "replayed": self.replayed,
            "read_models": list(self.read_models),
            "warnings": list(self.warnings),
        }


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
        require_empty(home)
        left = await asyncio.to_thread(lambda: sorted(home.parent.glob(f".{home.name}.restoring-*")))
        try:
            with wanted.backup.open("rb") as file:
                backup = open_backup(file)
                staging = Path(tempfile.mkdtemp(prefix=f".{home.name}.restoring-", dir=home.parent))
                try:
                    done = await self._build(backup, Home(staging), str(home))
                    await asyncio.to_thread(settle, staging, home)
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
        newer = {} if wanted.tombstones is None else await self._newer(wanted.tombstones, backup, keys, home)
        gone = {tenant: destroyed(chain) for tenant, chain in newer.items()}
        async with serving(home.nats, home.keys, manifest.tenants, self._random) as server:
            for log in manifest.logs:
                client = await server.connect(log.tenant)
                try:
                    await self._log(client, backup, log, keys, home, done)
                    if log.tenant in newer:
                        trusted = keys if ring is None else ring.trusted
                        words = (client, log.tenant, newer[log.tenant], trusted, self._clock, self._random)
                        done.replayed += await go_on(*words, signs_on=ring is not None)
                    if any(entry.name == AUDIT_STREAM for entry in log.streams):
                        chain = await read_chain(client, log.tenant, self._clock, self._random)
                        gone[log.tenant] = gone.get(log.tenant, frozenset()) | destroyed(chain)
                    if ring is None:
                        await lay_aside(client, log, home)
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
            await bring_back(client, backup, log, entry)
        for stream, (messages, last) in (await ends_of(client, log)).items():
            done.streams, done.messages = done.streams + 1, done.messages + messages
            self._ends.setdefault(log.tenant, {})[stream] = last
        self._told(f"proving the log {log.name}")
        outcome = await prove(client, log, keys, home, self._clock, self._random, signs_on=done.signs_on)
        done.checkpoints, done.unsigned = done.checkpoints + outcome.checkpoints, done.unsigned + outcome.unsigned

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

    async def _newer(self, path: Path, backup: Backup, keys: Sequence[TrustedKey], home: Home) -> dict[str, tuple[bytes, ...]]:
        """The audit chains of a newer backup, by tenant. Raises EvidenceError."""
        self._told(f"reading what was erased by the time of {path}")
        with path.open("rb") as file:
            newer = open_backup(file)
            newer.require_signed(newer.keys(self._wanted.trust) if self._wanted.trust is not None else keys)
            if newer.manifest.created_at < backup.manifest.created_at:
                raise UsageError(f"{path} is older than the backup itself", mend="name a newer one, or leave --tombstones out")
            await asyncio.to_thread(newer.check)
            found: dict[str, tuple[bytes, ...]] = {}
            async with serving(home.root / "newer", home.root / "newer-keys", newer.manifest.tenants, self._random) as server:
                for log in newer.manifest.logs:
                    entry = next((one for one in log.streams if one.name == AUDIT_STREAM), None)
                    if entry is None:
                        continue
                    client = await server.connect(log.tenant)
                    try:
                        await bring_back(client, newer, log, entry)
                        found[log.tenant] = await read_chain(client, log.tenant, self._clock, self._random)
                    finally:
                        await client.close()
        for folder in ("newer", "newer-keys"):
            await asyncio.to_thread(shutil.rmtree, home.root / folder)
        return found


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
