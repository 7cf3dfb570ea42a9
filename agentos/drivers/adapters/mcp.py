"""The MCP driver: tools of Model Context Protocol servers, started as child processes and spoken to on stdio.

One server per session and declaration, started at its first call in the session's workspace and kept warm until `release`.
A server sees the environment `PATH`, `HOME` (the workspace), `LANG`, `TZ` and what its declaration adds, nothing else. It may not
ask back: sampling, elicitation and roots are refused. Before a call the server's own schema of the tool is compared with the
declared one, so that a server which changes under our feet is noticed.

    driver: {mcp: {server: {command: [mcp-server-time]}, tool: convert_time}}
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mcp_types import (
    AudioContent,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from agentos.abi.canonical import Json, NotCanonical, canonical, digest, digest_of, parse_strict
from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.abi.syscall import Result, ToolEffect
from agentos.drivers import confine
from agentos.drivers.adapters.mcp_server import ServerLost, ToolRefused, WarmServer
from agentos.drivers.port import CallContext, Found, Outcome, ToolSpec

MAX_RESULT: Final = 256 * 1024
"""Most bytes of text, and of structured data, that a result keeps."""

DEFAULT_TIMEZONE: Final = "Etc/UTC"
"""`TZ` of a server unless its declaration says otherwise: fixed, since servers put it into their answers and schemas."""

DEFAULT_LANG: Final = "C.UTF-8"
"""`LANG` of a server unless its declaration says otherwise."""


class McpDriver:
    """Performs `mcp: {server, tool, workspaceArgs, reconcile}` tools."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """`environ` is where `PATH` is taken from; the process's own environment if it is left out."""
        self._environ = os.environ if environ is None else environ
        self._servers: dict[tuple[str, str, str], WarmServer] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def call(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        """Call the tool, within its deadline. Raises DriverError or, for a tool that does more than read, OutcomeUnknown."""
        declared = tool.driver["mcp"]
        sent = _resolved(args, declared.get("workspaceArgs", ()), context.workspace)
        server = self._server(context, declared["server"])
        try:
            seconds = tool.timeout_ms / 1000
            answer = await server.call(
                str(declared["tool"]), dict(tool.input_schema), sent, seconds, key=context.key, still=context.still
            )
        except TimeoutError as error:
            raise _lost(tool, f"{tool.name} did not answer within {tool.timeout_ms} ms, and its server was stopped") from error
        except ServerLost as error:
            raise _lost(tool, str(error)) from error
        except ToolRefused as error:
            return Result(_bounded(f"the server refused the call: {error}"), is_error=True)
        return _result(answer)

    async def reconcile(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Found | None:
        """Ask the server's own `reconcile` tool, with the arguments `{call, args}`: the key and the arguments that went out.

        It answers `{outcome: finished | failed | not-run | unknown, reason, result?}`. Raises DriverError when it does not.
        """
        declared = tool.driver["mcp"]
        asked = {"call": context.key, "args": _resolved(args, declared.get("workspaceArgs", ()), context.workspace)}
        server, name = self._server(context, declared["server"]), str(declared["reconcile"])
        try:
            answer = await server.call(name, None, asked, tool.timeout_ms / 1000, key=f"{context.key}/reconcile")
        except (TimeoutError, ServerLost, ToolRefused) as error:
            raise DriverError(f"it was asked what came of the call, and did not say: {error}", where=name) from error
        return _found(answer, name)

    async def release(self, session: str) -> None:
        """Stop the servers of `session`; returns when their processes are gone."""
        mine = [key for key in self._servers if key[1] == session]
        await self._stop([self._servers.pop(key) for key in mine])

    async def close(self) -> None:
        """Stop all servers; returns when their processes are gone."""
        servers = list(self._servers.values())
        self._servers.clear()
        await self._stop(servers)
        if self._leaving:
            await asyncio.wait(set(self._leaving))

    def _server(self, context: CallContext, declaration: Mapping[str, Json]) -> WarmServer:
        key = (context.tenant, context.session, digest_of(dict(declaration)))
        found = self._servers.get(key)
        if found is not None and found.alive:
            return found
        path = _absolute_only(self._environ.get("PATH", os.defpath))
        command = [str(word) for word in declaration["command"]]
        program = _program(command[0], path)
        if found is not None:
            self._leave(found)
        environment = {
            "PATH": path,
            "HOME": str(context.workspace),
            "LANG": DEFAULT_LANG,
            "TZ": DEFAULT_TIMEZONE,
            **{str(name): str(value) for name, value in declaration.get("env", {}).items()},
        }
        server = WarmServer(command[0], [program, *command[1:]], environment, context.workspace)
        self._servers[key] = server
        return server

    async def _stop(self, servers: list[WarmServer]) -> None:
        if servers:
            await asyncio.wait([self._leave(server) for server in servers])

    def _leave(self, server: WarmServer) -> asyncio.Task[None]:
        """Stop `server` in a task of its own: who gives up waiting for it does not leave its process behind."""
        task = asyncio.create_task(server.stop())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task


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
    found = beside or shutil.which(name, path=path)
    if found is None:
        raise DriverError(
            f"no program {name!r} on PATH or beside {sys.executable}", where=name, mend="install it, or correct `command`"
        )
    return found


def _resolved(args: Mapping[str, Json], names: Json, workspace: Path) -> dict[str, Json]:
    """`args` with those that name files of the workspace made absolute. Raises DriverError for a path that leads out."""
    sent = dict(args)
    for name in names:
        value = sent.get(name)
        if value is None:
            continue
        if isinstance(value, str):
            sent[name] = str(confine.absolute(workspace, value))
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            sent[name] = [str(confine.absolute(workspace, item)) for item in value]
        else:
            raise DriverError(f"argument `{name}` must be a path in the workspace")
    return sent


def _lost(tool: ToolSpec, message: str) -> DriverError:
    if tool.effect is ToolEffect.READ:
        return DriverError(message, where=tool.name)
    return OutcomeUnknown(message, where=tool.name, mend="look at what the tool acts on before calling it again")


def _result(answer: CallToolResult) -> Result:
    parts = [_part(block) for block in answer.content]
    data: Json = answer.structured_content
    if data is not None:
        try:
            size = len(canonical(data))
        except NotCanonical as error:
            parts.append(f"[its structured data was dropped: {error}]")
            data = None
        else:
            if size > MAX_RESULT:
                parts.append(f"[its structured data was dropped: {size} bytes, {digest_of(data)}; {MAX_RESULT} is the most]")
                data = None
    return Result(_bounded("\n".join(parts)), data, is_error=bool(answer.is_error))


def _found(answer: CallToolResult, name: str) -> Found | None:
    told = _result(answer)
    body = told.data
    if body is None:
        try:
            body = parse_strict(told.content.encode())
        except NotCanonical:
            body = None
    if told.is_error or not isinstance(body, dict) or not all(isinstance(body.get(key), str) for key in ("outcome", "reason")):
        raise DriverError(f"it was asked what came of the call, and said: {told.content[:500]}", where=name)
    outcome, result = body["outcome"], body.get("result")
    if outcome == "unknown":
        return None
    if outcome not in set(Outcome):
        raise DriverError(f"{outcome[:64]!r} is no outcome", where=name, mend=f"one of: {', '.join(Outcome)}, unknown")
    text = result if isinstance(result, str) else "" if result is None else canonical(result).decode()
    return Found(Outcome(outcome), body["reason"], text if outcome == Outcome.FINISHED else "")


def _part(block: object) -> str:
    if isinstance(block, TextContent):
        return block.text
    if isinstance(block, (ImageContent, AudioContent)):
        return _blob(block.type, block.mime_type, block.data)
    if isinstance(block, ResourceLink):
        return f"[a link to {block.uri}]"
    if isinstance(block, EmbeddedResource):
        if isinstance(block.resource, TextResourceContents):
            return block.resource.text
        return _blob("resource", block.resource.mime_type or "application/octet-stream", block.resource.blob)
    return f"[content of an unknown kind: {type(block).__name__}]"


def _blob(kind: str, mime: str, text: str) -> str:
    try:
        body = base64.b64decode(text, validate=True)
    except binascii.Error:
        return f"[{kind}, {mime}: not valid base64]"
    return f"[{kind}, {mime}: {len(body)} bytes, {digest(body)}]"


def _bounded(text: str) -> str:
    body = text.encode("utf-8", "replace")
    if len(body) <= MAX_RESULT:
        return body.decode("utf-8")
    head = body[:MAX_RESULT].decode("utf-8", "ignore")
    return f"{head}\n[cut here: the first {MAX_RESULT} of {len(body)} bytes are shown; the whole text has {digest(body)}]"
