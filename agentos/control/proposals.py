"""What a proposed change of a file comes to: the difference to the file as it is, for the person who is asked about it.

The file is read as a tool reads it. What cannot be shown as lines (binary, too large, not there any more) is said in its place:
the call names the file that it replaces by its digest, so that nothing but what was shown is ever changed.
"""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from agentos.abi.canonical import Json, digest
from agentos.abi.errors import AgentOSError, DriverError
from agentos.drivers.spaces import Spaces, space_of
from agentos.files import confine
from agentos.kernel.port import Configuration
from agentos.kernel.workspace import Workspaces

PRIMITIVE: Final = "propose"

MAX_SHOWN: Final = 1024 * 1024
"""Most bytes of a file that is compared."""

MAX_LINES: Final = 2000
"""Most lines of a difference that are shown."""


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
            before = _read(root, path)
        except AgentOSError as error:
            return f"the file cannot be compared: {error.message}"
        if before is not None and len(before) > MAX_SHOWN:
            return f"the file has more than {MAX_SHOWN} bytes: it is replaced by {len(content)} characters"
        lines = _unified(path, before, content)
        meant = expected in (None, "any") or (before is not None and expected == digest(before))
        return lines if meant else f"the file has changed since this was proposed, so it will be refused\n{lines}"


def _read(root: Path, path: str) -> bytes | None:
    """The first bytes of a file, one more than are shown; None if there is none. Raises DriverError."""
    names = confine.split(path)
    if not names:
        raise DriverError("the path names a folder, not a file")
    try:
        with (
            confine.open_folder(root, names[:-1]) as folder,
            os.fdopen(confine.open_file(folder, names[-1], "/".join(names)), "rb") as file,
        ):
            return file.read(MAX_SHOWN + 1)
    except OSError as error:
        raise DriverError(f"cannot be read: {error.strerror}") from error
    except DriverError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _unified(path: str, before: bytes | None, content: str) -> str:
    try:
        was = [] if before is None else before.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return f"the file is binary: it is replaced by {len(content)} characters of text"
    name = path if path.isprintable() else ascii(path)
    old = "/dev/null" if before is None else f"a/{name}"
    found = list(difflib.unified_diff(was, content.splitlines(), old, f"b/{name}", lineterm=""))
    more = len(found) - MAX_LINES
    return "\n".join([*found[:MAX_LINES], *([f"… and {more} more lines"] if more > 0 else [])]) or "nothing differs"
