"""The queue of delegations in a tenant's account: a JetStream work queue that holds each envelope until it was dealt with.

    TaskSender    publishes as a user of its own, who may do nothing else; what it sends is on disk when it returns
    TaskQueue     makes the stream, and delivers: a standing pull, topped up at half, each delivery acknowledged by itself

A message is delivered again when it was put off, when nobody said anything for `ACK_WAIT_S`, and when the receiver begins anew:
its consumer is made afresh, so that nothing of a receiver that is gone is waited for. Dealing with one twice must do no harm.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import nkeys
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from agentos.abi.canonical import parse_strict
from agentos.abi.envelope import SIGNATURE, Envelope, signed, task_subject
from agentos.abi.errors import LogUnavailable
from agentos.eventlog.adapters.credentials import NKey
from agentos.eventlog.adapters.refusal import LATER, MISSING, OTHER_CONFIG, explain
from agentos.eventlog.adapters.stream_reading import Link

STREAM: Final = "TASK"
SUBJECTS: Final = "task.>"

CONSUMER: Final = "receiver"
"""The only one: a work queue has no other beside it."""

ACK_WAIT_S: Final = 30.0
"""Seconds that a delivery may take before another one follows."""

PATIENCE_S: Final = 10.0
"""Seconds that one question to the server may take, lost connections among them."""

MAX_MESSAGE: Final = 4096
"""Bytes of a message at most, headers among them."""

_PENDING: Final = 65_536  # deliveries without an answer, those that were put off among them
_PULL: Final = 256  # messages asked for ahead
_HEARTBEAT_S: Final = 5.0
_EXPIRES_S: Final = 60.0
_WATCH_S: Final = 0.25  # seconds until a quiet pull looks whether the connection was replaced
_DUPLICATES_S: Final = 120.0  # how long the server knows the id of a message
_SECOND: Final = 1_000_000_000  # the API counts in nanoseconds

_NO_CONSUMER: Final = 10014  # the API's code for it

_KEEPS: Final[dict[str, Any]] = {
    "subjects": [SUBJECTS],
    "storage": "file",
    "retention": "workqueue",
    "discard": "new",  # should a limit ever be set, refuse what is new rather than drop what is old
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
}


def is_signed(key: str, data: bytes, signature: bytes) -> bool:
    """Whether the user with the public NKey `key` (`U…`) has signed `data`. False for whatever is no such key or signature."""
    try:
        raw = base64.b32decode(key)
    except (binascii.Error, ValueError):
        return False
    if len(raw) != 35 or raw[0] != nkeys.PREFIX_BYTE_USER or nkeys.crc16(raw[:-2]).to_bytes(2, "little") != raw[-2:]:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(raw[1:-2]).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


class TaskSender:
    """Sends envelopes with `key` over `client`, which may be one that can publish below `task.<public key>.` and nothing else."""

    def __init__(self, client: Client, key: NKey) -> None:
        self._link = Link(client, PATIENCE_S)
        self._client = client
        self._key = key

    async def send(self, envelope: Envelope) -> None:
        """Sign and send; it is on disk when this returns. The same envelope again changes nothing.

        One that was made anew for the same child is another message, though both may be in the queue: the server knows an id for
        longer than its message, and would take one that comes after a refusal for the refused one, and drop it.

        Raises LogUnavailable, which leaves open whether it was stored: sending it again is safe.
        """
        subject, body = task_subject(self._key.public_key, envelope.child), envelope.to_bytes()
        signature = base64.b64encode(self._key.sign(signed(subject, body))).decode("ascii")
        tries = self._link.tries(subject)
        while True:
            seconds = await tries.next()
            # Made anew for each try: the client may write into it.
            headers = {
                "Nats-Msg-Id": f"{envelope.child}.{envelope.issued_ms}",
                "Nats-Expected-Stream": STREAM,
                SIGNATURE: signature,
            }
            try:
                answer = await self._client.request(subject, body, timeout=seconds, headers=headers)
            except NatsError as error:
                await tries.lost(error)
                continue
            said = parse_strict(answer.data)
            if "error" not in said:
                return
            if said["error"].get("err_code") not in LATER:
                raise explain(STREAM, said["error"])
            await tries.put_off(str(said["error"].get("description")))


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message of the queue. `tries`: how often it was delivered, this time among them. Exactly one answer is to be given."""

    subject: str
    body: bytes
    signature: bytes | None
    """What its header says, decoded; None for none that could be one."""
    tries: int
    _client: Client = field(repr=False, compare=False)
    _reply: str = field(repr=False, compare=False)

    async def done(self) -> None:
        """It was dealt with: remove it. An answer that is lost on the way brings it again."""
        await self._answer(b"+ACK")

    async def later(self, seconds: float) -> None:
        """Deliver it again, not before so long."""
        await self._answer(b"-NAK " + json.dumps({"delay": int(seconds * _SECOND)}).encode())

    async def refuse(self) -> None:
        """Remove it for good; the server says so to whoever watches its advisories."""
        await self._answer(b"+TERM")

    async def _answer(self, said: bytes) -> None:
        with contextlib.suppress(NatsError):  # without a connection it comes again, which does no harm
            await self._client.publish(self._reply, said)


