"""A key-value bucket of JetStream in a tenant's account: one entry a key, changed by compare and set where that is asked for.

The revision of an entry is its sequence in the stream `KV_<name>`, which only grows, over all keys. The bucket is made when
something is first written. What it holds is synced to disk before it is acknowledged, as the event log is. It is in no backup.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from agentos.abi.canonical import parse_strict
from agentos.abi.errors import AgentOSError, DriverError, SequenceConflict
from agentos.abi.ids import Random
from agentos.eventlog.adapters.refusal import FULL, LATER, MISSING, MOVED, OTHER_CONFIG, explain
from agentos.eventlog.adapters.stream_reading import Link
from agentos.eventlog.port import Stored

PATIENCE_S: Final = 5.0
"""Seconds that one question to the bucket may take, lost connections among them."""

_NO_MESSAGE: Final = 10037


class Bucket:
    """The bucket `name` in the account that `client` is connected to.

    Every method raises LogUnavailable where the server cannot be reached or has no room, which may pass; DriverError for what
    it refuses for good.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        random: Random,
        *,
        replicas: Callable[[], int],
        first_revision: Callable[[], int] = lambda: 1,
    ) -> None:
        """`replicas`: in how many the tenant's log is kept now. `first_revision`: of a bucket that is made now."""
        self._client = client
        self._link = Link(client, PATIENCE_S)
        self._name = name
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."
        self._random = random
        self._replicas = replicas
        self._first_revision = first_revision
        self._made = False

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """What is stored under `key`, and its revision; None for nothing."""
        answer = await self._link.api(f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._prefix + key})
        if "error" in answer:
            if answer["error"].get("err_code") in {_NO_MESSAGE, *MISSING}:
                return None
            raise self._refused(answer["error"])
        return base64.b64decode(answer["message"].get("data", "")), int(answer["message"]["seq"])

    async def put(self, key: str, data: bytes, *, expected: int | None = None) -> int:
        """Store `data`; return its revision.

        `expected`: only if the key's entry is of that revision (0: if there is none); else SequenceConflict.
        """
        # The id makes a try that is repeated, because its answer was lost, the same write.
        headers = {"Nats-Msg-Id": self._random.token(16).hex(), "Nats-Expected-Stream": self._stream}
        if expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        tries = self._link.tries(self._stream)
        made = self._made or bool(expected)
        while True:
            seconds = await tries.next()
            if not made:
                await self._make()
                made = True
            try:
                answer = await self._client.request(self._prefix + key, data, timeout=seconds, headers=headers)
            except NatsError as error:
                # Somebody may have removed the bucket.
                made = self._made = False
                await tries.lost(error)
                continue
            body = parse_strict(answer.data)
            if "error" not in body:
                return int(body["seq"])
            code = body["error"].get("err_code")
            if code in MOVED:
                raise SequenceConflict(f"the entry has changed since revision {expected}", where=self._prefix + key)
            if code not in LATER:
                raise self._refused(body["error"])
            await tries.put_off(str(body["error"].get("description")))

    async def forget(self, key: str, *, below: int | None = None) -> None:
        """Remove a key's entry, if its revision is below `below`. Does nothing where there is none."""
        query: dict[str, Any] = {"filter": self._prefix + key} | ({} if below is None else {"seq": below})
        answer = await self._link.api(f"STREAM.PURGE.{self._stream}", query)
        if "error" in answer and answer["error"].get("err_code") not in MISSING:
            raise self._refused(answer["error"])

    async def entries(self) -> AsyncIterator[Stored]:
        """Every entry, the one that was written first first; its position is its revision."""
        info = await self._info()
        after, last = 0, int(info["state"]["last_seq"]) if info is not None else 0
        while after < last:
            page = await self._link.page(self._stream, f"{self._prefix}>", after)
            if not page.messages:
                return
            for stored in page.messages:
                yield stored
            after = page.messages[-1].position

    async def align(self) -> None:
        """See that it is kept in as many replicas as the tenant's log."""
        info = await self._info()
        if info is not None and info["config"].get("num_replicas", 1) != self._replicas():
            wanted = info["config"] | {"num_replicas": self._replicas()}
            answer = await self._link.api(f"STREAM.UPDATE.{self._stream}", wanted)
            if "error" in answer:
                raise self._refused(answer["error"])

    async def _info(self) -> dict[str, Any] | None:
        """What the server says of the stream; None if there is none."""
        info = await self._link.api(f"STREAM.INFO.{self._stream}", {})
        if "error" not in info:
            return info
        if info["error"].get("err_code") in MISSING:
            return None
        raise self._refused(info["error"])

    async def _make(self) -> None:
        """Make the bucket if it is not there."""
        if await self._info() is None:
            wanted: dict[str, Any] = {
                "name": self._stream,
                "subjects": [f"{self._prefix}>"],
                "storage": "file",
                "retention": "limits",
                "discard": "new",
                "max_msgs_per_subject": 1,
                "num_replicas": self._replicas(),
                "allow_direct": True,
                "allow_rollup_hdrs": True,
                "deny_delete": True,
                "first_seq": self._first_revision(),
            }
            answer = await self._link.api(f"STREAM.CREATE.{self._stream}", wanted)
            if "error" in answer and answer["error"].get("err_code") != OTHER_CONFIG:
                raise self._refused(answer["error"])
        self._made = True

    def _refused(self, error: dict[str, Any]) -> AgentOSError:
        """What the server refuses: LogUnavailable where there is no room, DriverError for what will not pass."""
        said = explain(self._stream, error)
        if error.get("err_code") in FULL:
            return said
        return DriverError(
            f"the bucket {self._name} cannot be used: {said.message}", mend=f"see what stands in the way of {self._stream}"
        )
