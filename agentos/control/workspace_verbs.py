"""The verb with which people look at what a session left in its workspace: session.files.

The tools of the session made these files, and may go on doing so meanwhile: they are read as a tool reads them, confined to the
workspace and through no link, a part at a time.
"""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.control.session_verbs import take_session
from agentos.files import confine
from agentos.files.guard import Guard
from agentos.files.walk import Walk
from agentos.kernel.sessions import Sessions
from agentos.kernel.workspace import Workspaces

MAX_PART: Final = 1024 * 1024
"""Most bytes of a file in one answer."""

MAX_FILES: Final = 10_000
"""Most files that one answer names."""


class WorkspaceVerbs:
    """session.files."""

    def __init__(self, sessions: Sessions, workspaces: Workspaces) -> None:
        self._sessions = sessions
        self._workspaces = workspaces

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {"session.files": self.files}

    async def files(self, caller: Caller, params: dict[str, Json]) -> Json:
        """The files of a session's workspace, in order, or a part of one.

        {session} → {files: [{path, bytes}], more}; {session, path, offset?} → {path, bytes, data (base64), more}. `bytes` is the
        size of the whole file. Raises NotFound for a session that is not there, or whose workspace is not any more, DriverError
        for what is no file of it.
        """
        take = Params(params)
        session, path = take_session(take), take.text_or_none("path", longest=confine.MAX_PATH)
        offset = take.number("offset", default=0, highest=2**53)
        take.end()
        await self._sessions.state(caller.tenant, session)
        folder = self._workspaces.path(caller.tenant, session)
        if not folder.is_dir():
            raise NotFound(f"the workspace of session {session} is not there any more", mend="it goes when a session is erased")
        return await asyncio.to_thread(_names, folder) if path is None else await asyncio.to_thread(_part, folder, path, offset)


def _names(folder: Path) -> dict[str, Json]:
    walk, found = Walk(Guard()), list[Json]()
    for path, _, _, size in walk.files(folder, ""):
        if len(found) == MAX_FILES:
            return {"files": found, "more": True}
        found.append({"path": path, "bytes": size})
    return {"files": found, "more": walk.full}


def _part(folder: Path, path: str, offset: int) -> dict[str, Json]:
    names = confine.split(path)
    if not names:
        raise NotFound("that is the workspace itself, and no file", mend="list them: leave out the path")
    shown = "/".join(names)
    with (
        confine.open_folder(folder, names[:-1]) as parent,
        os.fdopen(confine.open_file(parent, names[-1], shown), "rb") as file,
    ):
        size = os.fstat(file.fileno()).st_size
        file.seek(offset)
        data = file.read(MAX_PART)
    return {"path": shown, "bytes": size, "data": base64.b64encode(data).decode(), "more": offset + len(data) < size}
