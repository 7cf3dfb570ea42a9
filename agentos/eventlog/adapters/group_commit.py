"""Group commit: which of the appends that wait on one stream are written now, and which of them together.

With `sync_interval: always` the server syncs once per message, so a stream takes some 4,000 messages a second however many
publishers there are. An atomic batch is synced as a whole: it costs about as much as a dozen messages, then a tenth of one for
each more. Hence:

    few wait                  each is published by itself, at once, side by side
    sixteen or more wait      they go as one batch; while it is under way the next gathers
    a batch has just ended    its callers will be back: a moment's wait lets them gather again

A subject has one append under way at a time, in the order in which they were handed in. An append is carried out by a task of
this module, never by its caller: cancelling a caller tears nothing; what was not begun then is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

from agentos.abi.errors import AgentOSError, LogUnavailable
from agentos.eventlog.adapters.append_wire import Append
from agentos.eventlog.adapters.stream_reading import Link
from agentos.eventlog.adapters.writing import Writer

FEW: Final = 16
"""Messages from which on a batch is cheaper than publishes (measured, see `benchmarks/append.py`)."""

OPEN_BATCHES: Final = 2
"""Batches under way at a time: one that the server commits and one that it receives. It refuses more than 50."""

BATCH_BYTES: Final = 2 * 1024 * 1024
"""Bytes of a batch, about, unless a single append has more: the server writes them twice."""

PIPELINE: Final = 64
"""Publishes under way at a time on a stream that takes no batches."""

GATHER: Final = 0.0005
"""Seconds that the first to come after a batch wait for the others: about what a publish takes."""

BLIND: Final = 1.0
"""Seconds until a server that did not tell whether it takes batches is asked again."""


class GroupCommit:
    """The appends to one stream of the account that `link` leads to."""

    def __init__(self, link: Link, stream: str) -> None:
        self._writer = Writer(link, stream, self._settle)
        self._waiting: deque[Append] = deque()  # one per subject at most
        self._claimed: dict[str, deque[Append] | None] = {}  # each subject that waits or is under way, and who is behind
        self._messages = 0  # of those that wait
        self._several = 0  # of those that wait: with more than one message
        self._tasks: set[asyncio.Task[None]] = set()
        self._learning: asyncio.Task[None] | None = None
        self._singles = 0
        self._batches: list[int] = []  # messages of each batch under way
        self._kicked = False
        self._gather_until = 0.0
        self._blind_until = 0.0

    def submit(self, append: Append) -> None:
        """Carry out `append`, in turn. Its `done` becomes the position of its last message, or what `EventLog.append` raises."""
        if append.subject not in self._claimed:
            self._claimed[append.subject] = None
            self._enter(append)
            return
        behind = self._claimed[append.subject]
        if behind is None:
            behind = self._claimed[append.subject] = deque()
        behind.append(append)

    def _enter(self, append: Append) -> None:
        self._waiting.append(append)
        self._messages += len(append.messages)
        self._several += len(append.messages) > 1
        self._kick()

    def _kick(self) -> None:
        """Look around once everybody who is about to append has had the chance to."""
        if not self._kicked:
            self._kicked = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._kicked = False
        while self._waiting:
            if self._waiting[0].done.done():  # its caller has left
                self._release(self._next())
            elif self._ripe():
                if self._writer.atomic is not None:
                    self._batch()
                elif not self._publish_meanwhile():
                    return
            elif self._may_publish():
                self._publish()
            else:
                return

    def _ripe(self) -> bool:
        """Whether a batch is due. The second one under way is to be worth the while."""
        if self._writer.atomic is False or len(self._batches) >= OPEN_BATCHES:
            return False
        return self._several > 0 or self._messages >= max(FEW, max(self._batches, default=0) // 2)

    def _publish_meanwhile(self) -> bool:
        """Find out whether the stream takes batches, and publish one append while that takes; False if that is to wait."""
        now = asyncio.get_running_loop().time()
        if now >= self._blind_until:
            self._learn()
            if self._several:
                return False
        if self._singles >= FEW:
            return False
        self._publish()
        return True

    def _may_publish(self) -> bool:
        if self._writer.atomic is False:
            return self._singles < PIPELINE
        if self._batches or self._several or self._singles >= FEW:
            return False
        loop = asyncio.get_running_loop()
        if loop.time() >= self._gather_until:
            return True
        self._kicked = True
        loop.call_at(self._gather_until, self._turn)
        return False

    def _next(self) -> Append:
        append = self._waiting.popleft()
        self._messages -= len(append.messages)
        self._several -= len(append.messages) > 1
        return append

    def _publish(self) -> None:
        append = self._next()
        self._singles += 1
        self._start(self._writer.alone(append), [append], 0)

    def _batch(self) -> None:
        appends: list[Append] = []
        ids: set[str] = set()
        twins: list[Append] = []  # an id of theirs is in the batch already: the next batch will find it stored
        size = 0
        most = self._writer.most
        while self._waiting:
            append = self._waiting[0]
            if appends and (len(ids) + len(append.ids) > most or size + append.size > BATCH_BYTES):
                break
            self._next()
            if append.done.done():
                self._release(append)
            elif ids.isdisjoint(append.ids):
                appends.append(append)
                ids.update(append.ids)
                size += append.size
            else:
                twins.append(append)
        for append in reversed(twins):
            self._waiting.appendleft(append)
            self._messages += len(append.messages)
            self._several += len(append.messages) > 1
        if len(appends) == 1:
            self._batches.append(len(ids))
            self._start(self._writer.alone(appends[0]), appends, len(ids))
        elif appends:
            self._batches.append(len(ids))
            self._start(self._writer.together(appends), appends, len(ids))

    def _start(self, work: Coroutine[Any, Any, None], appends: list[Append], batch: int) -> None:
        """Let `work` settle `appends`; `batch` is how many messages it commits together, 0 for a publish."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if batch:
                self._batches.remove(batch)
                self._gather_until = asyncio.get_running_loop().time() + GATHER if batch >= FEW else 0.0
            else:
                self._singles -= 1
            error = None if task.cancelled() else task.exception()
            for append in appends:
                if append.over:
                    continue
                if error is None:
                    append.done.cancel()  # the loop is being closed
                elif not append.done.done():
                    append.done.set_exception(error)
                self._release(append)
            self._kick()

        task.add_done_callback(ended)

    def _learn(self) -> None:
        if self._learning is None:
            self._learning = asyncio.get_running_loop().create_task(self._writer.learn())
            self._learning.add_done_callback(self._learned)

    def _learned(self, task: asyncio.Task[None]) -> None:
        self._learning = None
        if not task.cancelled():
            if isinstance(task.exception(), LogUnavailable):  # whoever appends is told so by the append itself
                self._blind_until = asyncio.get_running_loop().time() + BLIND
            self._kick()

    def _settle(self, append: Append, outcome: int | AgentOSError) -> None:
        """Tell the caller of `append`; the first outcome counts."""
        if append.over:
            return
        if not append.done.done():
            if isinstance(outcome, int):
                append.done.set_result(outcome)
            else:
                append.done.set_exception(outcome)
        self._release(append)

    def _release(self, append: Append) -> None:
        """Let the next append of the subject have its turn."""
        append.over = True
        behind = self._claimed[append.subject]
        while behind:
            following = behind.popleft()
            if not following.done.done():
                self._enter(following)
                return
        del self._claimed[append.subject]
