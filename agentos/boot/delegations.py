"""Delegations on the wire, put together: per tenant a sender with a key of its own, the queue, and the loop that receives.

    send       sign → the queue of the tenant, on disk when it returns
    receive    the queue → `kernel.receiving` → done, refused for good, or delivered again later

A tenant that never delegated has no queue and no loop: both come with its first delegation, or are there from the start where a
runtime before this one has left a queue. Many messages are dealt with at a time, so none that takes long, or is put off, stands
in the way of the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from nats.aio.client import Client

from agentos.abi.envelope import Envelope
from agentos.abi.errors import AgentOSError, LogUnavailable, Unavailable
from agentos.audit.audit_chain import AuditChain
from agentos.boot.backend import Backend
from agentos.boot.refusals import Refusals
from agentos.boot.tenants import Tenant, Tenants
from agentos.eventlog.adapters.credentials import NKey
from agentos.eventlog.adapters.tasks import Delivery, TaskQueue, TaskSender, is_signed
from agentos.kernel.port import Timer
from agentos.kernel.receiving import Code, Received, Receiver, Verdict

if TYPE_CHECKING:
    from agentos.boot.parts import Parts

log = logging.getLogger(__name__)

AT_ONCE: Final = 128
"""Messages of one tenant that are dealt with at a time."""

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
"""Seconds until a message that was put off is delivered again: the first time, and at most."""

MOST_TRIES: Final = 5
"""How often a message is tried at which the runtime itself fails."""

Join = Callable[[str, str, str], Awaitable[None]]


def make_deliveries(runtime: Parts, chain: Callable[[str], AuditChain], join: Join) -> Deliveries:
    """The wire of `runtime`, between its delegator and its receiver. `chain` and `join`: see `Refusals` and `Receiver`."""
    current, timer = runtime.configurations.current, runtime.timer
    refusals = Refusals(chain, lambda tenant: current(tenant).revision, timer)
    made = Deliveries(runtime.tenants, runtime.backend, refusals, timer)
    receiver = Receiver(
        runtime.sessions,
        runtime.configurations,
        runtime.delegator,
        timer,
        streams=lambda tenant: runtime.tenants.get(tenant).streams,
        trusted=made.trusted,
        verify=is_signed,
        join=join,
        frozen=lambda state, configuration: runtime.freezes.of(state, configuration) is not None,
    )
    made.serve(receiver)
    runtime.delegator.outbox = made
    return made


@dataclass(slots=True)
class _Line:
    """What a tenant has for its delegations."""

    queue: TaskQueue
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    client: Client | None = None
    sender: TaskSender | None = None
    loop: asyncio.Task[None] | None = None
    work: set[asyncio.Task[None]] = field(default_factory=set)


class Deliveries:
    """`kernel.receiving.Outbox`, and the loops that receive, for all tenants."""

    def __init__(self, tenants: Tenants, backend: Backend, refusals: Refusals, timer: Timer) -> None:
        self._tenants = tenants
        self._backend = backend
        self._refusals = refusals
        self._timer = timer
        self._lines: dict[str, _Line] = {}
        self._keys: dict[str, NKey] = {}
        self._receiver: Receiver | None = None
        self._closed = False

    def serve(self, receiver: Receiver) -> None:
        """Have `receiver` receive from now on. To be called before any tenant is opened."""
        self._receiver = receiver

    def trusted(self, tenant: str) -> Collection[str]:
        """The public keys of those who may send in `tenant`: this runtime's alone."""
        return (self._key(tenant).public_key,)

    async def open(self, tenant: Tenant) -> None:
        """Receive what is in the queue of a tenant, if it has one. Raises LogUnavailable."""
        line = self._line(tenant.name)
        if await line.queue.exists():
            await line.queue.ensure()
            self._start(tenant.name, line)

    async def send(self, tenant: str, envelope: Envelope) -> None:
        """See `Outbox.send`."""
        line = self._line(tenant)
        sender = line.sender or await self._open_sender(tenant, line)
        await sender.send(envelope)

    async def close(self) -> None:
        """Stop receiving; what is under way is delivered again when somebody receives again."""
        self._closed = True
        for line in self._lines.values():
            tasks = [*line.work, *([line.loop] if line.loop is not None else [])]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            if line.client is not None:
                await line.client.close()
        self._lines = {}
        await self._refusals.close()

    def _key(self, tenant: str) -> NKey:
        if tenant not in self._keys:
            self._keys[tenant] = self._backend.sender(tenant)
        return self._keys[tenant]

    def _line(self, tenant: str) -> _Line:
        if tenant not in self._lines:
            served = self._tenants.get(tenant)
            self._lines[tenant] = _Line(TaskQueue(served.client, lambda: served.streams.replicas))
        return self._lines[tenant]

    async def _open_sender(self, tenant: str, line: _Line) -> TaskSender:
        """The queue, made if it is not there, its loop, and the sender. Raises LogUnavailable."""
        async with line.sending:
            if line.sender is None:
                await line.queue.ensure()
                try:
                    client = await self._backend.connect_sender(tenant)
                except LogUnavailable:
                    raise
                except Unavailable as error:
                    raise LogUnavailable(error.message, where=error.where, mend=error.mend) from error
                line.client, line.sender = client, TaskSender(client, self._key(tenant))
                self._start(tenant, line)
            return line.sender

    def _start(self, tenant: str, line: _Line) -> None:
        if line.loop is None and not self._closed:
            line.loop = asyncio.create_task(self._receive(tenant, line), name=f"receive delegations of {tenant}")

    async def _receive(self, tenant: str, line: _Line) -> None:
        """Receive until cancelled."""
        places = asyncio.Semaphore(AT_ONCE)
        while True:
            try:
                async with aclosing(line.queue.deliveries()) as coming:
                    async for delivery in coming:
                        await places.acquire()
                        task = asyncio.create_task(self._deal(tenant, delivery), name=f"delegation in {tenant}")
                        line.work.add(task)
                        task.add_done_callback(line.work.discard)
                        task.add_done_callback(lambda _: places.release())
                await self._timer.sleep(FIRST_PAUSE_S)
                await line.queue.ensure()
            except AgentOSError as error:
                log.warning("delegations of tenant %s are not received at the moment: %s", tenant, error)
                await self._timer.sleep(FIRST_PAUSE_S)

    async def _deal(self, tenant: str, delivery: Delivery) -> None:
        """Deal with one message, whatever is in it."""
        found = await self._judge(tenant, delivery)
        if found.verdict in {Verdict.BEGUN, Verdict.KNOWN}:
            await delivery.done()
        elif found.verdict is Verdict.LATER:
            log.debug("a delegation of tenant %s is put off: %s", tenant, found.message)
            await delivery.later(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(delivery.tries - 1, 10)))
        else:
            if not found.told:
                self._refusals.count(tenant, found.code, found.message)
            await delivery.refuse()

    async def _judge(self, tenant: str, delivery: Delivery) -> Received:
        if self._receiver is None:
            return Received(Verdict.LATER, message="nobody receives yet")
        try:
            return await self._receiver.receive(tenant, delivery.subject, delivery.body, delivery.signature)
        except Exception:
            # The outermost frame of a message: an error that nobody foresaw is seen, and stands in the way of no other message.
            log.exception("a delegation of tenant %s failed in an unexpected way", tenant)
            if delivery.tries < MOST_TRIES:
                return Received(Verdict.LATER)
            return Received(Verdict.REFUSED, str(Code.INTERNAL), "the runtime failed in an unexpected way; its log says how")
