"""Versions: every change of the files of a place, whose it was, and what was there before; the values and the port.

    change = versions.capture(place, root, Author("agent/triage", session, call, decided), guard)
    versions.log(place)[0].entries                    # (Entry("out/report.md", before=None, after=State("file", 0o644, …)),)
    versions.undo(place, root, None, author, guard)   # all since the beginning; itself a change, which can be undone

A place is the workspace of a session or a shared space. Its changes are counted from 0, which is what was there at first. A
change is told by what is different, never by what somebody said he did: the tree is walked, and compared with what was known of
it. So what processes do by themselves is found too, as `system/found`. What of a tree cannot be told (FIFOs, sockets, devices,
names that are not UTF-8) is left out, and the change says how much that is. Set-user-id bits are neither recorded nor restored.

All methods block: they belong in a thread, and stop by their guard.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, DriverError
from agentos.files.guard import Guard
from agentos.files.quota import Amount

ANY: Final = "any"
"""What `expected` says for whatever is there."""

MAX_KEPT: Final = 64 * 1024 * 1024
"""Most bytes of a file whose content is kept; of a larger one digest and size are."""

QUOTA: Final = 1024 * 1024 * 1024
"""Most bytes that the contents of one place take up, compressed. Beyond it nothing old is dropped: what is new is not kept."""

MAX_SHOWN: Final = 1000
"""Most entries of one change that a log shows."""

FILE: Final = "file"
FOLDER: Final = "folder"
LINK: Final = "link"

Op = Literal["begin", "write", "remove", "restore", "undo", "found"]
"""What was done: `begin` is what was there at first, `found` is what nobody is known to have done."""

Mask = Callable[[bytes], bytes]
"""Takes values that nobody may see out of a content."""


class NotKept(AgentOSError):
    """A content that is asked for was never kept: the file was too large, or the place was full."""

    code = "files.not-kept"


class VersionsUnavailable(DriverError):
    """What was kept of a place cannot be read or added to, so nothing is changed in it."""

    code = "files.unavailable"


@dataclass(frozen=True, slots=True)
class Place:
    """Where files are: `session` (its workspace) or `space`, by name."""

    tenant: str
    kind: Literal["session", "space"]
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Author:
    """Who made a change. `actor` is `agent/<name>`, `principal/<name>` or `system/<what>`.

    `session` and `call` are of the syscall that it was made by, `decision` names the event of that session which decided it
    (number and hash), `approvals` the people whose approvals it was made under. `note` is for people, such as who else was at
    work.
    """

    actor: str
    session: str = ""
    call: str = ""
    decision: tuple[int, str] | None = None
    approvals: tuple[str, ...] = ()
    note: str = ""

    def to_dict(self) -> dict[str, Json]:
        """JSON; what is empty is left out."""
        body: dict[str, Json] = {"actor": self.actor}
        body |= {name: value for name, value in (("session", self.session), ("call", self.call), ("note", self.note)) if value}
        if self.decision is not None:
            body["decision"] = {"seq": self.decision[0], "hash": self.decision[1]}
        if self.approvals:
            body["approvals"] = list(self.approvals)
        return body


FOUND: Final = Author("system/found")
"""The author of what nobody is known to have done."""


@dataclass(frozen=True, slots=True)
class State:
    """What is at a path. `mode` is the permissions; `size` and `digest` (`sha256:…`) are of a file, `target` of a link.

    `digest` is empty for a file that is too large to be read through (`scan.MAX_READ`).
    """

    kind: str
    mode: int
    size: int = 0
    digest: str = ""
    target: str = ""

    def to_dict(self) -> dict[str, Json]:
        """JSON: `{kind, mode (octal text), size?, digest?, target?}`."""
        body: dict[str, Json] = {"kind": self.kind, "mode": f"{self.mode:04o}"}
        if self.kind == FILE:
            body |= {"size": self.size, "digest": self.digest}
        if self.kind == LINK:
            body["target"] = self.target
        return body


@dataclass(frozen=True, slots=True)
class Entry:
    """One path that a change changed: what was there and what is there now; None: nothing. `kept`: the new content is."""

    path: str
    before: State | None
    after: State | None
    kept: bool = True

    def to_dict(self) -> dict[str, Json]:
        """JSON: `{path, before, after, kept}`."""
        before = None if self.before is None else self.before.to_dict()
        after = None if self.after is None else self.after.to_dict()
        return {"path": self.path, "before": before, "after": after, "kept": self.kept}


@dataclass(frozen=True, slots=True)
class Change:
    """The `number`-th change of a place, with what it changed, sorted by path. `undoes`: the numbers that it took back.

    `notes` say what is missing: what was left out, or not kept. `total` counts all entries, where a log shows the first of them.
    """

    number: int
    at_ms: int
    author: Author
    op: Op
    entries: tuple[Entry, ...]
    undoes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    total: int = 0

    def to_dict(self) -> dict[str, Json]:
        """JSON: `{number, at_ms, op, author, entries, total, undoes?, notes?}`."""
        body: dict[str, Json] = {"number": self.number, "at_ms": self.at_ms, "op": self.op, "author": self.author.to_dict()}
        body |= {"entries": [entry.to_dict() for entry in self.entries], "total": self.total}
        if self.undoes:
            body["undoes"] = list(self.undoes)
        if self.notes:
            body["notes"] = list(self.notes)
        return body


@dataclass(frozen=True, slots=True)
class Difference:
    """How one path differs between two moments. `text` is a unified diff; empty where there is none to show, `note` says why."""

    path: str
    before: State | None
    after: State | None
    text: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Json]:
        """JSON: `{path, before, after, text, note?}`."""
        entry = Entry(self.path, self.before, self.after).to_dict()
        del entry["kept"]
        return {**entry, "text": self.text} | ({"note": self.note} if self.note else {})


@dataclass(frozen=True, slots=True)
class BlamedLine:
    """A line of a file (without its end), and the change that it came with."""

    text: str
    number: int


@dataclass(frozen=True, slots=True)
class Blame:
    """A text file line by line, and the changes that its lines came with, by number (their entries are left out)."""

    path: str
    lines: tuple[BlamedLine, ...]
    changes: Mapping[int, Change]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What is at a path now, and what is known of it."""

    there: State | None
    """What is there, as it is."""
    known: State | None
    """What was there when it was last looked at."""
    last: Change | None
    """The last change of the path, without entries; None if it never changed since the beginning, or never was there."""
    seen: str | None = None
    """The digest that was last noted as read by the session (`Versions.saw`); "" for nothing there; None if none was noted."""


