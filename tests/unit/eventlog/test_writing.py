"""What a writer makes of the answers of a server that says rare things: scripted answers, and an empty stream behind them."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from agentos.abi.errors import LogUnavailable, SequenceConflict
from agentos.eventlog import Message, Stored
from agentos.eventlog.adapters.append_wire import Append
from agentos.eventlog.adapters.stream_reading import Page, Tries
from agentos.eventlog.adapters.writing import Writer


class Client:
    """Answers each publish with the next answer of the script; a number is an error code, None an acknowledgement."""

    is_connected, is_closed = True, False

    def __init__(self, script: list[Any]) -> None:
        self.script = script
        self.sent: list[str] = []
        self.seq = 0

    async def _send_command(self, command: bytes) -> None:
        return

    async def request(self, subject: str, data: bytes, *, timeout: float, headers: dict[str, str]) -> Any:
        count = int(headers.get("Nats-Batch-Sequence", "0"))
        self.sent.append(f"batch of {count}" if count else "publish")
        answer = self.script.pop(0) if self.script else None
        if isinstance(answer, int):
            return SimpleNamespace(data=json.dumps({"error": {"err_code": answer, "description": "said so"}}).encode())
        self.seq += max(count, 1)
        body = {"seq": self.seq}
        if count:
            body |= {"batch": headers["Nats-Batch-Id"], "count": count}
        return SimpleNamespace(data=json.dumps(body | (answer or {})).encode())


class Link:
    """A stream in which nothing is stored except what `stored` says: last position and ids by subject."""

    generation = 0

    def __init__(self, client: Client, patience: float) -> None:
        self.client = client
        self.patience = patience
        self.stored: dict[str, tuple[int, tuple[str, ...]]] = {}
        self.atomic: Any = True

    def tries(self, where: str, *, since: float | None = None) -> Tries:
        return Tries(self.client, asyncio.get_running_loop().time() + self.patience, where)  # type: ignore[arg-type]

    async def api(self, name: str, body: dict[str, Any], *, since: float | None = None) -> dict[str, Any]:
        return {"config": {"allow_atomic": self.atomic} if self.atomic is not None else {}}

    async def lasts(self, stream: str, subjects: list[str]) -> dict[str, int]:
        return {subject: last for subject, (last, _) in self.stored.items()}

    async def last(self, stream: str, subject: str) -> Stored | None:
        return Stored(subject, self.stored[subject][0], b"") if subject in self.stored else None

    async def page(self, stream: str, subject: str, after: int, *, batch: int) -> Page:
        last, ids = self.stored[subject]
        first = last - len(ids) + 1
        return Page(tuple(Stored(subject, first + number, b"") for number in range(len(ids))), ids)


class Bench:
    """A writer, what it is to write, and what it made of it."""

    def __init__(self, *script: Any, patience: float = 5.0) -> None:
        self.client = Client(list(script))
        self.link = Link(self.client, patience)
        self.outcomes: dict[str, Any] = {}
        self.writer = Writer(self.link, "EV_0", self.settle)  # type: ignore[arg-type]

    def settle(self, append: Append, outcome: Any) -> None:
        self.outcomes.setdefault(append.subject, outcome)

    def append(self, name: str, count: int = 1) -> Append:
        messages = [Message(f"{name}-{number}", b"") for number in range(count)]
        ids = [message.id for message in messages]
        return Append(f"ev.0.{name}", messages, ids, 0, 0.0, asyncio.get_running_loop().create_future(), count)

    async def together(self, count: int) -> list[Any]:
        appends = [self.append(f"s-{number}") for number in range(count)]
        await self.writer.learn()
        await self.writer.together(appends)
        return [self.outcomes[append.subject] for append in appends]


async def test_a_batch_that_is_too_large_for_the_server_is_gone_around():
    """The appends go one by one, and later batches are smaller; an append that is too large itself goes message by message."""
    bench = Bench(10199)
    assert await bench.together(4) == [1, 2, 3, 4]
    assert bench.client.sent == ["batch of 4", *["publish"] * 4]
    assert bench.writer.most == 500
    bench = Bench(10199)
    await bench.writer.alone(bench.append("s", 3))
    assert bench.client.sent == ["batch of 3", *["publish"] * 3]
    assert bench.outcomes == {"ev.0.s": 3}


@pytest.mark.parametrize("code", [10158, 10167, 10176, 10210])
async def test_what_may_succeed_in_a_moment_is_tried_again(code):
    """A torn batch, too many of them, or a busy stream is no failure."""
    bench = Bench(code, code)
    await bench.writer.alone(bench.append("s", 3))
    assert bench.client.sent == ["batch of 3"] * 3
    assert bench.outcomes == {"ev.0.s": 3}
    bench = Bench(code, code)
    assert sorted(await bench.together(2)) == [1, 2]
    assert bench.client.sent == ["batch of 2", *["publish"] * 3]


async def test_it_is_tried_for_as_long_as_the_patience_lasts():
    """Then the caller is told what the server said."""
    bench = Bench(*[10210] * 1000, patience=0.05)
    await bench.writer.alone(bench.append("s", 2))
    error = bench.outcomes["ev.0.s"]
    assert isinstance(error, LogUnavailable)
    assert "said so" in str(error.__cause__)


@pytest.mark.parametrize("code", [10002, 10023, 10028, 10047, 10077])
async def test_no_room_is_told_to_everybody_about_its_own_subject(code):
    """Nobody's append is tried again."""
    bench = Bench(code)
    outcomes = await bench.together(3)
    assert bench.client.sent == ["batch of 3"]
    assert [(outcome.where, outcome.message) for outcome in outcomes] == [
        (f"ev.0.s-{number}", "the event log has no space left: said so") for number in range(3)
    ]