class TaskQueue:
    """The queue of the account that `client` is connected to."""

    def __init__(self, client: Client, replicas: Callable[[], int] = lambda: 1) -> None:
        """`replicas`: in how many the tenant's log is kept now."""
        self._client = client
        self._link = Link(client, PATIENCE_S)
        self._replicas = replicas

    async def exists(self) -> bool:
        """Whether there is one. Raises LogUnavailable."""
        answer = await self._link.api(f"STREAM.INFO.{STREAM}", {})
        if "error" not in answer:
            return True
        if answer["error"].get("err_code") in MISSING:
            return False
        raise explain(STREAM, answer["error"])

    async def ensure(self) -> None:
        """Make it if it is not there, and keep it in as many replicas as the log.

        Raises LogUnavailable, also for one that somebody has made so that it could lose what is in it.
        """
        wanted = {
            **_KEEPS,
            "name": STREAM,
            "num_replicas": self._replicas(),
            "max_msg_size": MAX_MESSAGE,
            "duplicate_window": int(_DUPLICATES_S * _SECOND),
            "deny_delete": True,
        }
        answer = await self._link.api(f"STREAM.CREATE.{STREAM}", wanted)
        if answer.get("error", {}).get("err_code") == OTHER_CONFIG:
            answer = await self._link.api(f"STREAM.INFO.{STREAM}", {})
            found = answer.get("config", {})
            if "error" not in answer and found.get("num_replicas", 1) != self._replicas():
                answer = await self._link.api(f"STREAM.UPDATE.{STREAM}", found | {"num_replicas": self._replicas()})
        if "error" in answer:
            raise explain(STREAM, answer["error"])
        wrong = sorted(name for name, value in _KEEPS.items() if answer["config"].get(name, value) != value)
        if wrong:
            raise LogUnavailable(
                f"stream {STREAM} is not fit for delegations: {', '.join(wrong)}",
                where=STREAM,
                mend="use an account of its own for AgentOS, or delete that stream while nobody waits for a delegation",
            )

    async def deliveries(self) -> AsyncGenerator[Delivery, None]:
        """What is in the queue and what comes, until it is not sure that all is delivered; then it ends: ask again.

        Whatever a receiver before this one had not answered comes first. Raises LogUnavailable.
        """
        generation = self._link.generation
        await self._renew()
        inbox = self._client.new_inbox()
        received: asyncio.Queue[Msg] = asyncio.Queue()
        asked, quiet = 0, 0.0
        try:
            subscription = await self._client.subscribe(inbox, cb=received.put)
            try:
                while True:
                    if asked <= _PULL // 2:
                        await self._pull(inbox, _PULL - asked)
                        asked = _PULL
                    try:
                        # Not `wait_for`: on Python 3.11 it can swallow a cancellation that comes with the message.
                        async with asyncio.timeout(_WATCH_S):
                            found = await received.get()
                    except TimeoutError:
                        quiet += _WATCH_S
                        if self._link.generation != generation or quiet > 2.5 * _HEARTBEAT_S:
                            return
                        continue
                    quiet = 0.0
                    headers = found.headers or {}
                    status = headers.get("Status")
                    if status is None:
                        asked -= 1
                        yield self._delivery(found, headers)
                    elif status == "408":  # a pull has waited for its whole time: this many of its messages never came
                        asked -= int(headers.get("Nats-Pending-Messages", asked))
                    elif status != "100":
                        return
            finally:
                await subscription.unsubscribe()
        except NatsError:
            return  # the connection is gone; the caller finds out for good, or begins again

    def _delivery(self, found: Msg, headers: dict[str, str]) -> Delivery:
        try:
            signature = base64.b64decode(headers.get(SIGNATURE, ""), validate=True) or None
        except (binascii.Error, ValueError):
            signature = None
        return Delivery(found.subject, found.data, signature, _tries(found.reply), self._client, found.reply)

    async def _renew(self) -> None:
        """Make the consumer afresh: what the one before had delivered without an answer is delivered again at once."""
        gone = await self._link.api(f"CONSUMER.DELETE.{STREAM}.{CONSUMER}", {})
        if "error" in gone and gone["error"].get("err_code") not in {_NO_CONSUMER, *MISSING}:
            raise explain(STREAM, gone["error"])
        config = {
            "durable_name": CONSUMER,
            "name": CONSUMER,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int(ACK_WAIT_S * _SECOND),
            "max_deliver": -1,
            "max_ack_pending": _PENDING,
        }
        made = await self._link.api(f"CONSUMER.CREATE.{STREAM}.{CONSUMER}", {"stream_name": STREAM, "config": config})
        if "error" in made:
            raise explain(STREAM, made["error"])

    async def _pull(self, inbox: str, batch: int) -> None:
        request = {"batch": batch, "expires": int(_EXPIRES_S * _SECOND), "idle_heartbeat": int(_HEARTBEAT_S * _SECOND)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{CONSUMER}"
        await self._client.publish(subject, json.dumps(request).encode(), reply=inbox)


def _tries(reply: str) -> int:
    """How often a message was delivered, from its reply subject (see `stream_reading`)."""
    tokens = reply.split(".")
    return int(tokens[4 if len(tokens) == 9 else 6])
