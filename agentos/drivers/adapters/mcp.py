"""The MCP driver: tools of Model Context Protocol servers, started in the sandbox of the tool or reached at an address.

    driver: {mcp: {server: {command: [mcp-server-time]}, tool: convert_time}}
    driver: {mcp: {server: {url: https://mcp.example.com/mcp}, tool: search, pin: "sha256:…"}}

One server per session, declaration, sandbox and credentials, made at the first call that needs it and kept warm until nobody has
called it for the idle time of its sandbox, its credentials are over, or `release`. A process sees `PATH`, `LANG`, `TZ`, what its
sandbox and its declaration add and the credentials that its tools ask for, nothing else of the runtime's environment.

A server is a stranger. It may not ask back: sampling, elicitation and roots are refused. Before a call its own schema of the tool
is compared with the declared one, and with `pin` all that it says of the tool, so that a server which changes under our feet is
noticed. What it writes, how often and how deep, is bounded; what it says beside the protocol is repeated in errors only.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agentos.abi.canonical import Json, digest_of
from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.abi.syscall import Result, ToolEffect
from agentos.credentials.lease import CredentialUnavailable, Kept, Leases
from agentos.credentials.reference import Credential
from agentos.drivers.adapters.mcp_http import Address, reached
from agentos.drivers.adapters.mcp_link import Connect, Current, Link
from agentos.drivers.adapters.mcp_offer import Wanted
from agentos.drivers.adapters.mcp_process import started
from agentos.drivers.adapters.mcp_result import found, reading
from agentos.drivers.adapters.mcp_server import Call, Later, ServerLost, ToolRefused, WarmServer
from agentos.drivers.doors import Doors
from agentos.drivers.output import Outputs
from agentos.drivers.port import CallContext, Found, ToolSpec
from agentos.drivers.words import located
from agentos.files import confine
from agentos.sandbox.port import Launch, Sandboxes
from agentos.sandbox.profile import Access, Isolation

DEFAULT_TIMEZONE: Final = "Etc/UTC"
"""`TZ` of a server unless its sandbox or its declaration says otherwise: fixed, since servers put it into answers and schemas."""

DEFAULT_LANG: Final = "C.UTF-8"
"""`LANG` of a server unless its sandbox or its declaration says otherwise."""


@dataclass(frozen=True, slots=True)
class _Warm:
    """A server that is kept, and the leases of what it was started with; None: it has no credentials."""

    server: WarmServer
    kept: Kept | None

    def fits(self, secrets: Sequence[str], leases: Leases | None) -> bool:
        """Whether a call with these credentials may be given to it: they are those that it was started with, and hold still."""
        if not self.server.alive:
            return False
        if self.kept is None or leases is None:
            return not secrets
        return self.kept.live and all(self.kept.value(name) == leases.value(name) for name in secrets)


class McpDriver:
    """Performs `mcp: {server, tool, pin, workspaceArgs, reconcile}` tools."""

    def __init__(
        self,
        sandboxes: Sandboxes,
        outputs: Outputs | None = None,
        doors: Doors | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        later: Later | None = None,
    ) -> None:
        """Without `outputs` nothing is kept of what is cut; without `doors` no sandbox can have a network.

        `environ` is where `PATH` is taken from; the process's own environment if it is left out. `later` has something called
        after so many seconds (of idleness); the loop's own clock if it is left out.
        """
        self._sandboxes = sandboxes
        self._outputs = outputs
        self._doors = doors
        self._environ = os.environ if environ is None else environ
        self._later = later
        self._servers: dict[tuple[str, str, str], _Warm] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def call(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        """Call the tool, within its deadline. Raises DriverError or, for a tool that does more than read, OutcomeUnknown."""
        declared = tool.driver["mcp"]
        wanted = Wanted(str(declared["tool"]), dict(tool.input_schema), declared.get("pin"))
        call = Call(wanted, self._placed(tool, args, context), context.key, context.still, context.net, context.leases)
        server = self._server(tool, context)
        read = reading(tool, context, self._outputs)
        try:
            answer = await server.call(call, tool.timeout_ms / 1000)
        except TimeoutError as error:
            late = f"{tool.name} did not answer within {tool.timeout_ms} ms, and its server was stopped"
            raise _told(_lost(tool, late), server) from error
        except ServerLost as error:
            raise _told(_lost(tool, str(error)), server) from error
        except ToolRefused as error:
            return Result(read.text(f"the server refused the call: {error}"), is_error=True, acted=_acted(server))
        except DriverError as error:
            raise _told(error, server) from None
        return read.result(answer, _acted(server))

    async def reconcile(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Found | None:
        """Ask the server's own `reconcile` tool, with the arguments `{call, args}`: the key and the arguments that went out.

        It answers `{outcome: finished | failed | not-run | unknown, reason, result?}`. Raises DriverError when it does not.
        """
        name = str(tool.driver["mcp"]["reconcile"])
        asked = {"call": context.key, "args": self._placed(tool, args, context)}
        call = Call(Wanted(name), asked, f"{context.key}/reconcile", None, context.net, context.leases)
        server = self._server(tool, context)
        try:
            answer = await server.call(call, tool.timeout_ms / 1000)
        except (TimeoutError, ServerLost, ToolRefused) as error:
            raise DriverError(f"it was asked what came of the call, and did not say: {error}", where=name) from error
        return found(reading(tool, context, self._outputs).result(answer, {}), name)

    async def release(self, session: str) -> None:
        """Stop the servers of `session`; returns when their processes are gone."""
        mine = [key for key in self._servers if key[1] == session]
        await self._stop([self._servers.pop(key).server for key in mine])

    async def close(self) -> None:
        """Stop all servers; returns when their processes are gone."""
        servers = [warm.server for warm in self._servers.values()]
        self._servers.clear()
        await self._stop(servers)
        if self._leaving:
            await asyncio.wait(set(self._leaving))

    def _placed(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> dict[str, Json]:
        """`args` with the paths of the workspace as the server sees them. Raises DriverError for one that leads out."""
        declared = tool.driver["mcp"]
        names: Sequence[str] = declared.get("workspaceArgs", ())
        if any(args.get(name) is not None for name in names):
            if "url" in declared["server"]:
                raise DriverError("a server at an address sees no workspace", where=tool.name, mend="remove workspaceArgs")
            if context.profile.workspace is Access.NONE:
                raise DriverError(
                    f"the sandbox {context.profile.name} has no workspace, and this tool acts on one",
                    where=tool.name,
                    mend="declare another sandbox for it, or `workspace: read`",
                )
        return located(args, names, lambda path: self._inside(context, path))

    def _inside(self, context: CallContext, path: str) -> str:
        inside = confine.absolute(context.workspace, path).relative_to(context.workspace)
        top = self._sandboxes.workspace(context.profile, context.workspace)
        return top if inside.parts == () else f"{top}/{inside}"

    def _server(self, tool: ToolSpec, context: CallContext) -> WarmServer:
        """The server of the call: the warm one if it may still be called, else another, which begins to start."""
        declared: Mapping[str, Json] = tool.driver["mcp"]["server"]
        given = sorted({one.secret for one in tool.credentials if one.env or one.file})
        key = (context.tenant, context.session, _identity(tool, declared, context))
        warm = self._servers.get(key)
        if warm is not None and warm.fits(given, context.leases):
            return warm.server
        if given and context.leases is None:
            raise CredentialUnavailable
        made: list[WarmServer] = []

        def over() -> None:
            for server in made:
                server.retire()

        kept = context.leases.keep(over) if given and context.leases is not None else None
        try:
            server = self._made(tool, declared, context, kept)
        except DriverError:
            if kept is not None:
                kept.end()
            raise
        made.append(server)
        if kept is not None:
            server.when_gone(kept.end)
        if warm is not None:
            self._leave(warm.server.gone())
        self._servers[key] = _Warm(server, kept)
        return server

    def _made(self, tool: ToolSpec, declared: Mapping[str, Json], context: CallContext, kept: Kept | None) -> WarmServer:
        if "url" in declared:
            address = Address.of(declared, tool.credentials, context)
            return WarmServer(
                address.shown,
                lambda current: reached(address, current),
                idle_s=context.profile.idle_s,
                later=self._later,
            )
        launch = self._launch(tool.credentials, declared, context, kept)
        return WarmServer(
            str(declared["command"][0]),
            self._connect(launch, tool.credentials, context),
            idle_s=context.profile.idle_s,
            later=self._later,
            # What leaves the sandbox shows by no mark for which call it does, so there must be one alone.
            alone=launch.profile.network is not None,
        )

    def _launch(
        self, credentials: Sequence[Credential], declared: Mapping[str, Json], context: CallContext, kept: Kept | None
    ) -> Launch:
        profile, path = context.profile, _absolute_only(self._environ.get("PATH", os.defpath))
        command = [str(word) for word in declared["command"]]
        if profile.isolation is not Isolation.CONTAINER:
            command[0] = _program(command[0], path)
        defaults = {"PATH": path, "LANG": DEFAULT_LANG, "TZ": DEFAULT_TIMEZONE}
        env = {name: value for name, value in defaults.items() if name not in profile.env}
        env.update((str(name), str(value)) for name, value in declared.get("env", {}).items())
        files: dict[str, str] = {}
        if kept is not None:
            env.update((one.env, one.render(kept.value(one.secret))) for one in credentials if one.env)
            files.update((one.file, one.render(kept.value(one.secret))) for one in credentials if one.file)
        return Launch(
            command=tuple(command),
            profile=profile,
            workspace=context.workspace,
            owner=f"{context.tenant}/{context.session}",
            env=env,
            secrets=files,
            decision=context.decided[1],
        )

    def _connect(self, launch: Launch, credentials: Sequence[Credential], context: CallContext) -> Connect:
        headers = tuple(one for one in credentials if one.header)
        if headers and launch.profile.network is None:
            raise DriverError(
                f"the sandbox {launch.profile.name} has no network, and a credential of this tool goes into a header",
                mend="declare a network with `inspect: true`, or hand the credential over by `env` or `file`",
            )
        if launch.profile.network is not None and self._doors is None:
            raise DriverError("there is no way out of a sandbox here", where=launch.profile.name)

        @asynccontextmanager
        async def connect(current: Current) -> AsyncIterator[Link]:
            async with AsyncExitStack() as stack:
                door = None
                if launch.profile.network is not None and self._doors is not None:
                    # The door outlives the call that it is made for: who decides, and what is lent, belong to the call at work.
                    lent = replace(context, net=None, leases=current, still=None)
                    door = await stack.enter_async_context(self._doors.open(lent, launch.profile, headers, current.now))
                    current.cut = door.settle
                yield await stack.enter_async_context(started(self._sandboxes, replace(launch, door=door)))

        return connect

    async def _stop(self, servers: Sequence[WarmServer]) -> None:
        if servers:
            await asyncio.wait([self._leave(server.stop()) for server in servers])

    def _leave(self, going: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """See a server off in a task of its own: who gives up waiting for it does not leave its process behind."""
        task = asyncio.create_task(going)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task


def _identity(tool: ToolSpec, declared: Mapping[str, Json], context: CallContext) -> str:
    """What makes two calls of a session share a server."""
    return digest_of(
        {
            "server": dict(declared),
            "sandbox": context.profile.digest,
            "credentials": [[one.secret, one.env, one.file, one.header, one.format] for one in tool.credentials],
            "hosts": {name: list(ref.hosts) for name, ref in context.secrets.items()},
        }
    )


def _acted(server: WarmServer) -> dict[str, Json]:
    return {"sandbox": dict(server.report)} if server.report else {}


def _told(error: DriverError, server: WarmServer) -> DriverError:
    error.acted = {**_acted(server), **error.acted}
    return error


def _absolute_only(path: str) -> str:
    """`PATH` without relative entries: those would be looked up in the workspace, where the agent writes."""
    return os.pathsep.join(entry for entry in path.split(os.pathsep) if Path(entry).is_absolute())


def _program(name: str, path: str) -> str:
    """Where the program is: an absolute path, beside the running Python (console scripts of its environment), or on `path`."""
    if "/" in name:
        if Path(name).is_absolute():
            return name
        raise DriverError(f"the command {name!r} is a relative path", mend="name a program on PATH, or write its absolute path")
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    program = beside or shutil.which(name, path=path)
    if program is None:
        raise DriverError(
            f"no program {name!r} on PATH or beside {sys.executable}", where=name, mend="install it, or correct `command`"
        )
    return program


def _lost(tool: ToolSpec, message: str) -> DriverError:
    if tool.effect is ToolEffect.READ:
        return DriverError(message, where=tool.name)
    return OutcomeUnknown(message, where=tool.name, mend="look at what the tool acts on before calling it again")
