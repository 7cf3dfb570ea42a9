"""The runtime's home folder: what is where, and that only one runtime owns it.

lock                 held by the runtime that owns the home (flock), holds its pid
run/endpoint.json    {url, pid} of the running runtime
nats/                the embedded nats-server: its configuration, its log, and the event log (jetstream/)
keys/                NATS seeds, the Ed25519 key that signs evidence (mode 0600)
keys/payload/        the keys that open payloads, one file per tenant; in no backup, as to destroy a key is to erase
identities/          identity files of principals created here (mode 0600)
workspaces/          one folder per tenant and session
versions/            every change of the files of workspaces and spaces, one SQLite file per session and space
spaces/              shared spaces: one folder per tenant and space, and beside it what their files carry (<tenant>.db)
bundles/             the policy of each tenant as a bundle, for a remote policy server to fetch
backups/             where a backup goes that is not told where to
read/                SQLite read models; may be deleted at any time
snapshots/           folded long sessions, sealed, one folder per tenant; may be deleted at any time, and is in no backup
log/runtime.log      what the runtime says when detached
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agentos.abi.errors import AgentOSError, Conflict


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below one home folder."""

    root: Path

    @property
    def endpoint(self) -> Path:
        return self.root / "run" / "endpoint.json"

    @property
    def nats(self) -> Path:
        return self.root / "nats"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def payload_keys(self) -> Path:
        return self.root / "keys" / "payload"

    @property
    def identities(self) -> Path:
        return self.root / "identities"

    @property
    def workspaces(self) -> Path:
        return self.root / "workspaces"

    @property
    def spaces(self) -> Path:
        return self.root / "spaces"

    @property
    def versions(self) -> Path:
        return self.root / "versions"

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def read(self) -> Path:
        return self.root / "read"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def log(self) -> Path:
        return self.root / "log" / "runtime.log"

    def prepare(self) -> None:
        """Make the folders, readable by the owner only. Raises AgentOSError when the disk or the rights forbid it."""
        try:
            for folder in (
                self.root,
                self.endpoint.parent,
                self.nats,
                self.keys,
                self.identities,
                self.workspaces,
                self.read,
                self.snapshots,
                self.log.parent,
            ):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise AgentOSError(
                f"{error.filename}: {error.strerror}", mend="choose another folder with --home or AGENTOS_HOME"
            ) from error

    @contextmanager
    def own(self) -> Iterator[None]:
        """Own the home until the block ends. Raises Conflict when another runtime does; a crashed one holds nothing."""
        handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
                raise Conflict(
                    f"a runtime (pid {owner or 'unknown'}) already runs on {self.root}",
                    mend="use it as it is, or end it first: agentos down",
                ) from error
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)
            yield
        finally:
            os.close(handle)

    def announce(self, url: str) -> None:
        """Tell clients of this home where the runtime listens."""
        fresh = self.endpoint.with_suffix(".new")
        fresh.write_text(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
        fresh.replace(self.endpoint)

    def withdraw(self) -> None:
        """Take the announcement back."""
        self.endpoint.unlink(missing_ok=True)

    def owner(self) -> int | None:
        """Pid of the runtime that owns the home now, None if none does."""
        try:
            handle = os.open(self.root / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
                return int(text) if text.isdigit() else None
            return None
        finally:
            os.close(handle)
