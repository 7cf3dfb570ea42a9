"""Sessions of the batch class whose model takes batches, as an operator sees them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_batches import Batch, BatchServer
from e2e_runtime import Cli

from agentos.control.client import find_identity, find_server, open_client

KEY = {"AGENTOS_MODEL_TEST": "sk-test"}

MANIFESTS = """
apiVersion: agentos/v1
kind: Model
metadata: {{name: claude}}
spec:
  provider: anthropic
  anthropic: {{model: m, baseUrl: "{url}", apiKeyEnv: AGENTOS_MODEL_TEST}}
  limits: {{concurrency: 1}}
  price: {{inputPerMillion: "2.00", outputPerMillion: "10.00", batchPercent: 50}}
  batch: {{windowSeconds: {window}, most: {most}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {{name: nightly}}
spec:
  instructions: Sort.
  model: claude
  priorityClass: batch
  budget: {{tokens: 100000, seconds: 1}}
  governance: {{owner: tests, purpose: testing, risk: minimal}}
"""


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer() as made:
        yield made


def declare(cli: Cli, server: BatchServer, folder: Path, *, window: int, most: int) -> None:
    manifest = folder / "nightly.yaml"
    manifest.write_text(MANIFESTS.format(url=server.url, window=window, most=most))
    cli("apply", "-f", str(manifest), "--yes", "--allow-widen")


def until(holds: Callable[[], Any]) -> Any:
    for _ in range(600):
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError("never came to be")


def call(cli: Cli, *asked: tuple[str, dict[str, Any]]) -> list[Any]:
    """The answers of the runtime to verbs, asked at once and without a process for each."""

    async def ask() -> list[Any]:
        client = await open_client(find_server(cli.home, None), find_identity(cli.home, None, None))
        try:
            return await asyncio.gather(*(client.call(verb, params) for verb, params in asked))
        finally:
            await client.close()

    return asyncio.run(ask())


def started(cli: Cli, *goals: str) -> list[str]:
    answers = call(cli, *(("session.create", {"agent": "nightly", "goal": goal}) for goal in goals))
    return [str(answer["session"]) for answer in answers]


def results(cli: Cli, sessions: list[str]) -> list[Any]:
    """The results of sessions, once all are over."""

    def look() -> list[Any]:
        found = call(cli, *(("session.get", {"session": session}) for session in sessions))
        return [] if any(one["state"] == "running" for one in found) else [one.get("result") for one in found]

    return list(until(look))


def events(cli: Cli, session: str) -> list[dict[str, Any]]:
    return list(cli("logs", session, "-o", "json").json)


def test_twenty_sessions_are_one_batch(cli: Cli, server: BatchServer, tmp_path: Path) -> None:
    """They wait for the provider without a process each, all finish, and pay half the price and no time."""
    cli("up", "--detach", more=KEY)
    declare(cli, server, tmp_path, window=600, most=20)
    sessions = started(cli, *(f"work {number}" for number in range(20)))
    [batch] = until(lambda: server.batches)
    assert len(batch.requests) == 20
    [shown] = [one for one in cli("top", "--once", "-o", "json").json["endpoints"] if one["kind"] == "batch"]
    assert (shown["name"], len(shown["running"])) == ("default/claude", 20)
    until(
        lambda: all(
            one["running"] == [] for one in cli("top", "--once", "-o", "json").json["endpoints"] if one["kind"] == "harness"
        )
    )
    server.end(batch)
    assert results(cli, sessions) == [f"did work {number}" for number in range(len(sessions))]
    assert (len(server.batches), server.single) == (1, [])
    told = events(cli, sessions[0])
    assert [one["data"]["admitted"]["endpoint"] for one in told if one["type"] == "agentos.syscall.decided"] == [
        "batch/default/claude"
    ]
    # 7 tokens at 1 dollar a million and 2 at 5; the seconds that it waited are not spent.
    [spent] = [one["data"]["spent"] for one in told if one["type"] == "agentos.syscall.finished"]
    assert spent == {"tokens": 9, "microdollars": 17}


@pytest.mark.parametrize("mute", [False, True])
def test_a_batch_is_waited_for_by_the_next_runtime(cli: Cli, server: BatchServer, tmp_path: Path, mute: bool) -> None:
    """The runtime is killed once the batch is under way, and (`mute`) before it has heard so: the next one finds it, and submits
    nothing twice.
    """
    server.mute = mute
    cli("up", "--detach", more=KEY)
    declare(cli, server, tmp_path, window=600, most=5)
    sessions = started(cli, *(f"work {number}" for number in range(5)))
    [batch] = until(lambda: server.batches)
    os.kill(cli.runtime_pid(), signal.SIGKILL)
    cli("up", "--detach", more=KEY)
    server.end(batch)
    assert results(cli, sessions) == [f"did work {number}" for number in range(len(sessions))]
    assert (len(server.batches), server.single) == (1, [])


def test_a_cancelled_session_is_not_submitted(cli: Cli, server: BatchServer, tmp_path: Path) -> None:
    """And a batch that nobody waits for any more is cancelled at the provider."""
    cli("up", "--detach", more=KEY)
    declare(cli, server, tmp_path, window=600, most=3)
    gone = cli("run", "nightly", "gone").out.strip()
    until(
        lambda: [one for one in cli("top", "--once", "-o", "json").json["endpoints"] if one["kind"] == "batch" and one["running"]]
    )
    cli("cancel", gone, "--reason", "not needed")
    until(lambda: call(cli, ("session.get", {"session": gone}))[0]["state"] == "cancelled")
    stays = [cli("run", "nightly", goal).out.strip() for goal in ("one", "two", "three")]
    batch: Batch = until(lambda: server.batches)[0]
    assert sorted(one["params"]["messages"][0]["content"][0]["text"] for one in batch.requests) == ["one", "three", "two"]
    for session in stays:
        cli("cancel", session, "--reason", "not needed either")
    until(lambda: batch.cancelled)
