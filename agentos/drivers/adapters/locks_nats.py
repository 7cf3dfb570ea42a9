"""The locks of a tenant in a key-value bucket of its account: one entry a resource, changed by compare and set.

The revision of an entry is its sequence in the stream `KV_LOCKS`, which only grows, over all resources: it is the fencing token.
The bucket is in no backup, for a lock says who is at work now. So that a token is higher than all before also when the bucket was
made anew, on an empty server or after a restore, its first sequence is the time in milliseconds: no tenant changes its locks a
thousand times a second, year in, year out.

The bucket is made at the first lock. What it holds is synced to disk before it is acknowledged, as the event log is.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from agentos.abi.canonical import parse_strict
from agentos.abi.errors import AgentOSError, DriverError
from agentos.abi.ids import Clock, Random
from agentos.drivers.locks import Lock, LockUnreadable, Moved, key_of
from agentos.eventlog.adapters.refusal import FULL, LATER, MISSING, MOVED, OTHER_CONFIG, explain
from agentos.eventlog.adapters.stream_reading import Link

log = logging.getLogger(__name__)

BUCKET: Final = "LOCKS"
STREAM: Final = f"KV_{BUCKET}"
PREFIX: Final = f"$KV.{BUCKET}."

PATIENCE_S: Final = 5.0
"""Seconds that one question to the bucket may take, lost connections among them."""

KEPT_MS: Final = 86_400_000
"""How long an entry that nobody holds is kept at least: it answers a call that is made again after a crash."""

_NO_MESSAGE: Final = 10037


class NatsLocks:
    """`LockStore` in the account that `client` is connected to."""

    def __init__(self, client: Client, clock: Clock, random: Random, replicas: Callable[[], int] = lambda: 1) -> None:
        """`replicas`: in how many the tenant's log is kept now."""
        self._client = client
        self._link = Link(client, PATIENCE_S)
        self._clock = clock
        self._random = random
        self._replicas = replicas

    async def read(self, resource: str) -> Lock:
        """See `LockStore.read`."""
        answer = await self._link.api(f"STREAM.MSG.GET.{STREAM}", {"last_by_subj": PREFIX + key_of(resource)})
        if "error" in answer:
            if answer["error"].get("err_code") in {_NO_MESSAGE, *MISSING}:
                return Lock(resource)
            raise _refused(answer["error"])
        found = Lock.from_bytes(base64.b64decode(answer["message"].get("data", "")), int(answer["message"]["seq"]))
        if found.resource != resource:
            raise LockUnreadable("the stored record of a lock is of another resource", revision=found.revision)
        return found

    async def write(self, lock: Lock) -> Lock:
        """See `LockStore.write`."""
        subject = PREFIX + key_of(lock.resource)
        # The id makes a try that is repeated, because its answer was lost, the same write.
        headers = {
            "Nats-Msg-Id": self._random.token(16).hex(),
            "Nats-Expected-Last-Subject-Sequence": str(lock.revision),
            "Nats-Expected-Stream": STREAM,
        }
        tries = self._link.tries(STREAM)
        made = lock.revision > 0
        while True:
            seconds = await tries.next()
            if not made:
                await self._make()
                made = True
            try:
                answer = await self._client.request(subject, lock.to_bytes(), timeout=seconds, headers=headers)
            except NatsError as error:
                await tries.lost(error)
                continue
            body = parse_strict(answer.data)
            if "error" not in body:
                return Lock(lock.resource, int(body["seq"]), lock.holder, lock.freed)
            code = body["error"].get("err_code")
            if code in MOVED:
                raise Moved
            if code not in LATER:
                raise _refused(body["error"])
            await tries.put_off(str(body["error"].get("description")))

    async def all(self) -> list[Lock]:
        """See `LockStore.all`."""
        info = await self._link.api(f"STREAM.INFO.{STREAM}", {})
        if "error" in info:
            if info["error"].get("err_code") in MISSING:
                return []
            raise _refused(info["error"])
        found: dict[str, Lock] = {}
        after, last = 0, int(info["state"]["last_seq"])
        while after < last:
            page = await self._link.page(STREAM, f"{PREFIX}>", after)
            if not page.messages:
                break
            for stored in page.messages:
                try:
                    lock = Lock.from_bytes(stored.data, stored.position)
                except LockUnreadable as error:
                    log.warning("%s: %s", stored.subject, error.message)
                else:
                    found[lock.resource] = lock
            after = page.messages[-1].position
        return [found[resource] for resource in sorted(found)]

    async def tidy(self) -> int:
        """See `LockStore.tidy`. The newest entry stays, so that the server never has to guess which revision comes next.

        The bucket gets as many replicas as the tenant's log has.
        """
        info = await self._link.api(f"STREAM.INFO.{STREAM}", {})
        if "error" not in info and info["config"].get("num_replicas", 1) != self._replicas():
            answer = await self._link.api(f"STREAM.UPDATE.{STREAM}", info["config"] | {"num_replicas": self._replicas()})
            if "error" in answer:
                raise _refused(answer["error"])
        locks = await self.all()
        newest, before, gone = max((lock.revision for lock in locks), default=0), self._clock.now_ms() - KEPT_MS, 0
        for lock in locks:
            if lock.holder is None and lock.revision < newest and (lock.freed is None or lock.freed.at_ms < before):
                # Up to this revision only: an entry that was taken meanwhile stays.
                query = {"filter": PREFIX + key_of(lock.resource), "seq": lock.revision + 1}
                answer = await self._link.api(f"STREAM.PURGE.{STREAM}", query)
                if "error" in answer:
                    raise _refused(answer["error"])
                gone += 1
        return gone

    async def _make(self) -> None:
        """Make the bucket if it is not there."""
        info = await self._link.api(f"STREAM.INFO.{STREAM}", {})
        if "error" not in info:
            return
        if info["error"].get("err_code") not in MISSING:
            raise _refused(info["error"])
        wanted: dict[str, Any] = {
            "name": STREAM,
            "subjects": [f"{PREFIX}>"],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "max_msgs_per_subject": 1,
            "num_replicas": self._replicas(),
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "first_seq": self._clock.now_ms(),
        }
        answer = await self._link.api(f"STREAM.CREATE.{STREAM}", wanted)
        if "error" in answer and answer["error"].get("err_code") != OTHER_CONFIG:
            raise _refused(answer["error"])


def _refused(error: dict[str, Any]) -> AgentOSError:
    """What the server refuses: LogUnavailable where there is no room, which may pass; DriverError for what will not."""
    said = explain(STREAM, error)
    if error.get("err_code") in FULL:
        return said
    return DriverError(f"the bucket of the locks cannot be used: {said.message}", mend="see what stands in the way of KV_LOCKS")
