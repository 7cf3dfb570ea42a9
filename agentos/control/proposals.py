"""What a proposed change of a file comes to: the difference to the file as it is, for the person who is asked about it.

The file is read as a tool reads it. What cannot be shown as lines (binary, too large, not there any more) is said in its place,
and so is that the change would be refused: the call names the file that it replaces by its digest, so that nothing but what was
shown is ever changed. What is shown is bounded, as both sides come from anybody; the whole is among the arguments of the call.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, DriverError
from agentos.drivers.spaces import Spaces, space_of
from agentos.files import confine, lines
from agentos.files.walk import printable
from agentos.kernel.port import Configuration
from agentos.kernel.workspace import Workspaces

PRIMITIVE: Final = "propose"

MAX_READ: Final = 64 * 1024 * 1024
"""Most bytes of a file that is read through to tell whether it is the one that is meant."""

MAX_LINES: Final = 2000
"""Most lines of a difference that are shown."""

MAX_LINE: Final = 1000
"""Most characters of one of them."""

MAX_TEXT: Final = 128 * 1024
"""Most characters of all of them together."""

_CHUNK: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Found:
    """The file that is there: its digest ("" for one that is too large to be read through) and, unless it is large, its bytes."""

    digest: str
    body: bytes | None


class Proposals:
    """Shows what is proposed."""

    def __init__(self, current: Callable[[str], Configuration], workspaces: Workspaces, spaces: Spaces) -> None:
        self._current = current
        self._workspaces = workspaces
        self._spaces = spaces

    async def shown(self, tenant: str, rows: list[dict[str, Json]]) -> list[dict[str, Json]]:
        """`rows` of approvals, with the field `diff` in those that wait with a proposed change of a file."""
        tools = self._current(tenant).tools
        told: list[dict[str, Json]] = []
        for row in rows:
            tool = tools.get(row["tool"])
            proposes = tool is not None and tool.driver.get("builtin", {}).get("primitive") == PRIMITIVE
            if tool is None or not proposes or row["state"] != "waiting":
                told.append(row)
                continue
            space = space_of(tool.driver)
            told.append(
                {**row, "diff": await asyncio.to_thread(self._difference, tenant, str(row["session"]), space, row["args"])}
            )
        return told

    def _difference(self, tenant: str, session: str, space: str | None, args: Mapping[str, Json]) -> str:
        path, content, expected = (args.get(name) for name in ("path", "content", "expected"))
        if not isinstance(path, str) or not isinstance(content, str):
            return "the call names no file"
        try:
            root = self._workspaces.path(tenant, session) if space is None else self._spaces.folder(tenant, space)
            found = _found(root, path)
        except AgentOSError as error:
            return f"the file cannot be compared: {error.message}"
        after = content.encode("utf-8", "replace")
        new = f"sha256:{hashlib.sha256(after).hexdigest()}"
        name = printable("/".join(confine.split(path)))
        return "\n".join([*_refused(found, new, expected), *_bounded(_unified(name, found, content, same=new))])


def _found(root: Path, path: str) -> _Found | None:
    """The file at `path` as it is; None if there is none. Raises DriverError."""
    names = confine.split(path)
    if not names or path.endswith("/"):
        raise DriverError("the path names a folder, not a file")
    sha, head, size = hashlib.sha256(), bytearray(), 0
    try:
        with (
            confine.open_folder(root, names[:-1]) as folder,
            os.fdopen(confine.open_file(folder, names[-1], "/".join(names)), "rb", buffering=0) as file,
        ):
            while chunk := file.read(_CHUNK):
                sha.update(chunk)
                size += len(chunk)
                if size > MAX_READ:
                    return _Found("", None)
                if size <= lines.MAX_TEXT:
                    head += chunk
    except OSError as error:
        raise DriverError(f"cannot be read: {error.strerror}") from error
    except DriverError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    return _Found(f"sha256:{sha.hexdigest()}", bytes(head) if size <= lines.MAX_TEXT else None)


def _refused(found: _Found | None, new: str, expected: Json) -> list[str]:
    """Why the change will be refused even if it is approved, by the rule of `propose`; nothing if it will not be."""
    if found is None:
        return [] if expected is None else ["the file that this replaces is not there any more, so it will be refused"]
    if found.digest in (new, expected):
        return []
    if expected is None:
        return ["there is such a file already, and the call does not say that it replaces it, so it will be refused"]
    return ["the file has changed since this was proposed, so it will be refused"]


def _unified(name: str, found: _Found | None, content: str, *, same: str) -> list[str]:
    """The lines of a unified diff, or of what is said in place of one."""
    if found is not None and found.digest == same:
        return ["nothing differs"]
    after = lines.text_of(content.encode("utf-8", "replace"))
    if found is None:
        before: str | None = ""
    else:
        before = None if found.body is None else lines.text_of(found.body)
    if before is None or after is None:
        return [f"not shown: binary, or too large; it is replaced by {len(content)} characters, which stand in the arguments"]
    old = "/dev/null" if found is None else f"a/{name}"
    return lines.unified(before, after, old, f"b/{name}").splitlines() or ["an empty file"]


def _bounded(told: list[str]) -> list[str]:
    """As many lines as fit; what is left out is said."""
    kept: list[str] = []
    room = MAX_TEXT
    for line in told[:MAX_LINES]:
        cut = line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}… and {len(line) - MAX_LINE} more characters"
        room -= len(cut) + 1
        if room < 0:
            break
        kept.append(cut)
    more = len(told) - len(kept)
    return [*kept, *([f"… and {more} more lines, which stand in the arguments"] if more else [])]
