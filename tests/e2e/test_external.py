"""A NATS server that somebody else runs: the same commands, the same walls, and what cannot be known is said."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path

from e2e_runtime import Cli

from agentos.eventlog.adapters.credentials import create_seed, parse_seed, write_seed
from agentos.eventlog.adapters.nats_server import NatsServer
from agentos.eventlog.adapters.server_config import Account, ServerConfig, User


class Random:
    def token(self, size: int) -> bytes:
        return secrets.token_bytes(size)


def test_a_runtime_on_an_external_server(cli: Cli, tmp_path: Path) -> None:
    """One account, one tenant: apply and run work; a second tenant is refused; the unknown sync is a warning."""
    runtime = create_seed(Random())
    creds = tmp_path / "runtime.nk"
    write_seed(creds, runtime)
    server = NatsServer(tmp_path / "theirs", ServerConfig((Account("SHARED", (User(runtime.public_key),)),)), random=Random())

    async def start() -> None:
        await server.start()

    async def admit() -> None:
        identity = json.loads((cli.home / "identities" / "operator.json").read_text())
        operator = User(parse_seed(identity["seed"]).public_key, publish=("ctl.operator.>",), subscribe=("_INBOX.operator.>",))
        await server.reload(ServerConfig((Account("SHARED", (User(runtime.public_key), operator)),)))

    asyncio.run(start())
    try:
        cli("up", "--detach", "--nats", server.url, "--creds", str(creds))
        assert "add this user to the account" in (cli.home / "log" / "runtime.log").read_text()
        assert "refuses the credentials" in cli("status", expect=1).err
        asyncio.run(admit())
        status = cli("status", "-o", "json").json
        assert "external" in status["log"]
        assert any("unknown" in warning for warning in status["warnings"])
        cli("apply", "examples/01-hello", "--yes", "--allow-widen")
        assert cli("run", "hello", "say hello", "--wait").code == 0
        tenant = tmp_path / "tenant.yaml"
        tenant.write_text("apiVersion: agentos/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {}\n")
        assert "one account" in cli("apply", str(tenant), "--yes", "--allow-widen", expect=64).err
        assert len(cli("history", "-o", "json").json) == 1
        cli("down")
    finally:
        asyncio.run(server.stop())
