"""What comes back of a delegation: the `output/` of a child, below `delegated/<call>/<index>/` of the parent's workspace.

A file is there only under a decision that holds, and its labels come into the parent's log with the call's result, so:

- The files come over when the parent has its place again and the call was decided once more, right before its result is
  recorded: what was revoked while the children were at work brings nothing over.
- Of a call that has no result after all (it could not be recorded; a crash came in between, and it is denied now) they are put
  where no tool of ours reads them, before the parent does anything else.

Both workspaces belong to tools that are not trusted and may be at work: all goes by descriptor, never through a link, what is no
regular file is left out, and it is bounded as it is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agentos.abi.canonical import digest
from agentos.abi.errors import AgentOSError, DriverError, NotFound, UsageError
from agentos.abi.syscall import PSEUDO
from agentos.drivers.delegating import FOLDER, Ended, delegates, is_cut, place
from agentos.files import confine, ownership
from agentos.files.guard import Guard
from agentos.files.quota import Amount
from agentos.kernel.handover import MAX_BYTES, MAX_FILES, output_of
from agentos.kernel.port import ConfigurationSource
from agentos.kernel.workspace import InputFile, Take, Workspaces

log = logging.getLogger(__name__)


class Homecoming:
    """Takes back what children leave, and puts it aside."""

    def __init__(self, workspaces: Workspaces, source: ConfigurationSource) -> None:
        self._workspaces = workspaces
        self._source = source

    async def bring(self, tenant: str, parent: str, call: str, ended: Sequence[Ended], children: int) -> list[Ended]:
        """The ends of children, of so many `children` of the call, each with the files that have come over.

        Of one that has not finished nothing is taken. What could not be taken over is said in the end's text.
        """
        return [await self._with_files(tenant, parent, call, one, children) for one in ended]

    async def take_back(self, tenant: str, child: str, parent: str, call: str, index: int, whole: str | None) -> list[InputFile]:
        """Copy a child's `output/` into its parent's workspace, and `whole`, its result, if it is too long to be told.

        What an earlier try has left there is replaced. Raises UsageError for more than is taken back, AgentOSError.
        """
        source, target = self._workspaces.path(tenant, child), self._workspaces.path(tenant, parent)
        guard = Guard()

        def take_back() -> list[InputFile]:
            with self._workspaces.room(tenant, parent) as take:
                return _take_back(source, target, place(call, index), whole, guard, take)

        try:
            return await asyncio.to_thread(take_back)
        except asyncio.CancelledError:
            guard.stop()
            raise

    def put_aside(self, tenant: str, parent: str, call: str, tool: str) -> None:
        """What came back by a call of `parent` that has no result is where no tool of ours reads it, once this returns.

        It is renamed, in one step, and removed in the background. Nothing is done for a tool that does not delegate.
        """
        try:
            spec = self._source.current(tenant).tools.get(tool)
        except NotFound:
            spec = None
        # A tool that is not declared any more may have been one that delegates.
        if tool in PSEUDO or not (spec is None or delegates(spec)):
            return
        root = self._workspaces.path(tenant, parent)
        aside = f"{confine.TEMPORARY}aside-{call}"
        try:
            with confine.open_folder(root, ()) as top, confine.open_folder(root, (FOLDER,)) as above:
                os.rename(call, aside, src_dir_fd=above, dst_dir_fd=top)
        except (OSError, DriverError) as error:
            if not isinstance(error, FileNotFoundError) and not isinstance(error.__cause__, FileNotFoundError):
                log.warning("what came back by call %s of session %s cannot be put aside: %s", call, parent, error)
            return
        asyncio.get_running_loop().run_in_executor(None, _remove_aside, root, aside)

    async def _with_files(self, tenant: str, parent: str, call: str, one: Ended, children: int) -> Ended:
        if not one.finished:
            return one
        whole = one.text if is_cut(one.text, children) else None
        try:
            files = await self.take_back(tenant, one.session, parent, call, one.index, whole)
        except AgentOSError as error:
            return replace(one, text=f"{one.text}\n[its files were not taken over: {error.message}]")
        return replace(one, files=tuple(file.to_dict() for file in files))


def _take_back(source: Path, root: Path, below: str, whole: str | None, guard: Guard, take: Take) -> list[InputFile]:
    """Make the folder `below` of the workspace `root` a copy of the `output/` of another one. Raises AgentOSError.

    It is made at the top, and put in its place whole: what a crash leaves of it is in the same workspace, and erased with the
    session.
    """
    *above, last = confine.split(below)
    fresh = f"{confine.TEMPORARY}{'-'.join((*above, last))}"
    try:
        with confine.open_folder(root, ()) as top, confine.open_folder(root, above, make=True) as parent:
            _remove(top, fresh)
            for name in (last, f"{last}.txt"):
                _remove(parent, name)
            try:
                files = _copy(source, top, fresh, below, guard, take)
            except BaseException:
                _remove(top, fresh)
                raise
            if files:
                os.rename(fresh, last, src_dir_fd=top, dst_dir_fd=parent)
            if whole is not None:
                text = whole.encode("utf-8", "replace")
                take(Amount(len(text), 1))
                _write(parent, f"{last}.txt", text)
    except OSError as error:
        raise AgentOSError(f"what a child left cannot be taken over: {error.strerror}") from error
    return files


def _copy(source: Path, top: int, fresh: str, below: str, guard: Guard, take: Take) -> list[InputFile]:
    """Copy the `output/` of `source` into a folder `fresh` of the folder that is open as `top`; none is made for no file."""
    files: list[InputFile] = []
    size = 0
    for names, content in output_of(source):
        guard.check()
        size += len(content)
        if len(files) == MAX_FILES or size > MAX_BYTES:
            raise UsageError(f"at most {MAX_FILES} files and {MAX_BYTES} bytes are taken back")
        take(Amount(len(content), 1))
        with contextlib.ExitStack() as opened:
            current = top
            for name in (fresh, *names[:-1]):
                current = confine.enter(current, name, name, make=True)
                opened.callback(os.close, current)
            _write(current, names[-1], content)
        files.append(InputFile("/".join((below, *names)), len(content), digest(content)))
    return files


def _write(folder: int, name: str, content: bytes) -> None:
    """Make a file that is not there. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o644, dir_fd=folder), "wb") as file:
        ownership.give(file.fileno(), folder)
        file.write(content)


def _remove_aside(root: Path, name: str) -> None:
    try:
        with confine.open_folder(root, ()) as top:
            _remove(top, name)
    except AgentOSError as error:
        log.warning("what was put aside in %s stays there: %s", root.name, error)


def _remove(folder: int, name: str) -> None:
    """Remove what an earlier try has left at `name`, or whatever a tool has put there."""
    try:
        kind = os.lstat(name, dir_fd=folder).st_mode
    except FileNotFoundError:
        return
    try:
        if stat.S_ISDIR(kind):
            shutil.rmtree(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)
    except OSError as error:
        raise AgentOSError(f"what stands at {name} cannot be replaced: {error.strerror}") from error
