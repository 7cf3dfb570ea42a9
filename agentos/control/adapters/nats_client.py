"""The client of the control service over NATS request/reply.

A principal may publish only below `ctl.<its name>.` and receive only below `_INBOX.<its name>.`; the server enforces both, so the
subject says who asks. Whoever is told to ask less often waits as long as he is told, and asks again: nothing was done yet.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from itertools import count
from typing import Final, Self

import nats.errors
from nats.aio.client import Client as Nats
from nats.aio.subscription import Subscription

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Denied, TooOften, Unavailable, UsageError, error_from_dict
from agentos.control import wire
from agentos.control.identity import Identity
from agentos.control.rate import URGENT_VERBS
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import parse_seed

MAX_RETRY_MS: Final = 10_000
"""Longest time that a runtime is waited for because it says so."""


AT_ONCE: Final = 64
"""Requests of one connection that are under way at one time, urgent ones aside; the runtime takes no more of one principal."""


class NatsClient:
    """A connection as one principal. Any number of requests may be made at once: they wait for their turn here."""

    def __init__(self, nc: Nats, principal: str, tenant: str | None, barred: dict[str, asyncio.Event]) -> None:
        """`barred`: set, for a subject, once the server has said that this principal may not publish to it."""
        self._nc = nc
        self._barred = barred
        self._principal = principal
        self._tenant = tenant
        self._places = asyncio.Semaphore(AT_ONCE)

    @classmethod
    async def connect(cls, url: str, identity: Identity, tenant: str | None) -> Self:
        """Connect. Raises Unavailable, or IdentityError when the server refuses the identity."""
        barred: dict[str, asyncio.Event] = {}

        def refused(subject: str) -> None:
            barred.setdefault(subject, asyncio.Event()).set()

        nc = await connect(
            url,
            parse_seed(identity.seed),
            name=f"principal {identity.principal}",
            inbox_prefix=f"_INBOX.{identity.principal}",
            refused=refused,
        )
        return cls(nc, identity.principal, tenant, barred)

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
        refused: TooOften | None = None
        try:
            async with asyncio.timeout(within), nullcontext() if verb in URGENT_VERBS else self._places, self._inbox() as inbox:
                for again in count(1):
                    await self._nc.publish(f"ctl.{self._principal}.{verb}", data, reply=inbox.subject, headers=headers or None)
                    try:
                        return await self._answer(inbox, verb)
                    except TooOften as error:
                        refused = error
                    # Those who were told the same time do not all come back at the same moment, and each time later.
                    after_ms = min(max(refused.retry_after_ms, 1), MAX_RETRY_MS)
                    await asyncio.sleep(again * after_ms / 1000 * (1 + secrets.randbelow(1000) / 1000))
        except TimeoutError as error:
            if refused is not None:
                raise refused from error
            raise Unavailable(
                f"the runtime did not answer {verb} within {within:g} s", mend="agentos status; agentos doctor"
            ) from error
        except (nats.errors.ConnectionClosedError, nats.errors.OutboundBufferLimitError) as error:
            raise Unavailable("the connection to the runtime was lost", mend="agentos status") from error

    @asynccontextmanager
    async def _inbox(self) -> AsyncIterator[Subscription]:
        """Where the answer to one request comes in."""
        subscription = await self._nc.subscribe(f"_INBOX.{self._principal}.{secrets.token_hex(12)}")
        try:
            yield subscription
        finally:
            if not self._nc.is_closed:
                await subscription.unsubscribe()

    async def _answer(self, subscription: Subscription, verb: str) -> Json:
        """The answer. Raises Denied where the server does not even let the request through: then nobody answers."""
        barred = self._barred.setdefault(f"ctl.{self._principal}.{verb}", asyncio.Event())
        answer, no = asyncio.create_task(self._receive(subscription)), asyncio.create_task(barred.wait())
        try:
            await asyncio.wait((answer, no), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
        finally:
            answer.cancel()
            no.cancel()
        raise Denied(
            f"{self._principal} may not {verb}",
            rules=("server.permission",),
            reasons=("no role of this principal has any such verb",),
            mend="act as a principal that may (--as, --identity), or ask an operator for the role",
        )

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
