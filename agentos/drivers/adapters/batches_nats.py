"""The batches that a tenant has under way, in a key-value bucket of its account: one entry a submission.

The bucket is made at the first batch. What it holds is synced to disk before it is acknowledged, as the event log is. It is in no
backup: a runtime that was restored elsewhere submits again what had no outcome.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from agentos.abi.canonical import parse_strict
from agentos.abi.errors import AgentOSError, DriverError
from agentos.abi.ids import Random
from agentos.drivers.batching import Submission, SubmissionUnreadable
from agentos.eventlog.adapters.refusal import FULL, LATER, MISSING, OTHER_CONFIG, explain
from agentos.eventlog.adapters.stream_reading import Link

log = logging.getLogger(__name__)

BUCKET: Final = "BATCHES"
STREAM: Final = f"KV_{BUCKET}"
PREFIX: Final = f"$KV.{BUCKET}."

PATIENCE_S: Final = 5.0
"""Seconds that one question to the bucket may take, lost connections among them."""


class NatsBatches:
    """`BatchStore` in the account that `client` is connected to."""

    def __init__(self, client: Client, random: Random, replicas: Callable[[], int] = lambda: 1) -> None:
        """`replicas`: in how many the tenant's log is kept now."""
        self._client = client
        self._link = Link(client, PATIENCE_S)
        self._random = random
        self._replicas = replicas
        self._made = False

    async def put(self, submission: Submission) -> None:
        """See `BatchStore.put`."""
        # The id makes a try that is repeated, because its answer was lost, the same write.
        headers = {"Nats-Msg-Id": self._random.token(16).hex(), "Nats-Expected-Stream": STREAM}
        tries = self._link.tries(STREAM)
        while True:
            seconds = await tries.next()
            if not self._made:
                await self._make()
            try:
                answer = await self._client.request(
                    PREFIX + submission.token, submission.to_bytes(), timeout=seconds, headers=headers
                )
            except NatsError as error:
                # Somebody may have removed the bucket.
                self._made = False
                await tries.lost(error)
                continue
            body = parse_strict(answer.data)
            if "error" not in body:
                return
            if body["error"].get("err_code") not in LATER:
                raise _refused(body["error"])
            await tries.put_off(str(body["error"].get("description")))

    async def delete(self, token: str) -> None:
        """See `BatchStore.delete`."""
        answer = await self._link.api(f"STREAM.PURGE.{STREAM}", {"filter": PREFIX + token})
        if "error" in answer and answer["error"].get("err_code") not in MISSING:
            raise _refused(answer["error"])

    async def all(self) -> list[Submission]:
        """See `BatchStore.all`. The bucket gets as many replicas as the tenant's log has."""
        info = await self._link.api(f"STREAM.INFO.{STREAM}", {})
        if "error" in info:
            if info["error"].get("err_code") in MISSING:
                return []
            raise _refused(info["error"])
        if info["config"].get("num_replicas", 1) != self._replicas():
            answer = await self._link.api(f"STREAM.UPDATE.{STREAM}", info["config"] | {"num_replicas": self._replicas()})
            if "error" in answer:
                raise _refused(answer["error"])
        found: dict[str, Submission] = {}
        after, last = 0, int(info["state"]["last_seq"])
        while after < last:
            page = await self._link.page(STREAM, f"{PREFIX}>", after)
            if not page.messages:
                break
            for stored in page.messages:
                try:
                    submission = Submission.from_bytes(stored.data)
                except SubmissionUnreadable as error:
                    log.warning("%s: %s", stored.subject, error.message)
                else:
                    found[submission.token] = submission
            after = page.messages[-1].position
        return list(found.values())

    async def _make(self) -> None:
        """Make the bucket if it is not there."""
        info = await self._link.api(f"STREAM.INFO.{STREAM}", {})
        if "error" in info:
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
            }
            answer = await self._link.api(f"STREAM.CREATE.{STREAM}", wanted)
            if "error" in answer and answer["error"].get("err_code") != OTHER_CONFIG:
                raise _refused(answer["error"])
        self._made = True


def _refused(error: dict[str, Any]) -> AgentOSError:
    """What the server refuses: LogUnavailable where there is no room, which may pass; DriverError for what will not."""
    said = explain(STREAM, error)
    if error.get("err_code") in FULL:
        return said
    return DriverError(f"the bucket of batches cannot be used: {said.message}", mend=f"see what stands in the way of {STREAM}")
