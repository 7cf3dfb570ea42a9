"""Editing: one file of a workspace or a space written as a whole, over nothing that its writer does not know, and recorded.

    result = editor.write(place, root, path, content, author, guard, may)

Whoever writes looks first, alone with the place: `may` is told what is there and what is known of it, and refuses. What somebody
else has left there meanwhile is recorded before it is replaced, so nothing is lost. In a workspace the rule is that of the
session (`as_known`): it may replace what it wrote or read last, and what it says that it expects. The same bytes may always be
written again: a call that a crash has cut off is made once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final

from agentos.abi.canonical import Json, digest
from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.abi.syscall import Result
from agentos.drivers.port import CallContext
from agentos.files import confine
from agentos.files.capture import state_at
from agentos.files.guard import Guard
from agentos.files.put import put
from agentos.files.quota import Amount
from agentos.files.versions import ANY, FILE, FOUND, Author, Look, Place, State, Versions
from agentos.files.walk import printable

MAX_WRITE: Final = 1024 * 1024
"""Most bytes that one write takes, as UTF-8."""

May = Callable[[Look, str | None, str], None]
"""Given what is there, its digest (None: nothing) and that of what is to be written: raises when it may not be."""


class FileConflict(DriverError):
    """The file is not the one that the caller meant. Nothing was changed; reading it again shows what is there."""

    code: ClassVar[str] = "file.conflict"


class Editor:
    """See the module. Without `versions` nothing is recorded, and nobody is known to have changed anything."""

    def __init__(self, versions: Versions | None = None) -> None:
        self._versions = versions

    def write(self, place: Place, root: Path, path: str, content: str, author: Author, guard: Guard, may: May) -> Result:
        """Make or replace a file. `data` is `{path, bytes, digest}`, `acted` names the change.

        Raises DriverError (nothing was changed), among it what `may` raises; OutcomeUnknown, Stopped.
        """
        names = confine.split(path)
        shown = "/".join(names)
        if not names or path.endswith("/"):
            raise DriverError("the path names a folder, not a file", where=printable(path)[:200])
        body = encoded(content, shown)
        new = digest(body)
        with self._turn(place, guard):
            look = self._look(place, root, names, guard)
            there = None
            if look.there is not None:
                if look.there.kind != FILE:
                    raise DriverError("stands there already and is not a regular file", where=printable(shown))
                there = look.there.digest
            may(look, there, new)
            if self._versions is not None and look.there != look.known and there != new:
                self._versions.capture(place, root, FOUND, guard, op="found", paths=(shown,))
            with self._room(place, look.there, body):
                if there != new:
                    put(root, path, body, guard)
                else:
                    guard.commit()
                acted = self._record(place, root, shown, author)
        return Result(f"wrote {len(body)} bytes to {shown}", {"path": shown, "bytes": len(body), "digest": new}, acted=acted)

    def saw(self, place: Place, path: str, digest: str, session: str) -> None:
        """A session has read the file with this digest ("": nothing is there). Raises DriverError."""
        if self._versions is not None:
            self._versions.saw(place, path, digest, session)

    def _look(self, place: Place, root: Path, names: tuple[str, ...], guard: Guard) -> Look:
        if self._versions is not None:
            return self._versions.look(place, root, "/".join(names), guard)
        state = state_at(root, names, None, guard)
        return Look(state, state, None)

    def _record(self, place: Place, root: Path, shown: str, author: Author) -> Mapping[str, Json]:
        if self._versions is None:
            return {}
        try:
            # Nobody can stop this any more: it is done, and has to be told of.
            change = self._versions.capture(place, root, author, Guard(), paths=(shown,))
        except DriverError as error:
            message = f"written, and could not be recorded: {error.message}"
            raise OutcomeUnknown(message, where=error.where, mend=error.mend) from error
        return {} if change is None else {"change": change.number}

    def _room(self, place: Place, there: State | None, body: bytes) -> contextlib.AbstractContextManager[None]:
        """Room for what is to be in the place of `there`. Raises QuotaExceeded."""
        if self._versions is None:
            return contextlib.nullcontext()
        return self._versions.room(place, fresh(there, body))

    @contextlib.contextmanager
    def _turn(self, place: Place, guard: Guard) -> Iterator[None]:
        if self._versions is None:
            yield
            return
        with self._versions.turn(place, guard):
            yield


def fresh(there: State | None, body: bytes) -> Amount:
    """How much more there is once `body` is in the place of `there`, the version that is kept of it not counted."""
    return Amount(max(0, len(body) - (0 if there is None else there.size)), 1 if there is None else 0)


def encoded(content: str, shown: str) -> bytes:
    """`content` as UTF-8. Raises DriverError for what is no text, or too much of it."""
    try:
        body = content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DriverError("the content is not valid Unicode", where=printable(shown)) from error
    if len(body) > MAX_WRITE:
        message = f"the content has {len(body)} bytes, and {MAX_WRITE} is the most"
        raise DriverError(message, where=printable(shown), mend="write it in several files")
    return body


def place_of(context: CallContext) -> Place:
    """The workspace that a call acts in."""
    return Place(context.tenant, "session", context.session)


def author_of(context: CallContext, note: str = "") -> Author:
    """Whose change it is that a call makes."""
    decision = context.decided if context.decided[1] else None
    return Author(f"agent/{context.agent}", context.session, context.call, decision, context.approved, note)


def as_known(session: str, expected: Json, shown: str) -> May:
    """The rule of a private workspace: nobody but the session has changed the file since it wrote or read it last."""

    def may(look: Look, there: str | None, new: str) -> None:
        if there == new:
            return
        if expected is not None:
            meant(there, expected, shown, FileConflict)
            return
        known = look.known.digest if look.known is not None else None
        ours = look.last is None or look.last.author.session == session
        if (there == known and ours) or look.seen == (there or ""):
            return
        raise FileConflict(
            "somebody else has changed the file since this session wrote or read it last",
            where=printable(shown),
            mend="read it again, and decide again",
        )

    return may


def as_meant(expected: Json, shown: str, conflict: type[FileConflict] = FileConflict) -> May:
    """The rule for what others see or decide about: exactly the file that `expected` names is replaced."""

    def may(look: Look, there: str | None, new: str) -> None:
        del look
        if there != new:
            meant(there, expected, shown, conflict)

    return may


def meant(there: str | None, expected: Json, shown: str, conflict: type[FileConflict]) -> None:
    """Whether the caller may put something else in the place of `there`. Raises `conflict`.

    What is there instead is not told: it is for those to know who read it, and carry its labels.
    """
    where = printable(shown)
    if expected in (ANY, there):
        return
    if there is None:
        raise conflict("the file that `expected` names is not there any more", where=where, mend="see what is there: list")
    if expected is None:
        raise conflict(
            "there is such a file already", where=where, mend="read it, and give its digest as `expected` to replace it"
        )
    raise conflict("somebody has written the file meanwhile", where=where, mend="read it again, and decide again")
