"""Real servers for integration tests: one nats-server per worker process, a fresh account per test.

log_server      a running NatsServer, for the whole session
open_account    async context manager: `async with open_account() as door` - an account of one's own on it (a few ms)
jetstream_log   a JetStreamLog in such an account, without a stream yet
own_server      makes a NatsServer of one's own in a temporary home (to kill, restart, reload); stopped afterwards
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import NKey, create_seed
from agentos.eventlog.adapters.jetstream import JetStreamLog
from agentos.eventlog.adapters.nats_server import NatsServer
from agentos.eventlog.adapters.server_config import Account, ServerConfig, User


class SystemRandom:
    """The operating system's randomness, as a port."""

    def token(self, size: int) -> bytes:
        return os.urandom(size)


@dataclass(frozen=True)
class Door:
    """An account on a running server: its name, the key of its only user, and a client that is already in."""

    account: str
    key: NKey
    url: str
    client: Client


OpenAccount = Callable[[], AbstractAsyncContextManager[Door]]
_accounts = itertools.count(1)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` on a loop of its own, leaving the loops of the tests alone."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


@pytest.fixture
def new_key() -> Callable[[], NKey]:
    return lambda: create_seed(SystemRandom())


@pytest.fixture(scope="session")
def log_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats") / "home", ServerConfig(), random=SystemRandom())
    _run(server.start())
    yield server
    _run(server.stop())


@pytest.fixture
def open_account(log_server: NatsServer) -> OpenAccount:
    @asynccontextmanager
    async def enter() -> AsyncIterator[Door]:
        key = create_seed(SystemRandom())
        name = f"T-{next(_accounts)}"
        accounts = (*log_server.config.accounts, Account(name, (User(key.public_key),)))
        await log_server.reload(replace(log_server.config, accounts=accounts))
        client = await connect(log_server.url, key, name=name, reconnect=True)
        try:
            yield Door(name, key, log_server.url, client)
        finally:
            await client.close()

    return enter


@pytest.fixture
async def jetstream_log(open_account: OpenAccount) -> AsyncIterator[JetStreamLog]:
    async with open_account() as door:
        yield JetStreamLog(door.client)


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[Callable[..., NatsServer]]:
    made: list[NatsServer] = []

    def make(*accounts: Account, home: str = "home", **settings: Any) -> NatsServer:
        config = ServerConfig(accounts, max_store=settings.pop("max_store", None))
        server = NatsServer(tmp_path / home, config, random=SystemRandom(), **settings)
        made.append(server)
        return server

    yield make
    for server in made:
        await server.stop()
