"""Policy decided by an OPA server, managed or remote: what both have in common.

Questions go over HTTP through `opa-python-client`, a few at a time. Each answer must come from the bundle whose revision
this engine has: a server reads policies, data and revision in one transaction, so no answer is of another revision or of a
mixture. Nothing is tried twice and nothing is sent to a server that would change it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from agentos.abi.canonical import Json, NotCanonical, parse_strict
from agentos.abi.errors import EngineUnavailable
from agentos.policy.adapters.opa_bundle import Bundle, Names
from agentos.policy.port import DECISION_SECONDS

if TYPE_CHECKING:
    from agentos.policy.adapters.server_connection import Connection

_ANY: Final = "agentos.tenant"
_LOOP: Final = "look for a rule that loops over a large range or over the whole input"

HEARD_SECONDS: Final = 1.0
"""How long after the server's last word what it said before still counts: a server may be gone without our being told."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: `socket` (a path) or else host, port and, for TLS, a context. `token`: what it knows us by."""

    host: str = "localhost"
    port: int = 0
    socket: str | None = None
    tls: ssl.SSLContext | None = None
    token: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"unix://{self.socket}" if self.socket else f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


class ServerEngine:
    """An engine on a server; see the port for what it promises. Its kinds differ in `_on_late` and in how they end."""

    def __init__(self, address: Address, bundle: Bundle, *, connections: int, questions: int, queue_seconds: float) -> None:
        # Where OPA decides in the process, no runtime ever gets here, and none pays for an HTTP client: 14 MB and its start.
        from agentos.policy.adapters.server_connection import Connection

        self._connection: Connection = Connection(address, connections=connections)
        self._names: Names = bundle.names
        self.revision = bundle.revision
        """`sha256:…` over the modules and the data."""
        self.loaded_sha256 = bundle.sha256
        """`sha256:…` of the exact bytes that the server was given."""
        self.server_version: str | None = None
        """The version of OPA that gave the last answer; None before the first."""
        self.trouble: str | None = None
        """Why the last question to the server got no answer of this revision; None when it did."""
        self._slots = asyncio.Semaphore(questions)
        self._queue_seconds = queue_seconds
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._heard = 0.0
        """When the server last gave an answer of this revision (the loop's time)."""

    @property
    def answering(self) -> bool:
        """Whether the server answered from this revision lately: what was kept counts for a second after its last word."""
        return not self._closed and self.trouble is None and self._loop.time() - self._heard < HEARD_SECONDS

    async def evaluate(self, path: str, document: Mapping[str, Json], *, within: float = DECISION_SECONDS) -> Json:
        """See PolicyEngine.evaluate. The deadline counts from the moment the question is sent, not from the wait for its turn."""
        self._refuse_if_unusable()
        body = _encoded(document)
        await self._turn()
        task = asyncio.create_task(self._ask(path, body))
        task.add_done_callback(self._done)
        try:
            answered, _ = await asyncio.wait({task}, timeout=within)
        except asyncio.CancelledError:
            # The evaluation goes on without its asker, and may hang all the same.
            self._loop.call_later(within, self._watch, task)
            raise
        if not answered:
            self._on_late(task)
            raise EngineUnavailable(f"policy did not decide within {within * 1000:g} ms", mend=_LOOP)
        return task.result()

    async def confirm(self, *, within: float) -> None:
        """Return when the server says that it has this revision. Raises EngineUnavailable."""
        try:
            async with asyncio.timeout(within):
                await self._ask(_ANY, b"{}", defined=False)
        except TimeoutError as error:
            raise EngineUnavailable(f"the policy server did not answer within {within:g} s") from error

    def close(self) -> None:
        """Free the engine, from whichever thread; questions under way get no answer. Safe to repeat."""
        if not self._closed:
            self._closed = True
            if _inside(self._loop):
                self._connection.drop()
            elif not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._connection.drop)

    def _refuse_if_unusable(self) -> None:
        if self._closed:
            raise EngineUnavailable("the policy engine has been closed")

    def _on_late(self, task: asyncio.Task[Json]) -> None:
        """A question passed its deadline and nobody waits for it any more. Hanging up makes OPA cancel the evaluation."""
        task.cancel()

    def _watch(self, task: asyncio.Task[Json]) -> None:
        if not task.done():
            self._on_late(task)

    async def _turn(self) -> None:
        if not self._slots.locked():
            await self._slots.acquire()
            return
        try:
            async with asyncio.timeout(self._queue_seconds):
                await self._slots.acquire()
        except TimeoutError as error:
            raise EngineUnavailable(f"the policy server was not free to decide for {self._queue_seconds:g} s") from error

    def _done(self, task: asyncio.Task[Json]) -> None:
        self._slots.release()
        if not task.cancelled():
            task.exception()  # somebody has looked at it, whether or not the asker still waits

    async def _ask(self, path: str, body: bytes, *, defined: bool = True) -> Json:
        try:
            status, answer = await self._answer(path, body)
            self._check_source(status, answer)
        except EngineUnavailable as error:
            self.trouble = error.message
            raise
        self.trouble = None
        self._heard = self._loop.time()
        if status != 200:
            raise EngineUnavailable(self._told(path, status, answer))
        if defined and "result" not in answer:
            raise EngineUnavailable(f"policy left data.{path} undefined")
        return answer.get("result")

    async def _answer(self, path: str, body: bytes) -> tuple[int, Mapping[str, Any]]:
        status, raw = await self._connection.post(path, body)
        try:
            answer: Any = parse_strict(raw, any_integer=True)
        except NotCanonical as error:
            raise EngineUnavailable(f"the policy server answered {status} with something that is not JSON") from error
        if not isinstance(answer, dict):
            raise EngineUnavailable(f"the policy server answered {status} with something that is not an answer")
        return status, answer

    def _check_source(self, status: int, answer: Mapping[str, Any]) -> None:
        """Raise EngineUnavailable unless the answer comes from our revision, or is an error of its evaluation."""
        if status == 401:
            raise EngineUnavailable("the policy server refuses our token")
        if status != 200:
            if not isinstance(answer.get("errors"), list):
                raise EngineUnavailable(self._told("", status, answer))
            return
        self.server_version = str(_object(answer.get("provenance")).get("version", "")) or None
        in_force = revisions(answer)
        if self.revision not in in_force:
            raise EngineUnavailable(
                f"the policy server does not have this revision: it has {', '.join(sorted(in_force)) or 'none'}",
                mend=f"let it load the bundle of {self.revision}",
            )

    def _told(self, path: str, status: int, answer: Mapping[str, Any]) -> str:
        """What went wrong, in the words that the in-process engine uses."""
        errors = answer.get("errors")
        if not isinstance(errors, list) or not errors:
            return f"the policy server answered {status}: {answer.get('message', 'no reason given')}"
        lines = []
        for error in map(_object, errors):
            place = _object(error.get("location"))
            lines.append(f"{place.get('file', '')}:{place.get('row', 0)}: {error.get('code', '')}: {error.get('message', '')}")
        return f"policy failed to evaluate data.{path}: {self._names.restore('; '.join(lines))}"


def revisions(answer: Mapping[str, Any]) -> set[str]:
    """The revisions of the bundles that an answer comes from."""
    bundles = _object(_object(answer.get("provenance")).get("bundles"))
    return {str(_object(bundle).get("revision", "")) for bundle in bundles.values()}


def _object(value: Json) -> Mapping[str, Any]:
    """An object of the answer; an empty one where it is something else."""
    return value if isinstance(value, dict) else {}


def _encoded(document: Mapping[str, Json]) -> bytes:
    try:
        return b'{"input":' + json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"}"
    except UnicodeEncodeError as error:
        raise EngineUnavailable(f"the policy input holds text that is not valid UTF-8: {error}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise EngineUnavailable(f"the policy input is not JSON: {error}") from error


def _inside(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
