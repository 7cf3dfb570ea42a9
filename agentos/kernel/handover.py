"""What goes over to a child of a delegation: files and events by reference, each with its labels.

A call names paths in the parent's workspace; whoever begins the child reads them there and packs them as its input. The folder
belongs to tools that are not trusted: it is walked by descriptor and never through a link, what is no regular file is left out,
and all of it is bounded. What comes back is for `kernel.homecoming`.

A file that the parent hands over may hold whatever the parent has learnt, so it carries the parent's labels, besides those of the
input that it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError, UsageError
from agentos.abi.event import Event
from agentos.drivers.delegating import MAX_EVENTS, Ended, Task, Terms
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import session_subject
from agentos.files import confine
from agentos.kernel.port import Configuration
from agentos.kernel.provenance import holds
from agentos.kernel.receiving import Handover
from agentos.kernel.workspace import Workspaces
from agentos.projections.session import SessionState

MAX_FILES: Final = 1000
"""Files that one child is given, or gives back, at most."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""Bytes of them at most."""

MAX_CONTEXT: Final = 8 * 1024 * 1024
"""Bytes of events that are handed over at most."""

CONTEXT: Final = "context.jsonl"
"""The file of `input/` that the parent's events come to stand in."""

RESULTS: Final = "results"
"""The folder of `input/` that a reducing child finds the others' results in."""


class Ends(Protocol):
    """What became of children."""

    async def end_of(self, tenant: str, child: str, index: int) -> Ended | None:
        """How a session ended; None while it has not. Raises LogUnavailable."""


class Handovers:
    """Packs the input of children. `logs` gives a tenant's log, its payloads opened."""

    def __init__(self, workspaces: Workspaces, logs: Callable[[str], EventLog], ends: Ends) -> None:
        self._workspaces = workspaces
        self._logs = logs
        self._ends = ends

    async def pack_inputs(self, parent: SessionState, configuration: Configuration, call: str, index: int) -> Handover:
        """The input of child `index` of a call that `parent` has made, of the call's decided arguments.

        Raises DriverError for a file that is not there or is no file, UsageError for too much, LogUnavailable.
        """
        known = parent.calls[call]
        terms = Terms.of(configuration.tools[known.tool])
        task = terms.tasks(known.args)[index]
        carried = tuple(sorted(parent.labels))
        if task.reduces:
            return await self._results(parent, call, carried)
        more = {CONTEXT: await self._context(parent, known.args["events"])} if "events" in known.args else {}
        made = await asyncio.to_thread(pack, self._workspaces.path(parent.tenant, parent.id), task.inputs, more)
        if made is None:
            return Handover(labels=carried)
        archive, origins = made
        labels = {inside: sorted({*carried, *_labels_of(parent, outside)}) for inside, outside in origins.items()}
        return Handover(archive, {path: found for path, found in labels.items() if found}, carried)

    async def check(self, tenant: str, session: str, tasks: Sequence[Task]) -> None:
        """Whether all that is handed over is there. Raises DriverError."""
        root = self._workspaces.path(tenant, session)
        named = dict.fromkeys(path for task in tasks for path in task.inputs)
        await asyncio.to_thread(_look, root, tuple(named))

    async def _results(self, parent: SessionState, call: str, carried: tuple[str, ...]) -> Handover:
        """What the others came to: `results/<index>.json`, and their files below `results/<index>/`."""
        children: list[str] = parent.delegations[call]
        files: dict[str, bytes] = {}
        labels = set(carried)
        folders: list[tuple[Path, str]] = []
        """Workspaces of those who have finished, and where their files come to stand."""
        for index, child in enumerate(children[:-1]):
            ended = await self._ends.end_of(parent.tenant, child, index)
            if ended is None:
                continue
            labels |= set(ended.labels)
            told = {"index": index, "agent": ended.agent, "session": child, "outcome": ended.outcome, "result": ended.text}
            files[f"{RESULTS}/{index}.json"] = json.dumps(told, ensure_ascii=False, indent=2).encode("utf-8", "replace")
            if ended.finished:
                folders.append((self._workspaces.path(parent.tenant, child), f"{RESULTS}/{index}"))
        archive = await asyncio.to_thread(_pack_folders, folders, files)
        found = tuple(sorted(labels))
        return Handover(archive, {RESULTS: found} if found and files else {}, found)

    async def _context(self, parent: SessionState, asked: Mapping[str, Json]) -> bytes:
        """The parent's events from `first` to `last`, one line each. Raises UsageError, LogUnavailable."""
        first, last = int(asked["first"]), min(int(asked["last"]), parent.seq)
        if last < first or last - first >= MAX_EVENTS:
            raise UsageError(f"events {first} to {last} are not between 1 and {MAX_EVENTS} events of the session")
        lines, size = [], 0
        async for stored in self._logs(parent.tenant).read(session_subject(parent.id)):
            event = Event.from_bytes(stored.data)
            if event.seq > last:
                break
            if event.seq < first:
                continue
            told = {"seq": event.seq, "type": event.type, "actor": event.actor, "time_ms": event.time_ms, "data": event.data}
            line = json.dumps(told, ensure_ascii=False).encode("utf-8", "replace")
            size += len(line) + 1
            if size > MAX_CONTEXT:
                raise UsageError(f"the events have more than {MAX_CONTEXT} bytes", mend="hand over fewer of them")
            lines.append(line)
        return b"\n".join([*lines, b""])


