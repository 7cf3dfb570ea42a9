"""Shared spaces: folders that the sessions of a tenant have in common, with labels that stay with the files.

A space is acted on by the file primitives, confined as a workspace is. What a session carries when it writes a file is recorded
for exactly these bytes at this path, durably and before the file is there; whoever reads or searches the file carries it too. The
record is kept apart from the files, so no file can speak for itself: bytes that no session is known to have written there are
`untrusted`, and carry besides what the same bytes carry anywhere else in the tenant's spaces.

Nobody writes over what he has not seen: `write` makes a file that is not there, or replaces the very one that `expected` names by
its digest. Who does not care says `any`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from agentos.abi.canonical import Json, digest
from agentos.abi.errors import DriverError
from agentos.abi.ids import Clock, is_name
from agentos.abi.syscall import Result
from agentos.drivers import primitives
from agentos.drivers.editing import Editor, FileConflict, as_meant, author_of, encoded
from agentos.drivers.port import CallContext
from agentos.files import confine
from agentos.files.guard import Guard
from agentos.files.versions import Look, Place, Versions
from agentos.files.walk import printable

UNTRUSTED: Final = "untrusted"
"""The label of bytes that no session is known to have written."""

_EXPECTED: Final[Mapping[str, Json]] = {
    "type": "string",
    "description": "To replace a file: the digest of the file that you mean, as reading it gave, or `any` for whatever is there. "
    "Without it only a file that is not there yet is written.",
    "pattern": r"^(sha256:[0-9a-f]{64}|any)$",
}
_TURN_S: Final = 0.05
"""Seconds between two looks at the guard while somebody else writes in the same space."""


class SpaceConflict(FileConflict):
    """The file of a space is not the one that the caller meant. Nothing was changed; reading it again shows what is there."""

    code = "space.conflict"


class SpaceUnlabelled(DriverError):
    """What the files of a space carry cannot be told or recorded, so none is read or written."""

    code = "space.unlabelled"


@dataclass(frozen=True, slots=True)
class Writing:
    """One write: which bytes go where, what they carry, and who wrote them when (ms since the epoch)."""

    space: str
    path: str
    digest: str
    labels: tuple[str, ...]
    session: str
    call: str
    at_ms: int


class SpaceLabels(Protocol):
    """What the files of the tenants' spaces carry. Every method blocks, and raises SpaceUnlabelled."""

    def record(self, tenant: str, writing: Writing) -> None:
        """Keep, durably, what is about to be written. The same bytes at the same path gather the labels of all who wrote them."""

    def of_bytes(self, tenant: str, space: str, path: str, digest: str) -> tuple[str, ...]:
        """The labels of `digest` at `path`, sorted; see the module for those that nobody wrote there."""

    def of_path(self, tenant: str, space: str, path: str) -> tuple[str, ...]:
        """The labels of all that was ever written at `path`, sorted; UNTRUSTED if nothing was."""

    def close(self) -> None:
        """Close the files."""


