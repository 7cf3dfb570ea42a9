"""A thread that asks OPA, and the questions that it is asked.

Each worker owns an OPA engine that only it touches, because OPA evaluates one document at a time per engine. A worker that is
busy past its deadline is abandoned: it cannot be stopped, only left behind, and counts as lost until its evaluation ends.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, EngineUnavailable
from agentos.policy.adapters import opa
from agentos.policy.port import Module


@dataclass(slots=True)
class Lost:
    """How many threads hang in an evaluation that nobody waits for any more."""

    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, difference: int) -> None:
        with self.lock:
            self.count += difference


@dataclass(slots=True)
class Question:
    """One evaluation: asked in an event loop, answered by a thread. `started` is the loop's time (seconds), None in the queue."""

    path: str
    document: Mapping[str, Json]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Json]
    started: float | None = None
    worker: Worker | None = None

    def answer(self, value: Json) -> None:
        if not self.future.done():
            self.future.set_result(value)

    def fail(self, error: AgentOSError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Worker:
    """One daemon thread and the OPA engine that only it touches."""

    def __init__(
        self,
        modules: tuple[Module, ...],
        data: Mapping[str, Json],
        questions: queue.SimpleQueue[Question | None],
        ready: Question | None,
        lost: Lost,
        returned: Callable[[], None],
    ) -> None:
        self._returned = returned
        self._modules = modules
        self._data = data
        self._questions = questions
        self._ready = ready
        self._lost = lost
        self._lock = threading.Lock()
        self._busy = True
        self._current: Question | None = None
        self._abandoned = False
        self.thread = threading.Thread(target=self._run, name="agentos-policy", daemon=True)

    def abandon(self, question: Question | None) -> bool:
        """Called in the event loop: give the thread up, if it is (still) busy with `question`."""
        with self._lock:
            if self._abandoned or not self._busy or self._current is not question:
                return False
            self._abandoned = True
            self._lost.add(1)
            return True

    def _run(self) -> None:
        engine = self._build()
        if engine is None:
            return
        try:
            while (question := self._questions.get()) is not None:
                if question.future.done():
                    continue
                with self._lock:
                    self._busy, self._current = True, question
                question.worker = self
                question.started = question.loop.time()
                answer = _ask(engine, question.path, question.document)
                if not self._idle():
                    return
                _deliver(question, answer)
        finally:
            engine.close()

    def _build(self) -> Any:
        try:
            engine = opa.build(self._modules, self._data)
        except AgentOSError as error:
            if self._idle() and self._ready is not None:
                _deliver(self._ready, error)
            return None
        if not self._idle():
            engine.close()
            return None
        if self._ready is not None:
            _deliver(self._ready, None)
            self._ready = None
        return engine

    def _idle(self) -> bool:
        """The evaluation ended. False when the thread was given up meanwhile: it must end, nobody listens."""
        with self._lock:
            self._busy, self._current = False, None
            if self._abandoned:
                self._lost.add(-1)
                self._returned()
            return not self._abandoned


def _deliver(question: Question, answer: Json | AgentOSError) -> None:
    try:
        if isinstance(answer, AgentOSError):
            question.loop.call_soon_threadsafe(question.fail, answer)
        else:
            question.loop.call_soon_threadsafe(question.answer, answer)
    except RuntimeError:
        # The event loop is closed: nobody waits for this answer, and no other way to tell exists.
        return


def _ask(engine: Any, path: str, document: Mapping[str, Json]) -> Json | AgentOSError:
    """One evaluation. Errors are values here: they cross from the thread to the loop."""
    library = opa.bindings()
    try:
        return engine.eval_document(path, document)
    except library.OpaUndefinedError:
        return EngineUnavailable(f"policy left data.{path} undefined")
    except library.OpaError as error:
        return EngineUnavailable(f"policy failed to evaluate data.{path}: {error.message}")
    except (TypeError, ValueError, RecursionError) as error:
        return EngineUnavailable(f"the policy input is not JSON: {error}")