class Versions(Protocol):
    """Keeps the changes of places. `root` is the folder of the place; every method blocks.

    A place is begun by whoever first touches it. All raise VersionsUnavailable, those with a guard Stopped, as long as nothing
    was changed; what walks the tree raises DriverError when the root is no folder.
    """

    def turn(self, place: Place, guard: Guard) -> AbstractContextManager[None]:
        """Alone with the place, for whoever looks before he writes; other methods may be called within it."""

    def room(self, place: Place, more: Amount) -> AbstractContextManager[None]:
        """Room for so much more in the place, until it was written and recorded. Raises QuotaExceeded."""

    def require(self, place: Place) -> None:
        """Whether the place may be written to by whom nobody can stop while he does. Raises QuotaExceeded."""

    def begin(self, place: Place, root: Path, guard: Guard) -> Change:
        """Record what is there as change 0; a place that is begun already answers with that."""

    def capture(
        self,
        place: Place,
        root: Path,
        author: Author,
        guard: Guard,
        *,
        op: Op = "write",
        paths: Collection[str] | None = None,
        mask: Mask | None = None,
    ) -> Change | None:
        """Record what is different from what is known, as the author's; None if nothing is.

        With `paths` only these are looked at: each with the folders that it is in, and all that is below it. `mask` is applied to
        the files that changed: what it takes out is taken out of the file itself before that is kept. A `write` that only removed
        is recorded as `remove`.
        """

    def look(self, place: Place, root: Path, path: str, guard: Guard) -> Look:
        """What is at `path` now, beside what is known of it. Raises DriverError for a path that leads out."""

    def saw(self, place: Place, path: str, digest: str, session: str) -> None:
        """Note that `session` has read these bytes at `path` ("": nothing is there), if others have changed it since it did."""

    def log(self, place: Place, path: str | None = None, before: int | None = None, limit: int = 50) -> tuple[Change, ...]:
        """Changes, the newest first: those of `path` and of what is below it (then with these entries alone), with numbers below
        `before`. Of each the first MAX_SHOWN entries. Empty for a place that is not begun.
        """

    def change(self, place: Place, number: int) -> Change:
        """One change whole. Raises NotFound."""

    def tree(self, place: Place, at: int | None = None) -> Mapping[str, State]:
        """What was there after change `at` (None: the last one), by path, sorted. Raises NotFound for no such number."""

    def content(self, place: Place, digest: str) -> bytes:
        """A content that was kept. Raises NotKept."""

    def keep(self, tenant: str, session: str, data: bytes) -> str:
        """Keep bytes beside the files of a session, such as the whole of a result that was cut; their digest. Raises NotKept."""

    def diff(self, place: Place, start: int, end: int | None = None, path: str | None = None) -> tuple[Difference, ...]:
        """What differs between the trees after `start` and after `end` (None: the last), at and below `path`. Raises NotFound."""

    def blame(self, place: Place, path: str) -> Blame:
        """Which change each line of a text file came with, as the file was last known. Raises NotFound, NotKept."""

    def restore(
        self,
        place: Place,
        root: Path,
        path: str,
        at: int,
        author: Author,
        guard: Guard,
        expected: str = ANY,
        *,
        lose: bool = False,
    ) -> Change | None:
        """Make `path`, and all below it, what it was after change `at`; None if it is that already.

        What is there now is recorded first, so it can be had again: a file whose content cannot be kept is neither removed nor
        replaced, unless `lose` is said. `expected` is the digest of the file that is there, "" for nothing. Raises
        ChangedMeanwhile, NotKept, NotFound; nothing was changed then.
        """

    def undo(
        self, place: Place, root: Path, numbers: Collection[int] | None, author: Author, guard: Guard, *, lose: bool = False
    ) -> Change | None:
        """Take changes back (None: all since the beginning), byte for byte; None if there is nothing to take back.

        `lose` is as in `restore`. A change whose paths others have changed later cannot be taken back without theirs: raises
        ChangedMeanwhile. Raises NotKept, NotFound. Nothing was changed then.
        """

    def destroy(self, place: Place) -> None:
        """Destroy all that was kept of a place; none may be. Raises VersionsUnavailable if something stays."""

    def release(self, place: Place) -> None:
        """Nobody works in the place for now: let go of what is held open."""

    def close(self) -> None:
        """Close all files."""
