"""`agentos mcp`: an agent's tools for clients of the Model Context Protocol (docs/mcp.md)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentos.abi.errors import UsageError
from agentos.cli.command import open_client, paint, require_identity, say, settings
from agentos.cli.verb import examples

if TYPE_CHECKING:
    import socket

    from agentos.control.client import Client

group = typer.Typer(
    no_args_is_help=True,
    help="The MCP gateway: an agent's tools for editors and assistants, every call through the gate (docs/mcp.md).",
    epilog=examples("agentos mcp serve --agent desk", "agentos mcp serve --agent desk --http 127.0.0.1:8787"),
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="mcp")


@group.callback()
def mcp() -> None:
    """Keep `serve` a verb of its own, though it is the only one."""


@group.command(
    epilog=examples(
        "agentos mcp serve --agent desk",
        "agentos --as editor mcp serve --agent desk --approve-as alice",
        "agentos mcp serve --agent desk --http 127.0.0.1:8787 --token-file ~/.agentos/mcp.token",
    )
)
def serve(
    agent: Annotated[str, typer.Option("--agent", metavar="NAME", help="the agent that clients are")],
    stdio: Annotated[bool, typer.Option("--stdio", help="speak over standard input and output (the default)")] = False,
    http: Annotated[
        str | None,
        typer.Option("--http", metavar="HOST:PORT", help="speak Streamable HTTP, at an address of this host; port 0: any"),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="the token that HTTP clients bring; made if it is not there"),
    ] = None,
    approve_as: Annotated[
        str | None,
        typer.Option(
            "--approve-as",
            metavar="NAME",
            help="ask the client (elicitation), and believe its answer: it is said as this principal of the home",
        ),
    ] = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="SESSION", help="take this session up again, for the first client")
    ] = None,
) -> int:
    """Offer the tools of an agent to MCP clients. Runs until the client leaves, or until it is stopped.

    Every call is decided by policy and recorded. What waits for a person waits in the inbox (agentos approvals list); with
    --approve-as the client is asked as well.

    WARNING: --approve-as believes the client. The gateway cannot see whether a person has answered: a client that answers by
    itself approves its own calls as NAME. Let NAME approve no more than you would let that client do alone.
    """
    if http is None and token_file is not None:
        raise UsageError("a token is for HTTP", mend="add --http 127.0.0.1:PORT")
    if http is not None and stdio:
        raise UsageError("a gateway speaks in one way", mend="either --stdio or --http")
    asyncio.run(_serve(agent, http, token_file.expanduser() if token_file else None, approve_as, session))
    return 0


async def _serve(agent: str, http: str | None, token_file: Path | None, approve_as: str | None, session: str | None) -> None:
    from agentos.gateway import Gateway, Upstream
    from agentos.gateway.http import PATH, listen, over_http, token_of
    from agentos.gateway.server import server_of
    from agentos.gateway.stdio import over_stdio

    async with AsyncExitStack() as stack:
        client = await open_client()
        stack.push_async_callback(client.close)
        approver: Client | None = None
        if approve_as is not None:
            approver = await _client_of(approve_as)
            stack.push_async_callback(approver.close)
        upstream = Upstream(client, approver)
        if approve_as is not None:
            say(f"{paint('warning', err=True, fg='yellow')}: what the client answers is said as {approve_as}, person or not")
        gateway = Gateway(upstream, agent, session=session)
        server = server_of(gateway)
        if http is None:
            await over_stdio(server)
            return
        token_path = settings.home / "mcp.token" if token_file is None else token_file
        token = token_of(token_path)
        listener: socket.socket = stack.enter_context(listen(http))
        host, port = listener.getsockname()[:2]
        say(f"serving agent {agent} at http://{f'[{host}]' if ':' in host else host}:{port}{PATH}; token: {token_path}")
        await over_http(server, gateway, listener, token)


async def _client_of(principal: str) -> Client:
    from agentos.control.client import find_identity, find_server
    from agentos.control.client import open_client as connect

    require_identity(principal)
    server = find_server(settings.home, settings.server)
    return await connect(server, find_identity(settings.home, None, principal), tenant=settings.tenant)
