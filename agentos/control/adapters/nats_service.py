"""The control service: every verb is an endpoint of one NATS micro service, in every account.

Who asks is the second token of the subject: the NATS server lets a principal publish below its own name only. The reply must go
to the principal's own inbox: otherwise a principal could make the runtime publish into a subject that only the runtime may
write, the event log among them.

Who asks more often than `control.rate` allows is told so before anything of his request is looked at. Where even that is too much
work, because nobody takes the answers, requests are dropped, and the runtime's log counts them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from time import monotonic_ns
from typing import Final

import nats.micro
from nats.aio.client import Client as Nats
from nats.micro.request import Request
from nats.micro.service import Service

from agentos import __version__
from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Denied, IdentityError, NotFound, UsageError
from agentos.abi.ids import FLEET
from agentos.control import wire
from agentos.control.authorize import Authorize
from agentos.control.principal import Caller, Handlers
from agentos.control.rate import REQUESTS_PER_SECOND, URGENT_VERBS, Knocks, busy, too_often
from agentos.registry.principal import Principal, Principals

log = logging.getLogger(__name__)

MAX_OPEN: Final = 256
"""Requests under way at one time in one account; more are refused at once, so that a flood cannot hold memory. Each account has
its own: requests of one tenant that wait for something keep no other tenant out."""

MAX_OPEN_ALL: Final = 4096
"""Those of all tenants together. The fleet's own do not count: its operators get in whatever the tenants do."""

MAX_OPEN_EACH: Final = 64
"""Requests of one principal under way at one time, so that none keeps the others out."""

RESERVED: Final = 16
"""Requests for what is urgent that are taken beyond `MAX_OPEN`, whoever asks."""

MAX_REFUSING: Final = 256
"""Refusals under way at one time; who asks beyond it gets no answer."""

TOLD_S: Final = 60.0
"""Seconds between two lines of the log about requests that came too often."""

MAX_HELD: Final = 64 * 1024 * 1024
"""Bytes of requests, unpacked, that one principal may have under way at one time."""


