"""The claim to serve an account that others can reach too: on a server that somebody else runs, no lock of ours keeps them out.

Two runtimes with two homes and the same credentials would both answer commands, and each would count rates for itself. So the one
that starts asks whether another one answers, and is refused if so. One that does not answer may only be standing still: the newer
one puts its claim into the account (a key-value entry whose revision the server gives), and whoever wakes up and finds a claim
that is not its own decides nothing more and ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import KeyValueConfig
from nats.js.kv import KeyValue

from agentos.abi.errors import Conflict, LogUnavailable
from agentos.abi.ids import Random
from agentos.kernel.port import Timer

BUCKET: Final = "agentos"
KEY: Final = "serves"

LOOK_S: Final = 1.0
"""Seconds between two looks whether a newer runtime has come."""

ANSWER_S: Final = 1.0
"""Seconds that another runtime may take to say that it is there."""

PING: Final = "$SRV.PING.agentos"


class Claim:
    """The claim of this runtime. Made by `make_claim`."""

    def __init__(self, entries: KeyValue, revision: int) -> None:
        self._entries = entries
        self._revision = revision

    async def newest(self) -> bool:
        """Whether no newer runtime has come. Raises LogUnavailable when that cannot be told."""
        async with _told():
            entry = await self._entries.get(KEY)
        return entry.revision == self._revision

    async def lost(self, timer: Timer) -> None:
        """Wait until a newer runtime has come. Raises Conflict then."""
        while True:
            try:
                if not await self.newest():
                    raise Conflict(
                        "a newer runtime serves this account", mend="one account takes one runtime: keep the newer one"
                    )
            except LogUnavailable:
                pass  # whoever cannot look cannot write either
            await timer.sleep(LOOK_S)


async def make_claim(client: Client, random: Random) -> Claim:
    """Claim the account that `client` is connected to. Raises Conflict when another runtime answers there, LogUnavailable."""
    async with _told():
        if await _answers(client):
            raise Conflict(
                "another runtime serves this account",
                where=client.connected_url.netloc if client.connected_url else None,
                mend="one account takes one runtime: end the other one first",
            )
        context = client.jetstream()
        entries = await context.create_key_value(KeyValueConfig(bucket=BUCKET, history=1))
        return Claim(entries, await entries.put(KEY, random.token(16).hex().encode("ascii")))


async def _answers(client: Client) -> bool:
    try:
        await client.request(PING, b"", timeout=ANSWER_S)
    except (NoRespondersError, NatsTimeout):
        return False
    return True


@asynccontextmanager
async def _told() -> AsyncIterator[None]:
    try:
        yield
    except (NatsError, OSError, TimeoutError) as error:
        raise LogUnavailable(f"whether another runtime serves the account cannot be told: {error}") from error
