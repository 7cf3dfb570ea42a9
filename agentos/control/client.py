"""The client of the control service: find the runtime, prove who asks, call a verb. The CLI and the tests use nothing else.

>>> client = await open_client("nats://127.0.0.1:4222", identity)        # doctest: +SKIP
>>> await client.call("runtime.status", {})                              # doctest: +SKIP
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import Unavailable
from agentos.control.identity import Identity, load_identity


class Client(Protocol):
    """A connection to a runtime as one principal."""

    async def call(self, verb: str, params: dict[str, Json], *, within: float = 30.0) -> Json:
        """Ask the runtime; return its answer. Raises the AgentOSError it answered with, Unavailable after `within` s."""

    async def close(self) -> None:
        """Disconnect."""


def find_server(home: Path, server: str | None) -> str:
    """The runtime's URL: as given, or of the runtime that runs on `home`. Raises Unavailable."""
    if server is not None:
        return server
    try:
        url = json.loads((home / "run" / "endpoint.json").read_text())["url"]
    except FileNotFoundError as error:
        raise Unavailable(
            f"no runtime runs on {home}", mend="start one: agentos up --detach (or name one with --server)"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise Unavailable(f"{home}/run/endpoint.json cannot be read", mend="agentos down; agentos up --detach") from error
    return str(url)


def find_identity(home: Path, identity: Path | None, principal: str | None) -> Identity:
    """The identity to act with: a file, a principal of `home`, or its operator. Raises IdentityError."""
    return load_identity(identity or home / "identities" / f"{principal or 'operator'}.json")


async def open_client(url: str, identity: Identity, *, tenant: str | None = None) -> Client:
    """Connect to the runtime at `url`. Raises Unavailable, or IdentityError if it refuses the identity."""
    from agentos.eventlog.adapters import nats_import

    with nats_import.only_for(url):
        from agentos.control.adapters.nats_client import NatsClient

    return await NatsClient.connect(url, identity, tenant)
