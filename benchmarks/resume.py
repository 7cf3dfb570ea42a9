"""What it takes to go on with a long session: read it from the server, open its payloads, check its chain, fold it; or read its
snapshot and what came then.

    python -m benchmarks.resume [EVENTS]

The session is made of calls of a model and of two tools each, about 1.4 kB per event, on a server that syncs before it
acknowledges.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentos.abi import event as ev
from agentos.abi.attributes import attributes_of, trace_of
from agentos.abi.canonical import digest_of
from agentos.abi.chain import Head, follow
from agentos.abi.event import Event
from agentos.boot.backend import Embedded
from agentos.boot.system import SystemRandom, SystemTimer
from agentos.eventlog.adapters.jetstream import JetStreamLog
from agentos.eventlog.adapters.keystore import SqliteKeyStore
from agentos.eventlog.adapters.snapshot_file import SnapshotFiles
from agentos.eventlog.blob import LogBlobs
from agentos.eventlog.port import EventLog, Message
from agentos.eventlog.sealed import SealedLog
from agentos.eventlog.subject import session_subject
from agentos.kernel.journal import Journal
from agentos.kernel.snapshot import Snapshots
from agentos.projections.session import fold, fold_all

EVENTS = 10_000
AT_ONCE = 500
SESSION = "s-1hf7yat01v514x4zmty"
RUNS = 5
LAST = 200
TAIL = 100

DECISION = {"effect": "allow", "rules": ["grants.allow"], "reasons": ["a grant covers it"], "grants": ["sha256:" + "b" * 64]}
POLICY = {"engine": "opa 1.20.2 (in process)", "data": "sha256:" + "c" * 64}


def records(count: int) -> list[bytes]:
    """The first `count` records of a session that goes on."""
    random, head, made = SystemRandom(), Head.empty(), list[bytes]()

    def add(kind: str, data: dict[str, Any]) -> None:
        nonlocal head
        name = random.token(16).hex()
        attributes = {"agent": "worker", "onbehalfof": "principal/op"} | attributes_of(kind, data)
        attributes |= {"traceparent": trace_of(SESSION, name)}
        seq, time_ms = head.seq + 1, 1_700_000_000_000 + head.seq
        event = Event(
            name, kind, "default", SESSION, seq, head.hash, time_ms, "system/kernel", 1, "sha256:" + "a" * 64, data, attributes
        )
        made.append(event.to_record(random.token(16)))
        head = event.head(made[-1])

    def call(name: str, tool: str, args: dict[str, Any], result: dict[str, Any], turn: int) -> None:
        agent = {"name": "worker", "labels": {"team": "desk"}}
        decided = {"call": name, "tool": tool, "effect": "external", "args": args, "args_digest": digest_of(args)}
        decided |= {"decision": DECISION, "turn": turn, "agent": agent, "now": 1_700_000_000_000, "policy": POLICY}
        add(ev.SYSCALL_DECIDED, decided)
        add(ev.SYSCALL_FINISHED, {"call": name, "tool": tool, "duration_us": 812, "result": {"is_error": False, **result}})

    add(ev.SESSION_CREATED, {"agent": "worker", "goal": "sort the inbox", "inputs": []})
    turn = 0
    while len(made) < count:
        turn += 1
        uses = [(f"c-{turn}-{number}", {"path": f"input/mail-{turn}-{number}.md"}) for number in range(2)]
        content: list[dict[str, Any]] = [{"type": "text", "text": "I look at the next file."}]
        content += [{"type": "tool_use", "id": name, "name": "read", "input": args} for name, args in uses]
        reply = {"content": content, "stop_reason": "tool_use", "input_tokens": 900, "output_tokens": 40}
        call(f"model-{turn}", "model-call", {"model": "m", "input_digest": head.hash}, {"content": "", "data": reply}, turn)
        for name, args in uses:
            call(name, "read", args, {"content": "Dear team, the brake pads squeak. " * 6, "labels": ["untrusted"]}, turn)
    return made[:count]


async def run(folder: Path, count: int = EVENTS) -> list[str]:
    """Measure; return the lines of a table."""
    random, timer, stored = SystemRandom(), SystemTimer(), records(count)
    backend = Embedded(folder / "nats", folder / "keys", random, 0)
    await backend.start(("default",))
    try:
        bare = JetStreamLog(await backend.connect("default"))
        keys = SqliteKeyStore.open(folder / "payload.db", random)
        log = SealedLog(bare, keys, LogBlobs(bare), random)
        subject, position = session_subject(SESSION), 0
        for start in range(0, count, AT_ONCE):
            batch = [Message(f"m-{start + number}", data) for number, data in enumerate(stored[start : start + AT_ONCE])]
            position = await log.append(subject, batch, after=position)
        seconds = {
            "read": await _best(lambda: _read(bare, subject)),
            "read and opened": await _best(lambda: _read(log, subject)),
            "read, opened, checked and folded (`Journal.load`)": await _best(
                lambda: Journal.load(log, "default", SESSION, timer, random)
            ),
        }
        files = SnapshotFiles(folder / "snapshots", "default", keys, random)
        seconds |= await _snapshots(log, files, stored, position - TAIL)
        events = [Event.from_bytes(data) for data in stored]
        seconds["of that: checked"] = min(_timed(lambda: _checked(stored)) for _ in range(RUNS))
        seconds["of that: folded"] = min(_timed(lambda: fold_all(events)) for _ in range(RUNS))
        state, last = fold_all(events[:-LAST]), events[-LAST:]
        started = time.perf_counter()
        for event in last:
            state = fold(state, event)
        step = (time.perf_counter() - started) / LAST
        lines = ["| what | s |", "| --- | ---: |", *(f"| {name} | {value:.3f} |" for name, value in seconds.items())]
        size = (folder / "snapshots" / f"{SESSION}.state").stat().st_size
        lines.append(f"| one more event, at {len(state.calls):,} calls | {step:.6f} |")
        return [
            *lines,
            "",
            f"The snapshot has {size / 1024:,.0f} KiB, the {count:,} records {sum(map(len, stored)) / 1024:,.0f} KiB.",
        ]
    finally:
        await backend.stop()


async def _snapshots(log: EventLog, files: SnapshotFiles, stored: list[bytes], position: int) -> dict[str, float]:
    """Take one TAIL events before the end, where the log stands at `position`, and resume from it."""
    timer, random, snapshots = SystemTimer(), SystemRandom(), Snapshots(lambda _tenant: files)
    whole = await Journal.load(log, "default", SESSION, timer, random)
    events = [Event.from_bytes(data) for data in stored[:-TAIL]]
    head, state = events[-1].head(stored[-TAIL - 1]), fold_all(events)
    standing = replace(whole.standing(), head=head, position=position, state=state)

    async def take() -> None:
        snapshots.take(standing)
        await snapshots.close()

    async def resume() -> None:
        journal = await Journal.load(log, "default", SESSION, timer, random, snapshots)
        if journal.kept != standing.head.seq or journal.state != whole.state:
            raise RuntimeError("it was not resumed from its snapshot")

    made, held = await _best(take), await _held(take)
    return {
        "a snapshot taken, beside the session": made,
        "of that: the longest that it held the event loop": held,
        f"resumed from the snapshot and {TAIL} events": await _best(resume),
    }


async def _held(work: Any) -> float:
    """The longest time for which nothing else ran while `work` did."""
    longest, done = 0.0, False

    async def look() -> None:
        nonlocal longest
        while not done:
            started = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - started)

    looking = asyncio.create_task(look())
    await work()
    done = True
    await looking
    return longest


async def _best(work: Any) -> float:
    found = []
    for _ in range(RUNS):
        started = time.perf_counter()
        await work()
        found.append(time.perf_counter() - started)
    return min(found)


async def _read(log: EventLog, subject: str) -> None:
    coming: AsyncIterator[object] = log.read(subject)
    async for _ in coming:
        pass


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _checked(stored: list[bytes]) -> None:
    head = Head.empty()
    for data in stored:
        head, _ = follow(head, data, subject=SESSION)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="agentos-bench-") as scratch:
        wanted = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
        print("\n".join(asyncio.run(run(Path(scratch), wanted))))
