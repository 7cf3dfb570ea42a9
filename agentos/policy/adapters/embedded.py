"""Policy decided by real OPA inside the process.

An engine owns a few daemon threads, each with an OPA engine of its own: OPA evaluates one document at a time per
engine and lets other Python threads run meanwhile. Questions wait in one queue, so that a free thread takes the next.
They are daemon threads, not an executor's, because an evaluation cannot be cancelled: one that never ends must not keep
the process from ending.

What happens to an evaluation that passes its deadline: the asker gets EngineUnavailable (and denies), its thread is
abandoned and another takes its place. While two of them still run the engine answers nothing, at once; when one ends it
answers again. So an engine loses at most two threads, which spin until their evaluation ends. A factory that has lost
`max_lost` of them loads no further engine until the process is started anew.

With a `quarantine` (a factory of engines that can be killed) such policies move out at once: from the first evaluation that
passes its deadline, every question of that engine is asked there, for as long as the engine lives.
"""

from __future__ import annotations

import asyncio
import os
import queue
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, EngineUnavailable
from agentos.policy.adapters import opa
from agentos.policy.adapters.embedded_worker import Lost, Question, Worker
from agentos.policy.port import DECISION_SECONDS, Module, PolicyEngine, PolicyEngineFactory

_HUNG_AT_MOST: Final = 2
"""Evaluations past their deadline that may still run before the engine refuses: each keeps a core busy and cannot be stopped."""


def _threads() -> int:
    """One processor is left to the event loop: with all of them evaluating, it waits up to 10 ms for its turn on one."""
    return max(1, min(2, (os.cpu_count() or 1) - 1))


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """How an embedded engine is run."""

    threads: int = field(default_factory=_threads)
    """Evaluations that run at the same time, per engine; each thread holds its own copy of modules and data."""

    load_seconds: float = 10.0
    """How long compiling may take before the load is refused."""

    queue_seconds: float = 5.0
    """How long a question may wait for a free thread before it is answered with EngineUnavailable."""

    max_lost: int = 16
    """Abandoned threads in the process beyond which no engine is loaded any more."""


class EmbeddedFactory:
    """Makes engines that run OPA in this process."""

    def __init__(self, settings: EmbeddedSettings | None = None, *, quarantine: PolicyEngineFactory | None = None) -> None:
        """`quarantine`: where policies go on that do not keep their deadline here; None: they are refused while they hang."""
        self._settings = settings or EmbeddedSettings()
        self._lost = Lost()
        self._quarantine = quarantine

    @property
    def version(self) -> str:
        """`opa 1.20 (in process, …)`; without the library, a sentence that says so."""
        try:
            return opa.version()
        except EngineUnavailable as error:
            return f"none: {error.message}"

    @property
    def lost(self) -> int:
        """Threads that hang in an evaluation that passed its deadline."""
        return self._lost.count

    async def load(self, modules: Sequence[Module], data: Mapping[str, Json]) -> EmbeddedEngine:
        """Compile `modules` with `data` in a thread; return the engine when its first thread is ready.

        Raises PolicyError with `where` as file:line; EngineUnavailable without OPA, after `load_seconds`, and once too many
        threads are lost.
        """
        if self._lost.count >= self._settings.max_lost:
            raise EngineUnavailable(
                f"{self._lost.count} evaluations of policies never ended: no further policy is loaded",
                mend="remove the policy that loops, then start the runtime again",
            )
        # In a thread, because decisions of engines that are in force go on meanwhile.
        await asyncio.to_thread(_refuse, modules)
        engine = EmbeddedEngine(tuple(modules), data, self._settings, self._lost, self.version, self._quarantine)
        try:
            await engine.start()
        except (AgentOSError, asyncio.CancelledError):
            engine.close()
            raise
        return engine


