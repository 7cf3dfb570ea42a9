"""The builtin driver: the file primitives, run in a thread so that a slow disk never holds up the event loop, and the locks.

Who waits is answered at the deadline. Because a file primitive asks its guard before it changes anything, "was it done?" has a
sure answer in all but one moment: between that question and the end of the rename. Only then the outcome is unknown. A lock that
was taken and not told of is the session's all the same: the next try is answered with the token it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.abi.event import rfc3339
from agentos.abi.syscall import Result
from agentos.drivers.editing import Editor, as_known, as_meant, author_of, place_of
from agentos.drivers.locks import LEASE_S, Locks
from agentos.drivers.port import CallContext, Found, ToolSpec
from agentos.drivers.primitives import LOCK_PRIMITIVES, SIGNAL_PRIMITIVES, WRITE_PRIMITIVES, perform
from agentos.drivers.signals import Signals, Target, target_of
from agentos.drivers.spaces import Spaces, space_of
from agentos.files.guard import Guard, Stopped
from agentos.files.versions import Versions


class BuiltinDriver:
    """Performs `builtin: {primitive}` tools in the session's workspace, in `spaces`, and on `locks`. Keeps nothing warm."""

    def __init__(self, locks: Locks | None = None, spaces: Spaces | None = None, versions: Versions | None = None) -> None:
        """Without `versions` what is written in workspaces is not recorded."""
        self.signals: Signals | None = None
        self._locks = locks
        self._spaces = spaces
        self._editor = None if versions is None else Editor(versions)

    async def call(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        """Run the primitive within the tool's deadline. Raises DriverError or OutcomeUnknown; for a lock also LogUnavailable."""
        primitive = str(tool.driver["builtin"]["primitive"])
        if primitive in LOCK_PRIMITIVES:
            return await self._on_locks(primitive, tool, args, context)
        if primitive in SIGNAL_PRIMITIVES:
            return await self._on_signals(primitive, tool, args, context)
        guard = Guard()
        work = self._work(primitive, tool, args, context, guard)
        try:
            async with asyncio.timeout(tool.timeout_ms / 1000):
                return await asyncio.to_thread(work)
        except TimeoutError as error:
            if guard.stop():
                raise DriverError(
                    f"{tool.name} did not finish within {tool.timeout_ms} ms and changed nothing", where=tool.name
                ) from error
            raise OutcomeUnknown(f"{tool.name} did not finish within {tool.timeout_ms} ms", where=tool.name) from error
        except asyncio.CancelledError:
            guard.stop()
            raise
        except Stopped as error:
            raise DriverError(f"{tool.name} was stopped before it changed anything", where=tool.name) from error

    async def reconcile(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Found | None:
        """None: each primitive can be made again, and nobody asks."""
        del tool, args, context
        return None

    async def release(self, session: str) -> None:
        """Nothing is kept for a session: its locks are its own until it ends, which is not for a driver to know."""

    async def close(self) -> None:
        """Nothing is kept."""

    def _work(
        self, primitive: str, tool: ToolSpec, args: Mapping[str, Json], context: CallContext, guard: Guard
    ) -> Callable[[], Result]:
        space = space_of(tool.driver)
        if space is None:
            if self._editor is not None and primitive in WRITE_PRIMITIVES:
                return partial(self._write, self._editor, primitive, args, context, guard)
            if self._editor is not None and primitive == "read":
                return partial(self._read, self._editor, args, context, guard)
            return partial(perform, primitive, context.workspace, args, guard)
        if self._spaces is None:
            raise DriverError("there are no shared spaces here", where=tool.name)
        return partial(self._spaces.perform, primitive, space, args, context, guard)

    def _write(self, editor: Editor, primitive: str, args: Mapping[str, Json], context: CallContext, guard: Guard) -> Result:
        path, content, expected = args["path"], args["content"], args.get("expected")
        if not (isinstance(path, str) and isinstance(content, str)):
            raise DriverError("arguments `path` and `content` must be text")
        rule = as_meant(expected, path) if primitive == "propose" else as_known(context.session, expected, path)
        return editor.write(place_of(context), context.workspace, path, content, author_of(context), guard, rule)

    def _read(self, editor: Editor, args: Mapping[str, Json], context: CallContext, guard: Guard) -> Result:
        """Read a file, and note that the session has: it may replace then what others have written."""
        try:
            result = perform("read", context.workspace, args, guard)
        except DriverError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                editor.saw(place_of(context), str(args["path"]), "", context.session)
            raise
        editor.saw(place_of(context), result.data["path"], result.data["digest"], context.session)
        return result

    async def _on_signals(self, primitive: str, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        if self.signals is None:
            raise DriverError("there are no signals here", where=tool.name)
        if primitive == "wait":
            wait_ms = int(args["timeoutSeconds"]) * 1000 if "timeoutSeconds" in args else tool.timeout_ms
            told = await self.signals.wait(context, str(args["signal"]), wait_ms=wait_ms)
            text = f"the signal {told.name} came from {told.by}" + (f": {told.data}" if told.data else "")
            return Result(text, {"number": told.number, "signal": told.name, "data": told.data, "by": told.by})
        if primitive == "fire":
            name, target = str(args["signal"]), Target(triggers=True)
        else:
            name, target = str(args["name"]), target_of(args)
        sent = await self.signals.send(context, target, name, str(args.get("data", "")))
        whom = "the triggers that wait for it" if target.triggers else ", ".join(sent.sessions) or "nobody"
        return Result(f"told {name} to {whom}", {"signal": name, "sessions": list(sent.sessions), "left": list(sent.left)})

    async def _on_locks(self, primitive: str, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        if self._locks is None:
            raise DriverError("there are no locks here", where=tool.name)
        resource = str(args["resource"])
        if primitive == "unlock":
            await self._locks.unlock(context, resource, int(args["token"]))
            return Result(f"let go of {resource}", {"resource": resource})
        # Never longer than the tool may take: what the model asks for is a wish.
        wait_ms = min(int(args.get("waitSeconds", tool.timeout_ms // 1000)) * 1000, tool.timeout_ms)
        lease_ms = int(args.get("leaseSeconds", LEASE_S)) * 1000
        grant = await self._locks.lock(context, resource, wait_ms=wait_ms, lease_ms=lease_ms)
        until = rfc3339(grant.expires_ms)
        return Result(
            f"{resource} is locked for this session until {until}; its token is {grant.token}",
            {"resource": resource, "token": grant.token, "expires": until},
        )
