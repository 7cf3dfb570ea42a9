"""The read models of a million events: how fast they are written, what they weigh, how fast `audit query` and a search answer.

    python -m benchmarks.query [EVENTS]

The events are made up as the kernel writes them and handed to the read models in batches of 500, as the projector does. The floor
of writing is a bare `executemany` of the same rows into the same tables with the same indexes, in as many transactions.
"""

from __future__ import annotations

import random
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from agentos.abi import event as ev
from agentos.abi.attributes import attributes_of, session_attributes, trace_of
from agentos.abi.canonical import digest_of
from agentos.abi.chain import Head
from agentos.abi.event import Event
from agentos.abi.record import SALT_BYTES
from agentos.abi.syscall import MODEL_CALL
from agentos.audit.query import AuditQuery, ask
from agentos.eventlog.port import Stored
from agentos.eventlog.subject import session_subject, stream_of
from agentos.projections import read, sqlite_file
from agentos.projections.projector import BATCH
from agentos.projections.read_model import ReadModel
from agentos.projections.search import Search, search
from agentos.projections.store import Store
from agentos.projections.text_store import TextStore
from benchmarks.measure import Figure, figure

EVENTS: Final = 1_000_000
TURNS: Final = 4
ROUNDS: Final = 60
START_MS: Final = 1_795_000_000_000
POLICY: Final = "sha256:" + "ab" * 32
AGENTS: Final = ("common",) * 80 + ("usual",) * 19 + ("rare",)
TOOLS: Final = ("write",) * 60 + ("read",) * 30 + ("search",) * 9
WORDS: Final = [f"word{number}" for number in range(20_000)]
SALT: Final = bytes(SALT_BYTES)

QUESTIONS: Final = {
    "no filter": {},
    "agent": {"agent": "common"},
    "agent + tool": {"agent": "common", "tool": "write"},
    "agent + tool + effect + time": {"agent": "common", "tool": "write", "effect": "deny", "since": "since", "until": "until"},
    "common agent, rare tool": {"agent": "common", "tool": "launch"},
    "common agent, common tool, never together": {"agent": "usual", "tool": "search", "effect": "allow"},
    "common agent and tool, rare effect": {"agent": "common", "tool": "write", "effect": "halt"},
    "common agent, rare tool, effect, all time": {"agent": "common", "tool": "launch", "effect": "deny"},
    "rare agent": {"agent": "rare", "effect": "deny"},
    "asked, common agent": {"agent": "common", "effect": "ask"},
    "rule": {"rule": "grants.none"},
    "actor": {"actor": "principal/p7"},
    "actor + common tool": {"actor": "principal/p7", "tool": "read"},
    "session": {"session": "s-100"},
}