class EmbeddedEngine:
    """A loaded set of modules and data; see the port for what it promises."""

    def __init__(
        self,
        modules: tuple[Module, ...],
        data: Mapping[str, Json],
        settings: EmbeddedSettings,
        lost: Lost,
        version: str,
        quarantine: PolicyEngineFactory | None = None,
    ) -> None:
        self._version = version
        self._moved_to: str | None = None
        self._quarantine = quarantine
        self._moving: asyncio.Task[PolicyEngine] | None = None
        self._modules = modules
        self._data = data
        self._settings = settings
        self._lost = lost
        self._pid = os.getpid()
        self._questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._workers: list[Worker] = []
        self._hung = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def start(self) -> None:
        """Start the threads; return when all have compiled: one that still compiles would slow the first decisions down.

        Their errors are this call's.
        """
        loop = self._loop = asyncio.get_running_loop()
        ready: list[asyncio.Future[Json]] = [loop.create_future() for _ in range(self._settings.threads)]
        for future in ready:
            self._spawn(Question("", {}, loop, future))
        try:
            async with asyncio.timeout(self._settings.load_seconds):
                await asyncio.gather(*ready)
        except TimeoutError as error:
            for worker in tuple(self._workers):
                self._abandon(worker, None)
            raise EngineUnavailable(
                f"the policies did not load within {self._settings.load_seconds:g} s",
                mend="look for a rule that loops over a large range",
            ) from error

    async def evaluate(self, path: str, document: Mapping[str, Json], *, within: float = DECISION_SECONDS) -> Json:
        """See PolicyEngine.evaluate."""
        if self._moving is not None and not self._closed:
            return await (await self._elsewhere(self._moving)).evaluate(path, document, within=within)
        self._refuse_if_unusable()
        loop = asyncio.get_running_loop()
        question = Question(path, document, loop, loop.create_future())
        asked = loop.time()
        timer = loop.call_later(within, self._watch, question, asked, within)
        self._questions.put(question)
        try:
            answer = await question.future
        except AgentOSError:
            timer.cancel()
            raise
        # An asker that is cancelled leaves its timer: its evaluation may hang all the same.
        timer.cancel()
        return answer

    def close(self) -> None:
        """End the threads after the questions that wait. Safe to repeat; evaluating afterwards is refused."""
        if not self._closed:
            self._closed = True
            for _ in self._workers:
                self._questions.put(None)
            moving = self._moving
            if moving is None:
                return
            if _came_up(moving):
                moving.result().close()
            elif self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(moving.cancel)

    @property
    def version(self) -> str:
        """Name and version of what answers now: the library in this process, or what the quarantine is made of."""
        if self._moved_to is None and self._quarantine is not None and self._moving is not None and _came_up(self._moving):
            self._moved_to = self._quarantine.version
        return self._moved_to or self._version

    @property
    def answering(self) -> bool:
        """Whether a question would be taken now, here or where late policies have moved to."""
        if self._closed:
            return False
        if self._moving is not None:
            return _came_up(self._moving) and self._moving.result().answering
        return self._hung < _HUNG_AT_MOST

    @property
    def quarantined(self) -> bool:
        """Whether a policy of this engine did not keep its deadline, so that all is asked in an engine that can be killed."""
        return self._moving is not None

    def _move(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._quarantine is not None and self._moving is None and not self._closed:
            self._moving = loop.create_task(self._quarantine.load(self._modules, self._data))
            self._moving.add_done_callback(self._moved)

    def _moved(self, moving: asyncio.Task[PolicyEngine]) -> None:
        if not _came_up(moving):
            # As without a quarantine: refused while it hangs, and the next late evaluation tries to move again.
            self._moving = None
            self._fill()
        elif self._closed:
            moving.result().close()
        else:
            # The threads answer what waits already, and end.
            for _ in self._workers:
                self._questions.put(None)

    async def _elsewhere(self, moving: asyncio.Task[PolicyEngine]) -> PolicyEngine:
        try:
            async with asyncio.timeout(self._settings.queue_seconds):
                return await asyncio.shield(moving)
        except TimeoutError as error:
            raise EngineUnavailable("the engine for a policy that did not keep its deadline is not ready yet") from error
        except AgentOSError as error:
            raise EngineUnavailable(
                f"the policy did not keep its deadline, and the engine for such policies did not start: {error.message}",
                mend=error.mend,
            ) from error

    def _refuse_if_unusable(self) -> None:
        if os.getpid() != self._pid:
            raise opa.forked()
        if self._closed:
            raise EngineUnavailable("the policy engine has been closed")
        if self._hung >= _HUNG_AT_MOST:
            raise _too_many_hang()

    def _spawn(self, ready: Question | None) -> None:
        worker = Worker(self._modules, self._data, self._questions, ready, self._lost, self._returned)
        self._workers.append(worker)
        worker.thread.start()

    def _watch(self, question: Question, asked: float, within: float) -> None:
        """The deadline counts from the start of the evaluation: waiting behind other questions is not the policy's fault."""
        if question.future.done() and not question.future.cancelled():
            return
        now = question.loop.time()
        if question.started is None:
            if now - asked >= self._settings.queue_seconds:
                question.fail(EngineUnavailable(f"no thread was free to decide for {self._settings.queue_seconds:g} s"))
                return
            question.loop.call_later(within, self._watch, question, asked, within)
            return
        left = question.started + within - now
        if left > 0:
            question.loop.call_later(left, self._watch, question, asked, within)
            return
        if question.worker is not None and self._abandon(question.worker, question):
            self._move(question.loop)
            self._replace()
        question.fail(
            EngineUnavailable(
                f"policy did not decide within {within * 1000:g} ms",
                mend="look for a rule that loops over a large range or over the whole input",
            )
        )

    def _abandon(self, worker: Worker, question: Question | None) -> bool:
        """Write off a thread that hangs in `question` (None: in loading). False when it is past that already."""
        if not worker.abandon(question):
            return False
        self._workers.remove(worker)
        self._hung += 1
        return True

    def _returned(self) -> None:
        """Called in a thread that was given up, when its evaluation has ended after all."""
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._recover)
        except RuntimeError:
            # The event loop is closed, and with it whoever could ask again.
            return

    def _recover(self) -> None:
        """An evaluation that was late is over: a stall of the machine must not close the engine for good."""
        self._hung -= 1
        self._fill()

    def _fill(self) -> None:
        """Have as many threads as there should be, where questions are still asked here and not too many of them hang."""
        if self._closed or self._moving is not None or self._hung >= _HUNG_AT_MOST:
            return
        while len(self._workers) < self._settings.threads:
            self._spawn(None)

    def _replace(self) -> None:
        if self._hung < _HUNG_AT_MOST:
            self._fill()
            return
        while True:
            try:
                waiting = self._questions.get_nowait()
            except queue.Empty:
                break
            if waiting is not None:
                waiting.loop.call_soon_threadsafe(waiting.fail, _too_many_hang())


def _refuse(modules: Sequence[Module]) -> None:
    opa.bindings()
    opa.refuse_unsteady(modules)


def _came_up(moving: asyncio.Task[PolicyEngine]) -> bool:
    return moving.done() and not moving.cancelled() and moving.exception() is None


def _too_many_hang() -> EngineUnavailable:
    return EngineUnavailable(
        f"{_HUNG_AT_MOST} evaluations of this policy have passed their deadline and still run: nothing is decided until one ends",
        mend="correct the policy and apply it; a new revision gets a new engine",
    )
