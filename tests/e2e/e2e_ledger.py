"""Sessions that write numbers into a ledger of another process, and what must hold of it whatever was killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from e2e_runtime import Cli

from agentos.cli.follow import pages
from agentos.control.client import Client, find_identity, find_server, open_client

T = TypeVar("T")

SERVER = Path(__file__).resolve().parents[1] / "assets" / "servers" / "plain_ledger.py"

MANIFEST = """
apiVersion: agentos/v1
kind: Model
metadata: {{name: counting}}
spec:
  provider: scripted
  scripted:
    play:
      name: counting
      rules:
        - id: count
          when: "results | length < {count}"
          call: [{{tool: note, args: {{number: "{{{{ results | length }}}}"}}}}]
        - id: done
          when: "true"
          say: "counted {{{{ results | ok | length }}}}"
---
apiVersion: agentos/v1
kind: Sandbox
metadata: {{name: books}}
spec:
  mounts: [{{path: {books}, at: /books, write: true}}, {{path: {servers}, at: /servers}}]
---
apiVersion: agentos/v1
kind: Tool
metadata: {{name: note}}
spec:
  description: Write a number down.
  effect: external
  sandbox: books
  inputSchema: {{type: object, properties: {{number: {{type: integer}}}}, required: [number]}}
  driver:
    mcp: {{server: {{command: {command}}}, tool: note{reconcile}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {{name: counter}}
spec:
  instructions: Count.
  model: counting
  tools: [note]
  governance: {{owner: tests, purpose: counting, risk: minimal}}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {{name: counting}}
spec: {{agents: [counter], tools: [note]}}
"""


@dataclass(frozen=True)
class Ledger:
    """A runtime's home with an agent `counter` that writes `count` numbers, and the file that they go to."""

    cli: Cli
    path: Path

    @classmethod
    def applied(
        cls, cli: Cli, folder: Path, *, count: int, milliseconds: int = 0, dies_at: int | None = None, reconcile: bool = False
    ) -> Ledger:
        """Declare it. The runtime must run. `milliseconds`: what a call takes; `dies_at`: the number at which its server dies."""
        books, manifest = folder / "books", folder / "counting.yaml"
        books.mkdir()
        books.chmod(0o777)  # each session is another user
        last = [] if dies_at is None else [str(dies_at)]
        words = [sys.executable, "-I", f"/servers/{SERVER.name}", "/books/ledger", str(milliseconds), *last]
        asks = ", reconcile: find" if reconcile else ""
        manifest.write_text(
            MANIFEST.format(
                count=count,
                command=json.dumps(words),
                reconcile=asks,
                books=json.dumps(str(books)),
                servers=json.dumps(str(SERVER.parent)),
            )
        )
        cli("apply", str(manifest), "--yes", "--allow-widen")
        return cls(cli, books / "ledger")

    def start(self) -> str | None:
        """Start a session; None when nobody answered."""
        done = self.cli("run", "counter", "count", expect=None)
        return done.out.strip() if done.code == 0 else None

    def start_many(self, number: int) -> int:
        """Start so many sessions at once; how many were answered for."""

        async def start(client: Client) -> int:
            asked = [client.call("session.create", {"agent": "counter", "goal": "count"}) for _ in range(number)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            return sum(1 for answer in answers if isinstance(answer, dict))

        return self._ask(start)

    def events(self, session: str) -> list[dict[str, Any]]:
        """The session's events."""

        async def read(client: Client) -> list[dict[str, Any]]:
            return [event async for page, _ in pages(client, session) for event in page]

        return self._ask(read)

    def _ask(self, what: Callable[[Client], Awaitable[T]]) -> T:
        """Without a process of its own for each question: there are hundreds."""

        async def ask() -> T:
            client = await open_client(find_server(self.cli.home, None), find_identity(self.cli.home, None, None))
            try:
                return await what(client)
            finally:
                await client.close()

        return asyncio.run(ask())

    def lines(self) -> list[str]:
        """The keys that were written, one for each time that a call took effect."""
        return [line.split()[0] for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def check(self, sessions: list[str]) -> Counter[str]:
        """Every session has ended well, nothing happened twice, what is told to have happened did; count the types of events.

        And the log proves itself.
        """
        keys = self.lines()
        twice = [key for key, number in Counter(keys).items() if number > 1]
        assert not twice, twice
        types: Counter[str] = Counter()
        for session in sessions:
            events = self.events(session)
            kinds = [str(event["type"]).removeprefix("agentos.") for event in events]
            types.update(kinds)
            assert kinds[-1] == "session.finished", (session, kinds[-3:])
            done = {
                f"{session}/{event['data']['call']}"
                for event, kind in zip(events, kinds, strict=True)
                if kind == "syscall.finished" and event["data"]["tool"] == "note"
            }
            assert done <= set(keys), done - set(keys)
        report = self.cli("audit", "verify", "-o", "json").json
        assert report["ok"], report
        return types