class ControlService:
    """Serves the verbs in the accounts that it is given."""

    def __init__(self, handlers: Handlers, principals: Principals, authorize: Authorize, knocks: Knocks | None = None) -> None:
        """`knocks`: how often who may ask; as often as by default where it is left out."""
        self._knocks = knocks or Knocks(lambda: monotonic_ns() // 1000, lambda _tenant: REQUESTS_PER_SECOND)
        self._refusing: set[asyncio.Task[None]] = set()
        self._refused: Counter[str] = Counter()
        self._told_s = 0.0
        self._handlers = handlers
        self._principals = principals
        self._authorize = authorize
        self._services: list[Service] = []
        self._open: set[asyncio.Task[None]] = set()
        self._open_of: Counter[str] = Counter()
        self._open_in: Counter[str] = Counter()
        self._held_by: Counter[str] = Counter()

    async def serve(self, nc: Nats, tenant: str) -> None:
        """Serve the account behind `nc`, which is the one of `tenant` (`*`: the fleet's own)."""
        service = await nats.micro.add_service(
            nc, name="agentos", version=__version__, description="the control service of AgentOS"
        )
        for verb in self._handlers:

            async def receive(request: Request, verb: str = verb) -> None:
                self._accept(nc, request, verb, tenant)

            await service.add_endpoint(name=verb.replace(".", "-"), subject=f"ctl.*.{verb}", handler=receive)
        self._services.append(service)

    async def close(self) -> None:
        """Take no more requests and end those under way."""
        for service in self._services:
            await service.stop()
        under_way = (*self._open, *self._refusing)
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)

    def _accept(self, nc: Nats, request: Request, verb: str, account: str) -> None:
        # nats-py gives the reply subject of a service request only through its message.
        reply = request._msg.reply  # noqa: SLF001
        name = request.subject.split(".")[1]
        if not reply.startswith(f"_INBOX.{name}."):
            log.warning("principal %s asked for a reply to %s, which is not its inbox: dropped", name, reply[:80])
            return
        urgent = verb in URGENT_VERBS
        wait = self._knocks.take(account, name, urgent=urgent)
        if wait:
            self._refuse(nc, reply, name, wait)
            return
        here = self._open_in[account]
        all_full = account != FLEET and self._open_in.total() - self._open_in[FLEET] >= MAX_OPEN_ALL
        room = here < MAX_OPEN and self._open_of[name] < MAX_OPEN_EACH and not all_full
        room = room or (urgent and here < MAX_OPEN + RESERVED)
        task = asyncio.create_task(self._answer(nc, request, reply, verb, account, name, room), name=f"{name} {verb}")
        self._open.add(task)
        self._open_of[name] += 1
        self._open_in[account] += 1

        def leave(task: asyncio.Task[None]) -> None:
            self._open.discard(task)
            self._open_of[name] -= 1
            self._open_in[account] -= 1

        task.add_done_callback(leave)

    def _refuse(self, nc: Nats, reply: str, name: str, wait: float) -> None:
        """Tell who asks too often when to come again, and the log now and then how often that was."""
        self._refused[name] += 1
        now = asyncio.get_running_loop().time()
        if now - self._told_s >= TOLD_S or not self._told_s:
            told = ", ".join(f"{who} {count}" for who, count in self._refused.most_common(10))
            log.warning("requests refused, as they came too often: %s", told)
            self._refused.clear()
            self._told_s = now
        if len(self._refusing) >= MAX_REFUSING:
            return
        task = asyncio.create_task(self._reply(nc, reply, {"error": too_often(name, wait).to_dict()}), name=f"{name} refused")
        self._refusing.add(task)
        task.add_done_callback(self._refusing.discard)

    async def _answer(self, nc: Nats, request: Request, reply: str, verb: str, account: str, name: str, room: bool) -> None:
        try:
            answer: Json = {"result": await self._perform(request, verb, account, name, room)}
        except AgentOSError as error:
            answer = {"error": error.to_dict()}
        except Exception:
            log.exception("%s by %s failed unexpectedly", verb, name)
            answer = {"error": {"code": "error", "message": "the runtime failed; its log says why"}}
        await self._reply(nc, reply, answer)

    async def _perform(self, request: Request, verb: str, account: str, name: str, room: bool) -> Json:
        if not room:
            raise busy()
        # Who asks comes first: nothing of a stranger's request is unpacked.
        principal = await self._principal(account, name)
        text = wire.unpack(request.data, request.headers, most=wire.MAX_REQUEST)
        if self._held_by[name] + len(text) > MAX_HELD:
            raise AgentOSError(f"{name} has {MAX_HELD} bytes of requests under way", mend="ask again later")
        self._held_by[name] += len(text)
        try:
            return await self._serve(principal, wire.decode_request(text), verb, account)
        finally:
            self._held_by[name] -= len(text)

    async def _serve(self, principal: Principal, body: Json, verb: str, account: str) -> Json:
        if not isinstance(body, dict) or not isinstance(body.get("params"), dict):
            raise UsageError("a request is an object with params")
        caller = _caller(principal, account, body.get("tenant"))
        decision = await self._authorize(caller, verb)
        if decision is not None:
            name = caller.name
            log.warning("denied: %s may not %s in tenant %s (%s)", name, verb, caller.tenant, ", ".join(decision.rules))
            raise Denied(
                f"{name} may not {verb}",
                rules=decision.rules,
                reasons=decision.reasons,
                mend="act as a principal that may (--as, --identity), or ask an operator for the role",
            )
        return await self._handlers[verb](caller, body["params"])

    async def _principal(self, account: str, name: str) -> Principal:
        try:
            principal = await self._principals.get(name)
        except NotFound as error:
            raise _stranger(name) from error
        if principal.tenant != account or not principal.valid:
            raise _stranger(name)
        return principal

    async def _reply(self, nc: Nats, reply: str, answer: Json) -> None:
        data, headers = wire.encode(answer)
        if isinstance(answer, dict) and "error" in answer:
            headers["Nats-Service-Error"] = wire.header(str(answer["error"]["message"]))
            headers["Nats-Service-Error-Code"] = str(answer["error"]["code"])
        parts = wire.split(data, nc.max_payload - 8192)
        for number, part in enumerate(parts, 1):
            await nc.publish(reply, part, headers={**headers, wire.PART: f"{number}/{len(parts)}"})


def _caller(principal: Principal, account: str, tenant: object) -> Caller:
    """Who acts, and on which tenant: a principal of the fleet names it, any other has its own."""
    name = principal.name
    if tenant is not None and not isinstance(tenant, str):
        raise UsageError("the tenant of a request is a name")
    if account == FLEET:
        return Caller(name, principal.roles, tenant or "default", fleet=True)
    if tenant not in (None, account):
        raise Denied(
            f"{name} belongs to tenant {account} and may not act on {tenant}",
            rules=("control.tenant",),
            reasons=("a principal of a tenant acts on that tenant only",),
        )
    return Caller(name, principal.roles, account, fleet=False)


def _stranger(name: str) -> IdentityError:
    return IdentityError(f"principal {name} is not known here", mend="ask an operator for a new identity")
