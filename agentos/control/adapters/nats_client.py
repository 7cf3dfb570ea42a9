"""The client of the control service over NATS request/reply.

A principal may publish only below `ctl.<its name>.` and receive only below `_INBOX.<its name>.`; the server enforces both, so the
subject says who asks.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Self

import nats.errors
from nats.aio.client import Client as Nats
from nats.aio.subscription import Subscription

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Unavailable, UsageError, error_from_dict
from agentos.control import wire
from agentos.control.identity import Identity
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import parse_seed


class NatsClient:
    """A connection as one principal."""

    def __init__(self, nc: Nats, principal: str, tenant: str | None) -> None:
        self._nc = nc
        self._principal = principal
        self._tenant = tenant

    @classmethod
    async def connect(cls, url: str, identity: Identity, tenant: str | None) -> Self:
        """Connect. Raises Unavailable, or IdentityError when the server refuses the identity."""
        nc = await connect(
            url,
            parse_seed(identity.seed),
            name=f"principal {identity.principal}",
            inbox_prefix=f"_INBOX.{identity.principal}",
        )
        return cls(nc, identity.principal, tenant)

    async def call(self, verb: str, params: dict[str, Json], *, within: float = 30.0) -> Json:
        body: dict[str, Json] = {"params": params}
        if self._tenant is not None:
            body["tenant"] = self._tenant
        data, headers = wire.encode(body)
        if len(data) > self._nc.max_payload - 4096:
            raise UsageError(
                f"the request is {len(data)} bytes compressed; this server takes {self._nc.max_payload}",
                mend="apply in smaller sets, or raise the server's max_payload",
            )
        inbox = f"_INBOX.{self._principal}.{secrets.token_hex(12)}"
        subscription = await self._nc.subscribe(inbox)
        try:
            await self._nc.publish(f"ctl.{self._principal}.{verb}", data, reply=inbox, headers=headers or None)
            async with asyncio.timeout(within):
                return await self._receive(subscription)
        except TimeoutError as error:
            raise Unavailable(
                f"the runtime did not answer {verb} within {within:g} s", mend="agentos status; agentos doctor"
            ) from error
        except (nats.errors.ConnectionClosedError, nats.errors.OutboundBufferLimitError) as error:
            raise Unavailable("the connection to the runtime was lost", mend="agentos status") from error
        finally:
            if not self._nc.is_closed:
                await subscription.unsubscribe()

    async def _receive(self, subscription: Subscription) -> Json:
        parts: list[bytes] = []
        while True:
            message = await subscription.next_msg(timeout=None)
            headers = message.headers or {}
            if headers.get("Status") == "503":
                raise Unavailable("no runtime listens for this principal", mend="agentos status; agentos up --detach")
            parts.append(message.data)
            number, _, count = headers.get(wire.PART, "1/1").partition("/")
            if int(number) != len(parts):
                raise Unavailable("a part of the answer was lost", mend="ask again")
            if len(parts) == int(count):
                break
        answer = wire.decode(b"".join(parts), headers)
        if not isinstance(answer, dict) or ("result" in answer) == ("error" in answer):
            raise AgentOSError("the runtime answered with something that is not an answer")
        if "error" in answer:
            raise error_from_dict(answer["error"])
        return answer["result"]

    async def close(self) -> None:
        await self._nc.close()