class Writer:
    """Makes up sessions, one after the other."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a load, not a secret
        self._positions: dict[str, int] = {}

    def session(self, number: int) -> Iterator[tuple[str, Stored]]:
        """A session of 4 calls of the model and as many of tools: 18 events, one more where a person is asked."""
        dice, name, agent = self._random, f"s-{number}", self._random.choice(AGENTS)
        subject, head, now = session_subject(name), Head.empty(), START_MS + number * 1000
        stream, told = stream_of(subject), {}

        def event(kind: str, data: dict, actor: str = "system/kernel") -> tuple[str, Stored]:
            nonlocal head, now, told
            now += 40
            told = told or session_attributes(actor, data)
            said = told | attributes_of(kind, data) | {"traceparent": trace_of(name, POLICY[7:])}
            made = Event(f"{name}-{head.seq}", kind, "default", name, head.seq + 1, head.hash, now, actor, 1, POLICY, data, said)
            record = made.to_record(SALT)
            head = made.head(record)
            position = self._positions[stream] = self._positions.get(stream, 0) + 1
            return stream, Stored(subject, position, record)

        def decided(call: str, tool: str, verdict: str, rule: str, args: dict) -> tuple[str, Stored]:
            decision = {"effect": verdict, "rules": [rule], "reasons": [f"because of {rule}"]}
            data = {"call": call, "tool": tool, "effect": "write", "args": args, "args_digest": digest_of(args), "turn": 1}
            return event(ev.SYSCALL_DECIDED, data | {"decision": decision}, f"agent/{agent}")

        yield event(ev.SESSION_CREATED, {"agent": agent, "goal": self._text(12), "inputs": []}, f"principal/p{number % 50}")
        for turn in range(TURNS):
            call = f"model-{turn}"
            yield decided(call, MODEL_CALL, "allow", "grants.model", {"model": "m", "input_digest": POLICY})
            said = {"content": [{"type": "text", "text": self._text(30)}], "input_tokens": 900, "output_tokens": 40}
            yield event(ev.SYSCALL_FINISHED, self._result(call, MODEL_CALL, "") | {"result": self._said(said)})
            call, tool = f"c-{turn}", self._tool(agent)
            args = {"path": f"out/{number}-{turn}.txt", "content": self._text(40)}
            luck = dice.random()
            if luck < 0.1:
                yield decided(call, tool, "deny", "grants.none", args)
                continue
            if luck < 0.0101 + 0.1:
                yield decided(call, tool, "ask", "eyes.two", args)
                expires = now + 86_400_000
                yield event(
                    ev.SESSION_WAITING, {"call": call, "args_digest": POLICY, "expires": expires, "needed": 1, "given": 0}
                )
                yes = {"call": call, "args_digest": POLICY, "reason": self._text(5), "decided": head.seq - 1, "expires": expires}
                yield event(ev.APPROVAL_GRANTED, yes | {"scope": "once", "decision": {"rules": []}}, f"principal/a{number % 9}")
            yield decided(call, tool, "allow", "grants.allowed", args)
            yield event(ev.SYSCALL_FINISHED, self._result(call, tool, self._text(20)))
        yield event(ev.SESSION_FINISHED, {"result": self._text(10)})

    def _tool(self, agent: str) -> str:
        if self._random.random() < 0.0002:
            return "launch"
        tool = self._random.choice(TOOLS)
        return "read" if (agent, tool) == ("usual", "search") else tool

    def _said(self, data: dict) -> dict:
        return {"content": "", "is_error": False, "data": data}

    def _result(self, call: str, tool: str, content: str) -> dict:
        result = {"content": content, "is_error": False}
        return {"call": call, "tool": tool, "result": result, "duration_us": 900}

    def _text(self, count: int) -> str:
        # Some words are common, most are rare, as in any language.
        return " ".join(WORDS[int(len(WORDS) * self._random.random() ** 3)] for _ in range(count))


def run(folder: Path, events: int = EVENTS) -> list[str]:
    """Measure; the section for the report."""
    folder.mkdir(parents=True, exist_ok=True)
    index, text = (
        Store.open(folder / "default.db", tenant="default"),
        TextStore.open(folder / "default.text.db", tenant="default"),
    )
    spent, sessions = _fill((index, text), events)
    floors = [_floor(model, folder / f"floor-{number}.db", events) for number, model in enumerate((index, text))]
    checks = [_seconds(model.check) for model in (index, text)]
    weights = [sum(path.stat().st_size for path in folder.glob(f"{model.path.name}*")) / 2**20 for model in (index, text)]
    lines = [f"{events:,} events of {sessions:,} sessions, {_calls(index):,} calls.", ""]
    lines += [
        "| read model | events/s | to a bare insert of its rows | MiB | read whole, s |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, took, floor, weight, check in zip(("index", "text"), spent, floors, weights, checks, strict=True):
        lines.append(f"| {name} | {events / took:,.0f} | {floor / took:.2f} | {weight:,.0f} | {check:.1f} |")
    lines += [
        "",
        "| question, newest 1,000 rows | rows | p50 ms | p99 ms | p50 ms with the words |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    last = START_MS + sessions * 1000
    for name, given in QUESTIONS.items():
        times = {"since": last - (last - START_MS) * 2 // 3, "until": last - (last - START_MS) // 3}
        filters = {key: value for key, value in given.items() if key not in times}
        query = AuditQuery(**filters, **{f"{key}_ms": times[key] for key in times if key in given})
        rows = len(ask(index, query).rows)
        bare, worded = _times(lambda query=query: ask(index, query)), _times(lambda query=query: ask(index, query, text))
        lines.append(f"| {name} | {rows} | {bare.p50 / 1000:.1f} | {bare.p99 / 1000:.1f} | {worded.p50 / 1000:.1f} |")
    lines += ["", "| search, newest 20 hits | hits | p50 ms | p99 ms |", "| --- | ---: | ---: | ---: |"]
    for name, wanted in {
        "a common word": Search(("word0",)),
        "a rare word": Search(("word19999",)),
        "two common words": Search(("word0", "word1")),
        "a common word, rare agent": Search(("word0",), agent="rare"),
        "a common word, one session": Search(("word0",), session="s-100"),
    }.items():
        hits, took = len(search(index, text, wanted).rows), _times(lambda wanted=wanted: search(index, text, wanted))
        lines.append(f"| {name} | {hits} | {took.p50 / 1000:.1f} | {took.p99 / 1000:.1f} |")
    listed = _times(lambda: read.sessions(index, text, limit=100))
    lines += ["", f"`ps --all`, 100 sessions: {listed.p50 / 1000:.1f} ms."]
    lines += ["", f"The process used {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB at most."]
    index.close()
    text.close()
    return lines


def _fill(models: tuple[ReadModel, ...], events: int) -> tuple[list[float], int]:
    """Write that many events; the seconds that each model took, and how many sessions they are."""
    writer, batch, number, spent, done = Writer(1), [], 0, [0.0] * len(models), 0
    while done < events:
        for one in writer.session(number):
            batch.append(one)
            if len(batch) == BATCH:
                for place, model in enumerate(models):
                    spent[place] += _seconds(lambda model=model, batch=batch: model.apply(batch))
                done, batch = done + len(batch), []
        number += 1
    return spent, number


def _floor(model: ReadModel, path: Path, events: int) -> float:
    """Seconds that a bare insert of the model's rows takes, into the same tables, in as many transactions."""
    rows = {}
    with model.reader() as source:
        source.row_factory = None
        for table in model.tables:
            names = ", ".join(f'"{column}"' for column in (*table.columns, "crc"))
            # As they came: what lies in the order of its key would be written behind the last row each time.
            ordered = " ORDER BY started_ms" if "started_ms" in table.columns else ""
            rows[table.name] = source.execute(f"SELECT {names} FROM {table.name}{ordered}").fetchall()  # noqa: S608 - constants
        if "texts" in rows:
            rows["found"] = [(row[2], row[7]) for row in rows["texts"]]
    connection = sqlite_file.connect(path, model.layout, "default")
    turns = max(1, events // BATCH)
    took = 0.0
    for turn in range(turns):
        started = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        for name, all_rows in rows.items():
            part = all_rows[len(all_rows) * turn // turns : len(all_rows) * (turn + 1) // turns]
            if part:
                columns = " (rowid, words)" if name == "found" else ""
                connection.executemany(f"INSERT INTO {name}{columns} VALUES ({', '.join('?' * len(part[0]))})", part)  # noqa: S608 - constants
        connection.commit()
        took += time.perf_counter() - started
    connection.close()
    sqlite_file.unlink(path)
    return took


def _calls(index: ReadModel) -> int:
    with index.reader() as connection:
        return int(connection.execute("SELECT count(*) FROM syscalls").fetchone()[0])


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _times(work: Callable[[], object]) -> Figure:
    return figure("", [_seconds(work) * 1_000_000 for _ in range(ROUNDS)])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="agentos-bench-") as scratch:
        print(f"SQLite {sqlite3.sqlite_version}")
        print("\n".join(run(Path(scratch) / "query", int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS)))
