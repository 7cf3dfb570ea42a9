"""Clients of the MCP gateway, as they are: the official SDK's, over a pipe and over HTTP, in both eras of the protocol."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import mcp.types as mcp
from e2e_runtime import AGENTOS, ROOT, Cli
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

EXAMPLE = ROOT / "examples" / "mcp-gateway"
LEGACY, MODERN = "legacy", "auto"
Answer = Callable[[Any, mcp.ElicitRequestParams], Any]


def served(cli: Cli) -> Cli:
    """A runtime with the example and its principals."""
    cli("up", "--detach")
    cli("apply", str(EXAMPLE), "--yes", "--allow-widen")
    cli("principal", "create", "editor", "--role", "agent", "--for", "default")
    cli("principal", "create", "alice", "--role", "approver", "--for", "default")
    return cli


def words(*more: str) -> list[str]:
    """What a client starts."""
    return ["--as", "editor", "mcp", "serve", "--agent", "desk", *more]


@asynccontextmanager
async def on_pipe(cli: Cli, mode: str, *more: str, answer: Answer | None = None, **rest: Any) -> AsyncIterator[Client]:
    """A client that starts the gateway itself; `answer` makes it one that can be asked."""
    server = StdioServerParameters(command=str(AGENTOS), args=words(*more), env=cli.environment())
    async with Client(server, mode=mode, elicitation_callback=answer, **rest) as client:
        yield client


@dataclass(frozen=True)
class Door:
    """A gateway over HTTP."""

    url: str
    token: str

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@contextmanager
def over_http(cli: Cli, token_file: Path, *more: str) -> Iterator[Door]:
    """A gateway at a free port; it ends in order when it is told to."""
    command = [AGENTOS, *words("--http", "127.0.0.1:0", "--token-file", str(token_file), *more)]
    process = subprocess.Popen(command, env=cli.environment(), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    try:
        told = ""
        while (found := re.search(r"http://\S+/mcp", told)) is None:
            line = process.stderr.readline()
            assert line, told
            told += line
        yield Door(found[0], token_file.read_text().strip())
    finally:
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(30) == 0, rest
        process.stderr.close()


@asynccontextmanager
async def at(
    door: Door, mode: str, answer: Answer | None = None, headers: Mapping[str, str] | None = None, **rest: Any
) -> AsyncIterator[Client]:
    """A client that connects to a gateway over HTTP."""
    async with httpx2.AsyncClient(headers={**door.bearer(), **(headers or {})}, timeout=30) as http:
        transport = streamable_http_client(door.url, http_client=http)
        async with Client(transport, mode=mode, elicitation_callback=answer, **rest) as client:
            yield client


def text(result: mcp.CallToolResult) -> str:
    """What a result says."""
    (block,) = result.content
    assert isinstance(block, mcp.TextContent)
    return block.text


def saying(action: str, asked: list[str], **content: Any) -> Answer:
    """A person at the client who answers each question so; `asked` gets the questions."""

    async def answer(_: Any, params: mcp.ElicitRequestParams) -> mcp.ElicitResult:
        asked.append(params.message)
        return mcp.ElicitResult(action=action, content=content or None)  # type: ignore[arg-type]

    return answer


def events(cli: Cli, session: str, kind: str) -> Sequence[dict[str, Any]]:
    """The events of a session of that kind."""
    told = cli("logs", session, "-o", "json").json
    return [event for event in told if event["type"] == f"agentos.{kind}"]