async def test_another_refusal_is_told_to_whom_it_concerns():
    """A refusal that may be about one message only does not take the others along."""
    bench = Bench(10054, None, 10054)
    first, second, third = await bench.together(3)
    assert (first, third) == (1, 2)
    assert isinstance(second, LogUnavailable)
    assert second.where == "ev.0.s-1"


async def test_an_acknowledgement_of_something_else_proves_nothing():
    """A server that acknowledges the last message only has not taken the batch: the subjects are asked."""
    bench = Bench({"batch": "", "count": 0})
    bench.link.stored["ev.0.s-0"] = (41, ("s-0-0",))
    bench.link.stored["ev.0.s-1"] = (42, ("s-1-0",))
    assert await bench.together(2) == [41, 42]


async def test_the_beginning_of_an_unanswered_batch_counts_once_something_later_does():
    """Seen but not answered: it is told as stored if the rest then is, and as unknown if the rest then is not."""
    for refusal in (None, 10023):
        bench = Bench({"batch": "", "count": 0}, refusal)
        bench.link.stored["ev.0.s-0"] = (1, ("s-0-0",))
        first, second = await bench.together(2)
        assert bench.client.sent == ["batch of 2", "batch of 1"]
        assert isinstance(first, int) == isinstance(second, int) == (refusal is None)
        assert all(isinstance(outcome, LogUnavailable) for outcome in (first, second) if refusal)


async def test_a_server_that_does_not_know_of_batches_gets_none():
    """A stream without the field is written message by message; somebody in between is told as what it is."""
    bench = Bench(None, 10071)
    bench.link.atomic = None
    bench.link.stored["ev.0.s"] = (2, ("s-0", "theirs"))
    await bench.writer.alone(bench.append("s", 3))
    assert bench.client.sent == ["publish"] * 2
    error = bench.outcomes["ev.0.s"]
    assert isinstance(error, LogUnavailable)
    assert "another writer came between" in error.message


async def test_a_refused_batch_in_which_nobody_moved_is_settled_one_by_one():
    """An id that is stored under another subject cannot be found by looking at the subjects."""
    bench = Bench(10201, None, {"duplicate": True})
    first, second = await bench.together(2)
    assert first == 1
    assert isinstance(second, SequenceConflict)
    assert bench.client.sent == ["batch of 2", "publish", "publish"]