class Spaces:
    """The spaces of all tenants: `<root>/<tenant>/<space>/`."""

    def __init__(self, root: Path, labels: SpaceLabels, clock: Clock, versions: Versions | None = None) -> None:
        """Without `versions` what is written is not recorded."""
        self._editor = Editor(versions)
        self._root = root
        self._labels = labels
        self._clock = clock
        self._locks: dict[tuple[str, str], threading.Lock] = {}

    def folder(self, tenant: str, space: str) -> Path:
        """The folder of a space; it is made where it is missing. Raises DriverError."""
        if not (is_name(tenant) and is_name(space)):
            raise DriverError(f"{space!r} names no space")
        folder = self._root / tenant / space
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise DriverError(f"the space {space} cannot be opened: {error.strerror}") from error
        return folder

    def labels_of(self, tenant: str, space: str, path: str, digest: str) -> tuple[str, ...]:
        """What the bytes with `digest` at `path` carry. Raises SpaceUnlabelled."""
        return self._labels.of_bytes(tenant, space, path, digest)

    def perform(self, primitive: str, space: str, args: Mapping[str, Json], context: CallContext, guard: Guard) -> Result:
        """Run a file primitive in a space; blocks. Raises DriverError (nothing was changed), OutcomeUnknown, Stopped."""
        folder, tenant, path = self.folder(context.tenant, space), context.tenant, args.get("path", "")
        if not isinstance(path, str):
            raise DriverError("argument `path` must be text")
        match primitive:
            case "read":
                result = primitives.read(folder, path, guard)
                name, whole = result.data["path"], result.data["digest"]
                if whole not in result.content:
                    # Who is to replace the file must be able to name it, and `data` does not reach every model.
                    result = Result(f"{result.content}\n[the file has {whole}]", result.data)
                return self._carrying(result, self._labels.of_bytes(tenant, space, name, whole))
            case "search":
                found: set[str] = set()

                def seen(name: str, body: bytes) -> None:
                    found.update(self._labels.of_bytes(tenant, space, name, digest(body)))

                result = primitives.search(folder, str(args["pattern"]), path, guard, seen)
                return self._carrying(result, tuple(sorted(found)))
            case "list":
                # A name is somebody's words too; the content is not shown, so who named the file is enough.
                result = primitives.listing(folder, path, guard)
                named = {label for entry in result.data for label in self._labels.of_path(tenant, space, entry["path"])}
                return self._carrying(result, tuple(sorted(named)))
            case "write" | "propose":
                return self._write(folder, space, path, args, context, guard)
            case _:
                raise DriverError(f"{primitive} acts on no space")

    def close(self) -> None:
        """Close the record of labels."""
        self._labels.close()

    def _write(self, folder: Path, space: str, path: str, args: Mapping[str, Json], context: CallContext, guard: Guard) -> Result:
        content, shown, same = str(args["content"]), "/".join(confine.split(path)), False
        new = digest(encoded(content, shown))
        rule = as_meant(args.get("expected"), shown, SpaceConflict)

        def may(look: Look, there: str | None, fresh: str) -> None:
            nonlocal same
            # The same bytes are what was wanted, be it that this call wrote them before a crash; only their labels can grow.
            same = there == fresh
            rule(look, there, fresh)
            writing = Writing(space, shown, new, context.labels, context.session, context.call, self._clock.now_ms())
            self._labels.record(context.tenant, writing)

        place = Place(context.tenant, "space", space)
        with self._turn(context.tenant, space, guard):
            result = self._editor.write(place, folder, path, content, author_of(context), guard, may)
        words = f"{shown} holds these {result.data['bytes']} bytes already" if same else result.content
        told = f"{words} of the space {space}; its digest is {new}"
        return Result(told, {**result.data, "space": space}, acted=result.acted)

    @contextlib.contextmanager
    def _turn(self, tenant: str, space: str, guard: Guard) -> Iterator[None]:
        """One writer in a space at a time, so that nothing comes between the look and the write. Raises Stopped."""
        lock = self._locks.setdefault((tenant, space), threading.Lock())
        while not lock.acquire(timeout=_TURN_S):
            guard.check()
        try:
            yield
        finally:
            lock.release()

    @staticmethod
    def _carrying(result: Result, labels: tuple[str, ...]) -> Result:
        return Result(result.content, result.data, result.is_error, labels)


def space_of(driver: Mapping[str, Json]) -> str | None:
    """The space that a tool acts on; None for one that acts on the workspace, or on no file."""
    space = driver.get("builtin", {}).get("space")
    return space if isinstance(space, str) else None


def space_schema(primitive: str, space: str) -> dict[str, Json]:
    """The JSON Schema of the arguments of `primitive` in `space`. Raises DriverError for what is no file primitive."""
    if primitive not in primitives.FILE_PRIMITIVES:
        raise DriverError(f"{primitive} acts on no space", mend=f"one of: {', '.join(primitives.FILE_PRIMITIVES)}")
    schema: dict[str, Json] = _in_space(primitives.input_schema(primitive), f"the shared space {space}")
    if primitive == "write":
        schema["description"] = f"Write a text file of the shared space {space}, as a whole. Missing folders are made."
        schema["properties"]["expected"] = dict(_EXPECTED)
    return schema


def digest_of_file(folder: int, name: str, shown: str, check: Callable[[], None]) -> str:
    """`sha256:…` of a regular file in the folder that is open as `folder`. Raises DriverError, and what `check` raises."""
    descriptor = confine.open_file(folder, name, shown)
    sha = hashlib.sha256()
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        try:
            while chunk := file.read(64 * 1024):
                check()
                sha.update(chunk)
        except OSError as error:
            raise DriverError(f"cannot be read: {error.strerror}", where=printable(shown)) from error
    return f"sha256:{sha.hexdigest()}"


def _in_space(value: Json, name: str) -> Json:
    """A schema whose descriptions speak of the space."""
    if isinstance(value, Mapping):
        return {
            key: item.replace("the workspace", name) if key == "description" and isinstance(item, str) else _in_space(item, name)
            for key, item in value.items()
        }
    return [_in_space(item, name) for item in value] if isinstance(value, list) else value
