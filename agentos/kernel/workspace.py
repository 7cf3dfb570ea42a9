"""Workspaces: one folder per session, with the run's input under `input/`.

The input arrives as a tar archive from a client that is not trusted more than its principal: only regular files and folders with
relative names are taken, bounded in number and size.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, UsageError
from agentos.files.quota import NOTHING, Amount, Quotas

MAX_FILES: Final = 10_000
MAX_BYTES: Final = 256 * 1024 * 1024

_MAX_UNPACKED: Final = MAX_BYTES + MAX_FILES * 4096
"""Most bytes of the unpacked archive: its files and what stands between them. Headers are no way around the bounds."""


Take = Callable[[Amount], None]
"""Asks for room for so much. Raises QuotaExceeded."""


def unbounded(_amount: Amount) -> None:
    """There is room for everything."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of a run's input: its path in the workspace, its size, its SHA-256."""

    path: str
    bytes: int
    digest: str

    def to_dict(self) -> dict[str, Json]:
        return {"path": self.path, "bytes": self.bytes, "digest": self.digest}


class Workspaces:
    """Where the sessions' folders are: `<root>/<tenant>/<session>/`."""

    def __init__(self, root: Path, quotas: Quotas | None = None) -> None:
        """`quotas` is asked before anything is put into a workspace; without it there is room for everything."""
        self._root = root
        self._quotas = quotas

    @contextmanager
    def room(self, tenant: str, session: str) -> Iterator[Take]:
        """Room for what is put into a workspace in the block: it is asked for as it comes, and counts if the block ends well.

        What is given raises QuotaExceeded.
        """
        if self._quotas is None:
            yield unbounded
            return
        taken = NOTHING
        with self._quotas.room(tenant) as room:

            def take(amount: Amount) -> None:
                nonlocal taken
                room(amount)
                taken = taken + amount

            yield take
            self._quotas.grew(tenant, f"session/{session}", taken)

    def path(self, tenant: str, session: str) -> Path:
        """The session's workspace (absolute; exists once `create` has run)."""
        return self._root / tenant / session

    def create(self, tenant: str, session: str, archive: bytes | None) -> tuple[InputFile, ...]:
        """Make the workspace and unpack the input; return what was unpacked, sorted by path.

        Raises UsageError for an archive with links, devices, absolute or climbing names, or too much in it, QuotaExceeded where
        the tenant has no room for it, AgentOSError when the disk does not take it; then nothing is left.
        """
        folder = self.path(tenant, session)
        try:
            folder.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise AgentOSError(f"the workspace cannot be made: {error.strerror}", where=str(folder)) from error
        if archive is None:
            return ()
        try:
            with self.room(tenant, session) as take:
                return _unpack(archive, folder, take)
        except OSError as error:
            self.remove(tenant, session)
            raise AgentOSError(f"the input cannot be stored: {error.strerror or error}") from error
        except BaseException:
            self.remove(tenant, session)
            raise

    def remove(self, tenant: str, session: str) -> None:
        """Remove the workspace of a session that never began."""
        shutil.rmtree(self.path(tenant, session), ignore_errors=True)
        self._gone(tenant, session)

    def _gone(self, tenant: str, session: str) -> None:
        if self._quotas is not None:
            self._quotas.holds(tenant, f"session/{session}", NOTHING)

    def sessions(self, tenant: str) -> frozenset[str]:
        """The sessions that have a workspace."""
        try:
            return frozenset(path.name for path in (self._root / tenant).iterdir())
        except FileNotFoundError:
            return frozenset()

    def destroy(self, tenant: str, session: str) -> None:
        """Remove a workspace whole, whatever a tool has left in it; none may be there. Raises AgentOSError if something stays."""
        folder = self.path(tenant, session)
        try:
            _let_in(folder)
            shutil.rmtree(folder)
            self._gone(tenant, session)
        except FileNotFoundError:
            self._gone(tenant, session)
        except OSError as error:
            raise AgentOSError(
                f"the workspace of session {session} cannot be removed: {error.strerror}",
                where=str(folder),
                mend="see whose files are in it, remove it by hand, and erase it again",
            ) from error


def _let_in(folder: Path) -> None:
    """Give the owner the right to empty the folders below `folder`: a tool may have taken it. Follows no link."""
    for where, folders, _ in os.walk(folder, topdown=True, followlinks=False):
        for path in (Path(where), *(Path(where, name) for name in folders)):
            if not path.is_symlink():
                path.chmod(stat.S_IRWXU)


class _Bounded(io.RawIOBase):
    """A stream that ends with UsageError when it has given more than it may: tarfile reads whole headers into memory."""

    def __init__(self, source: gzip.GzipFile, most: int) -> None:
        self._source = source
        self._left = most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise _too_large()
        return data


def _unpack(archive: bytes, folder: Path, take: Take) -> tuple[InputFile, ...]:
    files: dict[str, InputFile] = {}
    total = 0
    try:
        with (
            gzip.GzipFile(fileobj=io.BytesIO(archive)) as unpacked,
            tarfile.open(fileobj=_Bounded(unpacked, _MAX_UNPACKED), mode="r|") as tar,
        ):
            for member in tar:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts or "\0" in member.name or not name.parts:
                    raise UsageError(f"the input holds a file called {member.name!r}")
                if member.isdir():
                    continue
                if not member.isreg():
                    raise UsageError(f"the input holds {member.name!r}, which is not a regular file")
                total += member.size
                if len(files) >= MAX_FILES or total > MAX_BYTES:
                    raise _too_large()
                take(Amount(member.size, 1))
                source = tar.extractfile(member)
                if source is None:
                    raise UsageError(f"the input's file {member.name!r} has no content")
                content = source.read()
                target = folder / "input" / name
                try:
                    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    target.write_bytes(content)
                except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                    raise UsageError(f"the input's file {member.name!r} stands where a folder stands, or the reverse") from error
                path = str(PurePosixPath("input") / name)
                files[path] = InputFile(path, len(content), "sha256:" + hashlib.sha256(content).hexdigest())
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UsageError(f"the input is not a tar.gz archive: {error}") from error
    return tuple(files[path] for path in sorted(files))


def _too_large() -> UsageError:
    return UsageError(f"the input is too large: at most {MAX_FILES} files and {MAX_BYTES} bytes are taken")


def pack(source: Path) -> tuple[bytes, list[str]]:
    """Pack a file or a folder as the input of a run: a tar.gz, and the paths that were left out (links, devices, hidden).

    Raises UsageError when `source` is neither a file nor a folder.
    """
    left: list[str] = []
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        if source.is_file():
            _add(tar, source, source.name)
        elif source.is_dir():
            for path in sorted(source.rglob("*")):
                name = path.relative_to(source).as_posix()
                if path.is_symlink() or not (path.is_file() or path.is_dir()):
                    left.append(name)
                elif path.is_file():
                    _add(tar, path, name)
        else:
            raise UsageError(f"--input {source}: no such file or folder")
    return buffer.getvalue(), left


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    info = tarfile.TarInfo(name)
    content = path.read_bytes()
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