def pack(root: Path, paths: Sequence[str], more: Mapping[str, bytes]) -> tuple[bytes, dict[str, str]] | None:
    """A tar.gz of the files at and below `paths` of a workspace and of `more`, and where each of them is from, by its name in it.

    A file keeps its path, but for a leading `input/`. None where there is nothing. Raises DriverError for a path that is not
    there, UsageError for two files of one name and for too much.
    """
    made = _Archive()
    for name, content in more.items():
        made.add(name, content, name)
    for path in paths:
        names = confine.split(path)
        if not names:
            raise DriverError("the whole workspace is not handed over", where=path, mend="name what of it is needed")
        for outside, content in _files(root, names):
            inside = outside[1:] if outside[0] == "input" and len(outside) > 1 else outside
            made.add("/".join(inside), content, "/".join(outside))
    return made.done()


def _pack_folders(folders: Sequence[tuple[Path, str]], more: Mapping[str, bytes]) -> bytes | None:
    made = _Archive()
    for name, content in more.items():
        made.add(name, content, name)
    for workspace, below in folders:
        for names, content in output_of(workspace):
            name = "/".join((below, *names))
            made.add(name, content, name)
    found = made.done()
    return None if found is None else found[0]


class _Archive:
    """A tar.gz that is being made, bounded."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w:gz", compresslevel=1)  # noqa: SIM115 - closed by `done`
        self._from: dict[str, str] = {}
        self._bytes = 0

    def add(self, name: str, content: bytes, source: str) -> None:
        """Take in a file; the same one again is passed over."""
        known = self._from.get(name)
        if known == source:
            return
        if known is not None:
            raise UsageError(f"{known} and {source} would both be input/{name}", mend="hand over one of them")
        self._bytes += len(content)
        if len(self._from) == MAX_FILES or self._bytes > MAX_BYTES:
            raise UsageError(f"at most {MAX_FILES} files and {MAX_BYTES} bytes are handed over")
        self._from[name] = source
        info = tarfile.TarInfo(name)
        info.size = len(content)
        self._tar.addfile(info, io.BytesIO(content))

    def done(self) -> tuple[bytes, dict[str, str]] | None:
        """The archive, and where each file is from; None if there is none."""
        self._tar.close()
        return (self._buffer.getvalue(), self._from) if self._from else None


def _files(root: Path, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """The regular files at and below `names`, with their whole content; links and devices below a folder are passed over.

    Raises DriverError when what is named itself is not there, or is neither a file nor a folder; UsageError for a file above all
    bounds.
    """
    with confine.open_folder(root, names[:-1]) as parent:
        try:
            kind = os.lstat(names[-1], dir_fd=parent).st_mode
        except FileNotFoundError:
            kind = 0
        if stat.S_ISDIR(kind):
            below = confine.enter(parent, names[-1], "/".join(names))
            try:
                yield from _below(below, names)
            finally:
                os.close(below)
        else:
            yield names, _content(confine.open_file(parent, names[-1], "/".join(names)))


def output_of(workspace: Path) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """The files of `output/` of a workspace, by their path in it; none where that is no folder.

    Entered by descriptor: servers of a session that has just ended may still be at work in it.
    """
    with contextlib.ExitStack() as opened:
        try:
            folder = opened.enter_context(confine.open_folder(workspace, ("output",)))
        except DriverError:
            return
        yield from _below(folder, ())


def _below(folder: int, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], bytes]]:
    if len(names) > confine.MAX_DEPTH:
        return
    with os.scandir(folder) as found:
        entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    for name, is_folder in entries:
        if name.startswith(confine.TEMPORARY) or any("\ud800" <= char <= "\udfff" for char in name):
            continue
        inside = (*names, name)
        try:
            opened = (confine.enter if is_folder else confine.open_file)(folder, name, "/".join(inside))
        except DriverError:  # a link, a device, or gone since it was listed
            continue
        if not is_folder:
            yield inside, _content(opened)
            continue
        try:
            yield from _below(opened, inside)
        finally:
            os.close(opened)


def _content(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UsageError(f"a file has more than {MAX_BYTES} bytes, which is more than is handed over")
    return content


def _look(root: Path, paths: Sequence[str]) -> None:
    for path in paths:
        names = confine.split(path)
        if not names:
            raise DriverError("the whole workspace is not handed over", where=path, mend="name what of it is needed")
        with confine.open_folder(root, names[:-1]) as parent:
            try:
                is_folder = stat.S_ISDIR(os.lstat(names[-1], dir_fd=parent).st_mode)
            except FileNotFoundError:
                is_folder = False
            os.close((confine.enter if is_folder else confine.open_file)(parent, names[-1], path))


def _labels_of(parent: SessionState, path: str) -> set[str]:
    """The labels of a file of the parent's: of an input of its own, or of what came back to it."""
    return {label for item in parent.labelled if holds(item["path"], path) for label in item.get("labels", ())}
