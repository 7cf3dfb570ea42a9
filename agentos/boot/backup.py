"""A backup of everything that cannot be made anew: each account's streams as the server archives them, signed, in one file.

It is taken while the runtime serves, so it is no single moment; the order makes it whole. Per account: a checkpoint of now, then
the checkpoints' own stream, then the streams that they cover, then the blobs that those name. So a checkpoint in the backup never
covers an event that is not in it, and an event never names a blob that is not. The tenants come before the fleet, because their
events name revisions and principals of the registry. What came behind the last checkpoint is covered by the manifest, which says
each stream's Merkle root up to the position that was archived.

Never in it: keys (NATS, signing, payload), identities, workspaces, read models, snapshots of sessions, and the buckets of the
locks that are held and the batches that are under way.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

from nats.aio.client import Client

from agentos import __version__
from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Conflict, NotFound, Unavailable, UsageError
from agentos.abi.event import rfc3339
from agentos.abi.ids import FLEET, Clock, Random
from agentos.audit.merkle import root_of
from agentos.audit.tiles import TilesBroken
from agentos.boot.backend import Backend
from agentos.boot.backup_file import BackupWriter
from agentos.boot.backup_manifest import LogEntry, Manifest, StreamEntry
from agentos.boot.checkpoints import Checkpoints, Notary
from agentos.boot.home import Home
from agentos.boot.tenants import Tenants
from agentos.control.backup_verbs import Progress
from agentos.eventlog.adapters.snapshot import snapshot, stream_names
from agentos.eventlog.subject import CHECKPOINT_STREAM, REGISTRY_STREAM, subjects_of

LEFT_OUT: Final = ("keys", "identities", "workspaces", "read models", "snapshots", "locks", "batches")
"""What a backup never holds, as the report says it."""

_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK})


class Backups:
    """Makes backups of the runtime whose parts these are; see `control.backup_verbs.BackupVerbs`."""

    def __init__(
        self, home: Home, backend: Backend, tenants: Tenants, checkpoints: Checkpoints, clock: Clock, random: Random
    ) -> None:
        self._home = home
        self._backend = backend
        self._tenants = tenants
        self._checkpoints = checkpoints
        self._clock = clock
        self._random = random

    def place(self, to: str | None) -> Path:
        """The file that a backup becomes: `to`, or a file named by the time in the folder `to`, or in the home's own (None).

        Raises UsageError for a path that is not absolute, for a folder that is not there, is not ours alone to write, or is
        another one of the home; Conflict where something is already, AgentOSError when the home's folder cannot be made.
        """
        moment = rfc3339(self._clock.now_ms())[:19].replace("-", "").replace(":", "")
        name = f"agentos-{moment}Z.tar"
        if to is None:
            try:
                self._home.backups.mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise AgentOSError(f"the folder cannot be made: {error.strerror}", where=str(self._home.backups)) from error
            target = self._home.backups / name
        else:
            target = Path(to)
            if not target.is_absolute() or "\0" in to:
                raise UsageError(f"{to!r} is no absolute path", mend="name a file or a folder on the runtime's host from / on")
            if target.is_dir():
                target = target / name
        try:
            folder = target.parent.resolve(strict=True)
            found = folder.stat()
        except OSError as error:
            raise UsageError(f"there is no folder {target.parent}", mend="make it first, on the runtime's host") from error
        self._require_ours(folder, found)
        if os.path.lexists(folder / target.name):
            raise Conflict(f"there already is a {target}", mend="a backup replaces nothing: choose another name")
        return folder / target.name

    def _require_ours(self, folder: Path, found: os.stat_result) -> None:
        """Whoever may have backups made is not to write wherever the runtime may: only where it alone does. Raises UsageError."""
        root = self._home.root.resolve()
        if folder.is_relative_to(root) and folder != root / self._home.backups.name:
            mend = f"leave --to out ({self._home.backups}), or choose another folder, best on another disk"
            raise UsageError(f"{folder} is inside the home, and not its folder for backups", mend=mend)
        if not stat.S_ISDIR(found.st_mode):
            raise UsageError(f"{folder} is no folder", mend="make it first, on the runtime's host")
        if found.st_uid != os.geteuid():
            mend = "make a folder for it, as that user"
            raise UsageError(f"{folder} does not belong to the user that the runtime runs as", mend=mend)
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UsageError(f"others can write into {folder}", mend=f"chmod go-w {folder}, or choose another folder")

    async def make(self, target: Path, by: str, progress: Progress) -> dict[str, Json]:
        """Write the backup to `target`, whole or not at all, mode 0600; the report.

        Raises AgentOSError where it cannot be written, Conflict when a stream vanished meanwhile or `target` came to be,
        ChainBroken when the log was changed behind the runtime's back, Unavailable.
        """
        draft = target.with_name(f".{target.name}.{self._random.token(6).hex()}.partial")
        try:
            handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(handle, "wb+") as file:
                    manifest = await self._write(file, by, progress)
                    await asyncio.to_thread(_sync, file)
                    size = file.tell()
                _put(draft, target)
            finally:
                draft.unlink(missing_ok=True)
        except FileExistsError as error:
            raise Conflict(f"there already is a {target}", mend="a backup replaces nothing: choose another name") from error
        except OSError as error:
            raise AgentOSError(f"the backup cannot be written: {error.strerror}", where=str(target)) from error
        return self._report(target, size, manifest)

    async def _write(self, file: BinaryIO, by: str, progress: Progress) -> Manifest:
        writer = BackupWriter(file, progress.more)
        # Tenants that are declared while this runs are empty yet, and come with the next backup.
        accounts = [*(tenant.name for tenant in self._tenants.all()), FLEET]
        logs = []
        for tenant in accounts:
            client = await self._backend.connect(tenant)
            try:
                logs.append(await self._account(client, tenant, writer, progress))
            finally:
                await client.close()
        ring = self._checkpoints.ring
        manifest = Manifest(
            created_at=rfc3339(max(self._clock.now_ms(), ring.since_ms)),
            version=__version__,
            by=by,
            key=ring.current.id,
            rotations=ring.rotations,
            logs=tuple(logs),
        )
        await asyncio.to_thread(writer.finish, manifest, ring)
        return manifest

    async def _account(self, client: Client, tenant: str, writer: BackupWriter, progress: Progress) -> LogEntry:
        notary = self._checkpoints.get(tenant)
        note = (await notary.now()).note
        entry = LogEntry(tenant, note, ())
        taken = [await _archive(client, entry, CHECKPOINT_STREAM, writer, progress)]
        # Listed only now: every stream that a checkpoint in the backup names is there.
        names = _order(await stream_names(client), tenant)
        taken += [await _archive(client, entry, stream, writer, progress) for stream in names]
        covered = (await notary.now()).checkpoint.streams
        rooted = [await _rooted(notary, one) if one.name in covered else one for one in taken]
        return LogEntry(tenant, note, tuple(rooted))

    def _report(self, target: Path, size: int, manifest: Manifest) -> dict[str, Json]:
        served = {f"T-{tenant}" for tenant in manifest.tenants}
        kept = {path.name for path in (self._home.nats / "jetstream").glob("T-*")} - served
        return {
            "file": str(target),
            "bytes": size,
            "created_at": manifest.created_at,
            "key": manifest.key,
            "tenants": list(manifest.tenants),
            "streams": sum(len(log.streams) for log in manifest.logs),
            "messages": sum(one.messages for log in manifest.logs for one in log.streams),
            "left_out": list(LEFT_OUT),
            "warnings": [f"the log of {name[2:]}, which is no longer declared, is not in the backup" for name in sorted(kept)],
        }


def _order(names: Sequence[str], tenant: str) -> list[str]:
    """Which streams of an account belong to the log, the blobs last. Streams of somebody else are none of it."""
    found = []
    for name in names:
        try:
            subjects_of(name)
        except ValueError:
            continue
        if name != CHECKPOINT_STREAM and (name == REGISTRY_STREAM) == (tenant == FLEET):
            found.append(name)
    return sorted(found, key=lambda name: (name.startswith("BLOB"), name))


async def _archive(client: Client, log: LogEntry, stream: str, writer: BackupWriter, progress: Progress) -> StreamEntry:
    progress.doing = log.member(stream)
    with writer.member(log.member(stream)) as writing:
        try:
            made = await snapshot(client, stream, writing)
        except NotFound as error:
            raise Conflict(
                f"stream {stream} of {log.name} was dropped while it was saved", mend="make the backup again"
            ) from error
    progress.streams += 1
    state = made.state
    return StreamEntry(
        name=stream,
        size=writing.size,
        sha256=writing.sha256,
        messages=made.messages,
        first=int(state["first_seq"]),
        last=int(state["last_seq"]),
        root=None,
        config=made.config,
        state=state,
    )


async def _rooted(notary: Notary, entry: StreamEntry) -> StreamEntry:
    """The entry of a stream that checkpoints name, with the Merkle root over what was archived."""
    prover = notary.prover
    try:
        root = await asyncio.to_thread(lambda: root_of(prover.tiles.nodes(entry.name), entry.last))
    except (TilesBroken, ValueError, sqlite3.Error) as error:
        mend = "make the backup again; should it fail again: agentos audit verify"
        raise Unavailable(f"the trees beside the log are damaged: {error}", where=entry.name, mend=mend) from error
    return replace(entry, root=root.hex())


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _put(draft: Path, target: Path) -> None:
    """Give the finished file its name, in one step and never over another file. Raises OSError."""
    try:
        target.hardlink_to(draft)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "it is there already", str(target)) from error
        draft.rename(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
