"""The exec driver: a program that is started for each call, in the sandbox of the tool, never through a shell.

    driver: {exec: {command: [wc, -l, --, {arg: file}], workspaceArgs: [file]}}

Its words are made by `drivers.words`, its process is run by `drivers.process`. It sees the variables of its declaration and of
its sandbox, the credentials that its tool asks for, and `AGENTOS_CALL_KEY`, which is the same whenever this call is made again;
nothing of a caller ever becomes a variable, and no credential a word. Nothing is kept between calls.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Final

from agentos.abi.canonical import Json, NotCanonical, parse_strict
from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.abi.syscall import Result, ToolEffect
from agentos.credentials.reference import Credential
from agentos.drivers.doors import Doors
from agentos.drivers.output import MAX_KEPT, Outputs, Shown, bounded, ending
from agentos.drivers.port import CallContext, Found, ToolSpec
from agentos.drivers.process import Child, Ended
from agentos.drivers.words import CALL_KEY, located, standard_input, words
from agentos.files import confine
from agentos.sandbox.port import Launch, Sandboxes
from agentos.sandbox.profile import Access

MAX_COMPLAINTS: Final = 8192
"""Most bytes of standard error that a result carries: the last ones."""

_LAST_WORDS: Final = 300
"""Most bytes of standard error that an error carries."""

_HEAD_ROOM: Final = 512
"""Bytes of the limit that are left to the line which says what went wrong."""

_IN_THREAD: Final = 256 * 1024
"""From how many bytes on an output is looked at in a thread, so that nobody else waits for it."""


class ExecDriver:
    """Performs `exec: {command, …}` tools."""

    def __init__(self, sandboxes: Sandboxes, outputs: Outputs | None = None, doors: Doors | None = None) -> None:
        """Without `outputs` nothing is kept of what is cut; without `doors` no sandbox can have a network."""
        self._sandboxes = sandboxes
        self._outputs = outputs
        self._doors = doors

    async def call(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        """Run the program to its end. An exit code that is not declared as fine is a Result with `is_error`.

        `data` is `{exit, bytes, truncated, digest?, stderr?, stopped?}`, or the JSON value of a tool whose output is json and
        that has ended well. Raises DriverError when the program has not begun, or only reads; OutcomeUnknown when it was stopped
        at the deadline.
        """
        declared = tool.driver["exec"]
        launch = self._launch(tool, args, context)
        stdin = standard_input(declared.get("stdin"), args)
        child: Child | None = None
        try:
            async with asyncio.timeout(tool.timeout_ms / 1000), AsyncExitStack() as stack:
                launch = await self._with_door(launch, tool.credentials, context, stack)
                place = await stack.enter_async_context(self._sandboxes.place(launch))
                if context.still is not None:
                    await context.still()
                child = Child(place, stdin)
                ended = await child.run()
                report = place.report()
        except TimeoutError as error:
            raise self._late(tool, child, context) from error
        result = await self._result(ended, tool, context)
        return replace(result, acted={"sandbox": report})

    async def reconcile(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Found | None:
        """None: nobody can be asked once the process is gone."""
        del tool, args, context
        return None

    async def release(self, session: str) -> None:
        """Nothing is kept for a session."""

    async def close(self) -> None:
        """Nothing is kept."""

    def _launch(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Launch:
        declared, profile = tool.driver["exec"], context.profile
        parts = confine.split(declared.get("folder", ""))
        names: Sequence[str] = declared.get("workspaceArgs", ())
        if profile.workspace is Access.NONE and (parts or any(args.get(name) is not None for name in names)):
            raise DriverError(
                f"the sandbox {profile.name} has no workspace, and this tool acts on one",
                where=tool.name,
                mend="declare another sandbox for it, or `workspace: read`",
            )
        placed = located(args, names, partial(self._inside, context)) if names else args
        if parts:
            # It has to be there, and no link: what would be started in another folder is not started.
            with confine.open_folder(context.workspace, parts):
                pass
        env = {str(name): str(value) for name, value in declared.get("env", {}).items()}
        files: dict[str, str] = {}
        for credential in tool.credentials:
            if credential.env:
                env[credential.env] = _value(credential, context)
            elif credential.file:
                files[credential.file] = _value(credential, context)
        return Launch(
            command=words(declared["command"], placed),
            profile=profile,
            workspace=context.workspace,
            owner=f"{context.tenant}/{context.session}",
            env={**env, CALL_KEY: context.key},
            folder="/".join(parts),
            secrets=files,
            decision=context.decided[1],
        )

    def _inside(self, context: CallContext, path: str) -> str:
        """The path of the workspace that the process finds `path` at. Raises DriverError for one that leads out."""
        found = confine.absolute(context.workspace, path).relative_to(context.workspace)
        top = self._sandboxes.workspace(context.profile, context.workspace)
        return top if found.parts == () else f"{top}/{found}"

    async def _with_door(
        self, launch: Launch, credentials: Sequence[Credential], context: CallContext, stack: AsyncExitStack
    ) -> Launch:
        """`launch` with the way out that its sandbox declares."""
        headers = tuple(credential for credential in credentials if credential.header)
        if launch.profile.network is None:
            if headers:
                raise DriverError(
                    f"the sandbox {launch.profile.name} has no network, and a credential of this tool goes into a header",
                    mend="declare a network with `inspect: true`, or hand the credential over by `env` or `file`",
                )
            return launch
        if self._doors is None:
            raise DriverError("there is no way out of a sandbox here", where=launch.profile.name)
        door = await stack.enter_async_context(self._doors.open(context, launch.profile, headers))
        return replace(launch, door=door)

    async def _result(self, ended: Ended, tool: ToolSpec, context: CallContext) -> Result:
        work = partial(self._told, ended, tool, context)
        return await asyncio.to_thread(work) if len(ended.output) > _IN_THREAD else work()

    def _told(self, ended: Ended, tool: ToolSpec, context: CallContext) -> Result:
        """What came of it, without credentials, within the output limit of the tool."""
        declared, limit = tool.driver["exec"], tool.output_bytes
        output = self._clean(ended.output, context)
        said = ending(self._clean(ended.complaints, context), min(MAX_COMPLAINTS, limit // 2)).strip()
        as_json = declared.get("output", "text") == "json"
        fault = _fault(ended, declared.get("okExitCodes", [0]))
        room = limit - len(said.encode()) - _HEAD_ROOM if fault or as_json else limit
        shown = bounded(output, room, self._outputs, tenant=context.tenant, session=context.session)
        if as_json and not fault:
            try:
                return Result(shown.text, _json(output, shown, room))
            except NotCanonical as error:
                fault = f"its output is not what it is declared to be: {error}"
        data = _facts(ended, shown, said)
        if not fault:
            return Result(shown.text, data)
        return Result("\n".join(part for part in (fault, said, shown.text) if part), data, is_error=True)

    def _clean(self, data: bytes, context: CallContext) -> bytes:
        return data if self._outputs is None else self._outputs.clean(context.tenant, context.session, data)

    def _late(self, tool: ToolSpec, child: Child | None, context: CallContext) -> DriverError:
        if child is None or not child.began:
            return DriverError(f"{tool.name} could not be started within {tool.timeout_ms} ms", where=tool.name)
        said = ending(self._clean(child.complaints, context), _LAST_WORDS).strip()
        message = f"{tool.name} did not end within {tool.timeout_ms} ms, and was stopped" + (f"; it said: {said}" if said else "")
        if tool.effect is ToolEffect.READ:
            return DriverError(message, where=tool.name)
        return OutcomeUnknown(message, where=tool.name, mend="look at what the tool acts on before calling it again")


def _value(credential: Credential, context: CallContext) -> str:
    if context.leases is None:
        raise DriverError("there are no credentials here")
    return credential.render(context.leases.value(credential.secret))


def _fault(ended: Ended, fine: Sequence[int]) -> str:
    """Why a child did not end well; "" if it did."""
    if ended.flooded:
        return f"it was stopped: it wrote more than {MAX_KEPT} bytes"
    if ended.code in fine:
        return ""
    number = ended.code - 128
    known = number in set(signal.Signals)
    return f"exit code {ended.code}" + (f", as after {signal.Signals(number).name}" if known else "")


def _json(output: bytes, shown: Shown, room: int) -> Json:
    """The value of a JSON output. Raises NotCanonical."""
    if shown.truncated:
        raise NotCanonical(f"it has {shown.bytes} bytes, and at most {room} can be used")
    return parse_strict(output)


def _facts(ended: Ended, shown: Shown, said: str) -> dict[str, Json]:
    facts: dict[str, Json] = {"exit": ended.code, "bytes": shown.bytes, "truncated": shown.truncated or ended.flooded}
    if shown.digest is not None:
        facts["digest"] = shown.digest
    if said:
        facts["stderr"] = said
    if ended.flooded:
        facts["stopped"] = "output"
    return facts
