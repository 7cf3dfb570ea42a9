"""The verbs about the files of workspaces and spaces: fs.list, fs.read, fs.log, fs.diff, fs.blame, fs.write, fs.restore, fs.undo.

A place is named as people write it: the id of a session, or `space/NAME`. What a person changes is a change like any other, with
the person as its author; the tenant's audit chain is told before it is made. Files are read and changed as a tool does that:
below their folder and through no link. While a session is at work its files may change under one's eyes; a change says what it
expects to replace.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from agentos.abi.canonical import Json, digest
from agentos.abi.errors import ChangedMeanwhile, DriverError, NotFound, OutcomeUnknown, UsageError
from agentos.abi.ids import Clock, is_name
from agentos.audit.audit_chain import AuditChain, AuditRecord, Entry, files_entry
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.drivers.editing import MAX_WRITE, fresh
from agentos.drivers.spaces import SpaceLabels, Spaces, Writing
from agentos.files import confine
from agentos.files.guard import Guard
from agentos.files.put import put
from agentos.files.versions import ANY, FILE, Author, Change, Look, NotKept, Place, State, Versions
from agentos.kernel.sessions import Sessions
from agentos.kernel.workspace import Workspaces

MAX_PART: Final = 4 * 1024 * 1024
"""Most bytes of a file in one answer."""

MAX_REASON: Final = 2000

MAX_FILES: Final = 10_000
"""Most files that one answer names."""

MAX_DIFF: Final = 512 * 1024
"""Most characters of differences in one answer."""

SPACE: Final = "space/"
"""How the name of a space begins where a place is named."""

_LIST: Final = "list them: agentos fs ls"
_UNKEPT: Final = "what is there now, however large: agentos session files"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Root:
    """A place, and its folder on disk."""

    place: Place
    folder: Path


class FsVerbs:
    """The verbs; see `handlers`. `chains` gives a tenant's audit chain, `revision` the one in force for it."""

    def __init__(
        self,
        sessions: Sessions,
        workspaces: Workspaces,
        spaces: Spaces,
        versions: Versions,
        chains: Callable[[str], AuditChain],
        revision: Callable[[str], int],
        declared: Callable[[str], frozenset[str]],
        labels: SpaceLabels,
        clock: Clock,
    ) -> None:
        """`declared` gives the names of a tenant's spaces, `labels` is what their files carry."""
        self._sessions = sessions
        self._workspaces = workspaces
        self._spaces = spaces
        self._versions = versions
        self._chains = chains
        self._revision = revision
        self._declared = declared
        self._labels = labels
        self._clock = clock

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {
            "fs.list": self.list,
            "fs.read": self.read,
            "fs.log": self.log,
            "fs.diff": self.diff,
            "fs.blame": self.blame,
            "fs.write": self.write,
            "fs.restore": self.restore,
            "fs.undo": self.undo,
        }

    async def list(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{place, path?, at?} → {files: [{path, kind, mode, size?, digest?, target?}], more}: what is there, in order.

        `at`: what was there after that change. Without it what is there now is looked at first.
        """
        take = Params(params)
        place, path, at = take.text("place"), take.text_or_none("path", longest=confine.MAX_PATH), _number(take, "at")
        take.end()
        root = await self._root(caller, place)
        tree = await self._thread(partial(self._tree, root, at))
        names = confine.split(path) if path else ()
        found = [{"path": name, **state.to_dict()} for name, state in tree.items() if _below(name, names)]
        if path and names and not found:
            raise NotFound(f"{place} has no {path!r}" + (f" in change {at}" if at is not None else ""))
        return {"files": found[:MAX_FILES], "more": len(found) > MAX_FILES}

    async def read(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{place, path | digest, at?, offset?} → {path?, digest, bytes, data (base64), more}: a part of a file.

        As it is now, as it was after change `at`, or what was kept under `digest`, such as the whole of a result that was cut.
        """
        take = Params(params)
        place, at = take.text("place"), _number(take, "at")
        path, wanted = take.text_or_none("path", longest=confine.MAX_PATH), take.text_or_none("digest", longest=128)
        offset = take.number("offset", default=0, highest=2**53)
        take.end()
        if (path is None) == (wanted is None):
            raise UsageError("say which file: path, or the digest of what was kept")
        root = await self._root(caller, place)
        named, body = await self._thread(partial(self._bytes, root, path, wanted, at))
        part = body[offset : offset + MAX_PART]
        told: dict[str, Json] = {"path": path} if path is not None else {}
        return {
            **told,
            "digest": named,
            "bytes": len(body),
            "data": base64.b64encode(part).decode("ascii"),
            "more": offset + len(part) < len(body),
        }

    async def log(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{place, path?, before?, limit?} → {changes, more}: the newest first, each with its author and what it changed.

        An author's `decision` is the number and hash of the event that decided the call; `approvals` are those that it relied on.
        """
        take = Params(params)
        place, path = take.text("place"), take.text_or_none("path", longest=confine.MAX_PATH)
        before, limit = _number(take, "before"), take.number("limit", default=20, lowest=1, highest=200)
        take.end()
        root = await self._root(caller, place)
        await self._thread(partial(self._look_again, root))
        found = await asyncio.to_thread(self._versions.log, root.place, path, before, limit + 1)
        return {"changes": [change.to_dict() for change in found[:limit]], "more": len(found) > limit}

    async def diff(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{place, start, end?, path?} → {differences: [{path, before, after, text, note?}], more}: between two changes.

        `end`: the last one unless it is said, and what is there now is looked at first.
        """
        take = Params(params)
        place, path = take.text("place"), take.text_or_none("path", longest=confine.MAX_PATH)
        start, end = take.number("start", default=0, highest=2**53), _number(take, "end")
        take.end()
        root = await self._root(caller, place)
        await self._thread(partial(self._look_again, root))
        found = await asyncio.to_thread(self._versions.diff, root.place, start, end, path)
        rows: list[Json] = []
        size = 0
        for one in found:
            size += len(one.text)
            if size > MAX_DIFF and rows:
                return {"differences": rows, "more": True}
            rows.append(one.to_dict())
        return {"differences": rows, "more": False}

    async def blame(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{place, path} → {path, lines: [{text, change}], changes: {number: change}, note?}: who wrote which line."""
        take = Params(params)
        place, path = take.text("place"), take.text("path", longest=confine.MAX_PATH)
        take.end()
        root = await self._root(caller, place)
        await self._thread(partial(self._look_again, root))
        blame = await asyncio.to_thread(self._versions.blame, root.place, path)
        body: dict[str, Json] = {
            "path": blame.path,
            "lines": [{"text": line.text, "change": line.number} for line in blame.lines],
            "changes": {str(number): change.to_dict() for number, change in blame.changes.items()},
        }
        return body | ({"note": blame.note} if blame.note else {})

    async def write(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{place, path, data (base64), expected?, labels?, reason?} → {path, digest, change?}: no change if it is that.

        `expected` is the digest of the file that is replaced, or `any`; without it only a new file is written. `labels` are what
        a file of a space carries to whoever reads it.
        """
        take = Params(params)
        labels = take.names("labels", most=32)
        place, path = take.text("place"), take.text("path", longest=confine.MAX_PATH)
        data, expected = _decoded(take), take.text_or_none("expected", longest=128)
        reason = take.text_or_none("reason", longest=MAX_REASON) or ""
        take.end()
        confine.split(path)
        root = await self._root(caller, place)
        if labels and root.place.kind != "space":
            raise UsageError(
                "labels are kept of files of spaces", mend="a session carries labels, its files do not: leave them out"
            )
        await self._tell(caller, root, "write", reason)
        author = Author(caller.actor, note=reason)
        change = await self._thread(partial(self._write, root, path, data, expected, labels, author))
        return {"path": path, "digest": digest(data), **_made(change)}

    async def restore(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Make a path what it was after a change: {place, path, at, expected?, reason?, lose?} → {path, change?, notes?}.

        `lose`: also where that removes a file whose content could not be kept.
        """
        take = Params(params)
        place, path = take.text("place"), take.text("path", longest=confine.MAX_PATH)
        at, expected = take.number("at", default=0, highest=2**53), take.text_or_none("expected", longest=128)
        reason, lose = take.text_or_none("reason", longest=MAX_REASON) or "", take.flag("lose")
        take.end()
        confine.split(path)
        root = await self._root(caller, place)
        await self._tell(caller, root, "restore", reason)
        author = Author(caller.actor, note=reason)
        expecting = expected or ANY
        change = await self._thread(
            lambda guard: self._versions.restore(root.place, root.folder, path, at, author, guard, expecting, lose=lose)
        )
        return {"path": path, **_made(change)}

    async def undo(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Take changes back: {place, changes?: [number], call?, dry_run?, reason?, lose?} → {undone: [number], change?, notes?}.

        Without `changes` and `call` all since the beginning, of a session only. A call is named by its id, in a space by
        `SESSION/CALL`. What was undone can be had again by undoing that change; `notes` say what stayed as it was. `lose`
        is as in `restore`.
        """
        take = Params(params)
        place, call, dry = take.text("place"), take.text_or_none("call", longest=128), take.flag("dry_run")
        reason, lose = take.text_or_none("reason", longest=MAX_REASON) or "", take.flag("lose")
        numbers = _numbers(take)
        take.end()
        root = await self._root(caller, place)
        meant = None if call is None else _call(root.place, call)
        if root.place.kind == "space" and numbers is None and call is None:
            raise UsageError("of a space say which changes: others work in it too", mend=f"see them: agentos fs log {place}")
        await self._thread(partial(self._look_again, root))
        wanted = await self._thread(partial(self._meant, root, numbers, meant))
        if dry or not wanted:
            return {"undone": wanted}
        await self._tell(caller, root, "undo", reason)
        author, exactly = Author(caller.actor, note=reason), None if numbers is None and call is None else wanted
        change = await self._thread(lambda guard: self._versions.undo(root.place, root.folder, exactly, author, guard, lose=lose))
        return {"undone": wanted, **_made(change)}

    async def _root(self, caller: Caller, text: str) -> _Root:
        """The place that is meant. Raises NotFound."""
        if text.startswith(SPACE):
            name = text.removeprefix(SPACE)
            if not is_name(name) or name not in self._declared(caller.tenant):
                raise NotFound(f"tenant {caller.tenant} has no space {name[:64]!r}", mend="spaces are declared in the Tenant")
            place = Place(caller.tenant, "space", name)
            return _Root(place, await asyncio.to_thread(self._spaces.folder, caller.tenant, name))
        if not is_name(text):
            raise UsageError(f"{text[:64]!r} is no place", mend=f"the id of a session, or {SPACE}NAME")
        await self._sessions.state(caller.tenant, text)
        folder = self._workspaces.path(caller.tenant, text)
        if not folder.is_dir():
            raise NotFound(f"the workspace of session {text} is not there any more", mend="it goes when a session is erased")
        return _Root(Place(caller.tenant, "session", text), folder)

    async def _tell(self, caller: Caller, root: _Root, op: str, reason: str) -> None:
        """Have the audit chain know before anything is changed."""

        async def entry(_: AuditRecord) -> tuple[Entry, ...]:
            return (files_entry(str(root.place), op, reason),)

        chain = self._chains(caller.tenant)
        await chain.append(entry, actor=caller.actor, revision=self._revision(caller.tenant))

    @staticmethod
    async def _thread(work: Callable[[Guard], T]) -> T:
        """Do blocking work, stopped as soon as nobody waits for it any more."""
        guard = Guard()
        try:
            return await asyncio.to_thread(work, guard)
        except asyncio.CancelledError:
            guard.stop()
            raise

    def _look_again(self, root: _Root, guard: Guard) -> None:
        """Have known what is there now, whoever made it."""
        self._versions.begin(root.place, root.folder, guard)
        self._versions.capture(root.place, root.folder, Author("system/found"), guard, op="found")

    def _tree(self, root: _Root, at: int | None, guard: Guard) -> Mapping[str, State]:
        self._look_again(root, guard)
        return self._versions.tree(root.place, at)

    def _bytes(self, root: _Root, path: str | None, wanted: str | None, at: int | None, guard: Guard) -> tuple[str, bytes]:
        """The digest and the bytes of a file. Raises NotFound, UsageError, NotKept."""
        if wanted is not None:
            return wanted, self._versions.content(root.place, wanted)
        shown = "/".join(confine.split(path or ""))
        if not shown:
            raise UsageError("the path names a folder, not a file", mend=_LIST)
        found = self._tree(root, at, guard).get(shown)
        if found is None:
            raise NotFound(f"there is no {shown!r}" + (f" in change {at}" if at is not None else ""), mend=_LIST)
        if found.kind != FILE:
            raise UsageError(f"{shown!r} is a {found.kind}, not a file")
        try:
            return found.digest, self._versions.content(root.place, found.digest)
        except NotKept as error:
            raise NotKept(f"the content of {shown!r} was not kept", where=str(root.place), mend=_UNKEPT) from error

    def _write(
        self, root: _Root, path: str, data: bytes, expected: str | None, labels: tuple[str, ...], author: Author, guard: Guard
    ) -> Change | None:
        with self._versions.turn(root.place, guard):
            self._look_again(root, guard)
            look = self._versions.look(root.place, root.folder, path, guard)
            if look.there is not None and look.there.kind == FILE and look.there.digest == digest(data):
                return None
            _meant(look, path, expected)
            if root.place.kind == "space":
                shown, tenant, at_ms = "/".join(confine.split(path)), root.place.tenant, self._clock.now_ms()
                self._labels.record(tenant, Writing(root.place.name, shown, digest(data), labels, "", "", at_ms))
            with self._versions.room(root.place, fresh(look.there, data)):
                put(root.folder, path, data, guard)
                try:
                    # Nobody can stop this any more: it is done, and has to be told of.
                    return self._versions.capture(root.place, root.folder, author, Guard(), paths=[path])
                except DriverError as error:
                    message = f"written, and could not be recorded: {error.message}"
                    raise OutcomeUnknown(message, where=error.where, mend=error.mend) from error

    def _meant(self, root: _Root, numbers: tuple[int, ...] | None, call: tuple[str, str] | None, guard: Guard) -> tuple[int, ...]:
        """The numbers of the changes that are meant, the newest first; none if nothing is to be done. Raises NotFound."""
        if numbers is None and call is None and self._versions.tree(root.place, 0) == self._versions.tree(root.place):
            return ()
        found: list[int] = []
        before: int | None = None
        while changes := self._versions.log(root.place, None, before, 200):
            guard.check()
            before = changes[-1].number
            for change in changes:
                named = numbers is None or change.number in numbers
                made = (change.author.session, change.author.call)
                if change.op != "begin" and named and (call is None or made == call):
                    found.append(change.number)
        if missing := sorted(set(numbers or ()) - set(found)):
            raise NotFound(f"{root.place} has no change {missing[0]} that can be taken back", mend="see them: agentos fs log")
        if call is not None and not found:
            raise NotFound(f"call {call[1]} changed no file of {root.place}", mend="see what was changed: agentos fs log")
        return tuple(found)


def _meant(look: Look, path: str, expected: str | None) -> None:
    """Whether the writer may put something in the place of what is there. Raises ChangedMeanwhile, UsageError."""
    there = look.there
    if there is not None and there.kind != FILE:
        raise UsageError(f"{path!r} is a {there.kind}, not a file")
    if expected == ANY or expected == (None if there is None else there.digest):
        return
    if there is None:
        raise ChangedMeanwhile(f"there is no {path!r} any more", paths=[path], mend="see what is there: agentos fs ls")
    last = f", since change {look.last.number} by {look.last.author.actor}" if look.last is not None else ""
    raise ChangedMeanwhile(
        f"{path!r} is there already{last}" if expected is None else f"{path!r} is another one than that{last}",
        paths=[path],
        mend=f"to replace it, expect what is there: {there.digest}",
    )


def _below(path: str, names: tuple[str, ...]) -> bool:
    return tuple(path.split("/"))[: len(names)] == names


def _number(take: Params, key: str) -> int | None:
    value = take.number(key, default=-1, lowest=-1, highest=2**53)
    return None if value < 0 else value


def _numbers(take: Params) -> tuple[int, ...] | None:
    chosen = take.listed("changes")
    if chosen is None:
        return None
    if not chosen or len(chosen) > 1000 or not all(type(one) is int and one >= 0 for one in chosen):
        raise UsageError("parameter changes: expected a list of 1 to 1000 numbers of changes")
    return tuple(chosen)


def _decoded(take: Params) -> bytes:
    try:
        data = base64.b64decode(take.content("data", longest=2 * MAX_WRITE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError("parameter data: expected base64") from error
    if len(data) > MAX_WRITE:
        raise UsageError(f"the file has {len(data)} bytes, and {MAX_WRITE} is the most")
    return data


def _made(change: Change | None) -> dict[str, Json]:
    if change is None:
        return {}
    return {"change": change.number} | ({"notes": list(change.notes)} if change.notes else {})


def _call(place: Place, text: str) -> tuple[str, str]:
    """The session and the id of a call. Ids are of their session, so in a space both are needed. Raises UsageError."""
    session, slash, call = text.rpartition("/")
    if slash:
        return session, call
    if place.kind == "space":
        raise UsageError(f"{text!r} can be a call of several sessions", mend="name it SESSION/CALL, as agentos fs log does")
    return place.name, text
