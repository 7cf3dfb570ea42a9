"""What breaks under a running runtime: the disk, the server, and what stays true all the same."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from house import WORKER, Door, House, documents

from agentos.abi.errors import Conflict, IdentityError, LogUnavailable
from agentos.abi.syscall import Result
from agentos.boot import backend
from agentos.drivers.port import CallContext, ToolSpec

LEDGER = Path(__file__).resolve().parents[2] / "assets" / "servers" / "ledger_server.py"

COUNTER = """
apiVersion: agentos/v1
kind: Model
metadata: {name: counting}
spec:
  provider: scripted
  scripted:
    play:
      name: counting
      rules:
        - {id: count, when: "results | length < 4", call: [{tool: note, args: {number: "{{ results | length }}"}}]}
        - {id: done, when: "true", say: "{{ results | ok | length }} of {{ results | length }}"}
---
apiVersion: agentos/v1
kind: Sandbox
metadata: {name: books}
spec: {mounts: [{path: BOOKS, at: /books, write: true}, {path: SERVERS, at: /servers}]}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: note}
spec:
  description: Write a number down.
  effect: external
  sandbox: books
  inputSchema:
    {title: noteArguments, type: object, properties: {number: {title: Number, type: integer}}, required: [number]}
  driver: {mcp: {tool: note, server: {command: COMMAND}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: counter}
spec:
  instructions: Count.
  model: counting
  tools: [note]
  governance: {owner: tests, purpose: counting, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: counting}
spec: {agents: [counter], tools: [note]}
"""


class Said(logging.Handler):
    """Sets `heard` when the runtime's log says `words`."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words, self.heard = words, asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self.words in record.getMessage():
            self.heard.set()


async def back(door: Door) -> Door:
    """Once a server that was started again lets principals in: the runtime takes its own places first."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await door.in_tenant("default")
            except IdentityError:
                await asyncio.sleep(0.05)


async def never(_seconds: float) -> None:
    await asyncio.Event().wait()


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Gives embedded servers that are started from now on a store of so many bytes, of which nobody has a part of his own."""
    plenty, shares = backend.STORE, backend.shares

    def limit(size: int | None) -> None:
        monkeypatch.setattr(backend, "STORE", plenty if size is None else size)
        monkeypatch.setattr(backend, "shares", shares if size is None else lambda *_: {})

    return limit


async def test_a_full_store_refuses_an_apply_whole(house: House, limited: Callable[[int | None], None]) -> None:
    """A clear error, the revision before it, and the same apply goes through when there is room."""
    limited(1024 * 1024)
    big = documents(WORKER)
    big[2]["spec"]["instructions"] = os.urandom(900_000).hex()
    async with house.open() as door:
        await door.apply(*documents(WORKER))
        with pytest.raises(LogUnavailable, match="no space left") as caught:
            await door.apply(*big)
        assert "free space" in str(caught.value.mend)
        known = await door.revision()
        text = (await door("registry.get", kind="Agent", name="worker"))["resource"]["spec"]["instructions"]
        assert (known, text) == (1, "Write three files.")
    limited(None)
    async with house.open() as door:
        assert await door.revision() == known
        await door.apply(*documents(WORKER.replace("three", "four")))
        assert await door.revision() == known + 1
        assert (await door.until(await door.run()))["result"] == "3 of 3"


async def test_a_full_store_stops_a_session_and_loses_nothing_of_it(house: House, limited: Callable[[int | None], None]) -> None:
    """No call is made whose decision is not stored; with room again the session goes on from where it was, repeating nothing."""
    limited(3 * 1024 * 1024)
    manifests = documents(WORKER)
    rule = manifests[0]["spec"]["scripted"]["play"]["rules"][0]
    rule["call"][0]["args"]["content"] = "{{ 'x' * 600000 }}"
    # Half the bytes of a request are reserved as tokens; it is the store that is to be too small here.
    next(one for one in manifests if one["kind"] == "Agent")["spec"]["budget"] = {"tokens": 100_000_000}
    said = Said("stops until the log is back")
    logging.getLogger("agentos.kernel.sessions").addHandler(said)
    try:
        async with house.open() as door:
            door.runtime.timer.sleep = never  # type: ignore[method-assign] # it does not try again before there is room
            await door.apply(*manifests)
            session = await door.run()
            async with asyncio.timeout(60):
                await said.heard.wait()
            before = await door.events(session)
            decided = {event["data"]["call"] for event in before if event["type"] == "agentos.syscall.decided"}
            folder = Path((await door("session.workspace", session=session))["path"])
            assert len(list(folder.iterdir())) <= len({call for call in decided if not call.startswith("model-")})
            assert "agentos.session.finished" not in {event["type"] for event in before}
    finally:
        logging.getLogger("agentos.kernel.sessions").removeHandler(said)
    limited(None)
    async with house.open() as door:
        ended = await door.until(session)
        assert ended["state"] == "finished"
        events = await door.events(session)
        assert events[: len(before)] == before
        finished = [event["data"]["call"] for event in events if event["type"] == "agentos.syscall.finished"]
        assert len(finished) == len(set(finished))


async def test_a_server_that_is_killed_in_mid_run_repeats_no_effect(
    door: Door, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGKILL of the nats-server between an effect and its record: it is started again, and each effect happened once."""
    books = tmp_path / "books"
    books.mkdir()
    books.chmod(0o777)  # the session is another user
    command = json.dumps([sys.executable, f"/servers/{LEDGER.name}", "/books/ledger"])
    places = COUNTER.replace("BOOKS", json.dumps(str(books))).replace("SERVERS", json.dumps(str(LEDGER.parent)))
    await door.apply(*documents(places.replace("COMMAND", command)))
    act = door.runtime.drivers.call

    async def call(tool: ToolSpec, args: Mapping[str, Any], context: CallContext) -> Result:
        result = await act(tool, args, context)
        if args["number"] == 1:
            os.kill(int((door.runtime.home.nats / "nats.pid").read_text()), signal.SIGKILL)
        return result

    door.runtime.drivers.call = call  # type: ignore[method-assign]
    said = Said("runtime AGENTOS: back on")
    caplog.set_level(logging.INFO, "agentos.eventlog.adapters.connection")
    logging.getLogger("agentos.eventlog.adapters.connection").addHandler(said)
    try:
        session = await door.run("counter")
        async with asyncio.timeout(60):
            await said.heard.wait()
    finally:
        logging.getLogger("agentos.eventlog.adapters.connection").removeHandler(said)
    again = await back(door)
    ended = await again.until(session)
    assert (ended["state"], ended["result"]) == ("finished", "4 of 4")
    assert (books / "ledger").read_text().split() == ["0", "1", "2", "3"]
    finished = [event["data"]["call"] for event in await again.events(session) if event["type"] == "agentos.syscall.finished"]
    assert len(finished) == len(set(finished))


async def test_a_second_runtime_on_a_home_is_refused(house: House, door: Door) -> None:
    """It is told who owns the home, and the first goes on undisturbed."""
    with pytest.raises(Conflict, match=f"pid {os.getpid()}"):
        async with house.open():
            raise AssertionError("two runtimes own one home")
    assert (await door("runtime.status"))["revision"] == 0


async def test_a_runtime_tells_what_its_guarantees_rest_on(door: Door) -> None:
    """The embedded server syncs each event, real OPA decides, the read model is at the end of the log."""
    status = await door("runtime.status")
    assert status["sync"] == "always"
    assert status["policy"].startswith("opa ")
    assert (status["read_model_behind"], status["warnings"], status["sessions_running"]) == (0, [], 0)
    assert status["url"].startswith("nats://127.0.0.1:")


async def test_closing_leaves_no_process_and_no_announcement(house: House) -> None:
    """The server is gone with the runtime; what remains is the home."""
    async with house.open() as door:
        pid = int((house.root / "nats" / "nats.pid").read_text())
        assert json.loads((house.root / "run" / "endpoint.json").read_text())["url"] == door.runtime.url
    assert not (house.root / "run" / "endpoint.json").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
