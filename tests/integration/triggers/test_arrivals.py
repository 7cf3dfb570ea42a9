"""Files that come into shared spaces, on a real file system."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from trigger_engine import Engine

from agentos.abi.canonical import digest
from agentos.abi.errors import LogUnavailable
from agentos.boot import arrivals
from agentos.boot.arrivals import Arrivals
from agentos.boot.system import SystemTimer
from agentos.drivers.adapters import space_watch
from agentos.drivers.adapters.space_arrivals import SqliteArrivals
from agentos.drivers.adapters.space_labels import SqliteSpaceLabels
from agentos.drivers.port import CallContext
from agentos.drivers.spaces import Spaces
from agentos.files.guard import Guard
from agentos.kernel.firing import Arrival
from agentos.supervisor import arriving


class Place:
    """A home with spaces; `watching` is a runtime that watches them."""

    def __init__(self, root: Path) -> None:
        self.labels = SqliteSpaceLabels(root)
        self.spaces = Spaces(root, self.labels, SystemTimer())
        self.inbox = self.spaces.folder("default", "inbox")

    def watched(self) -> int:
        return int(self.labels.on("default", lambda db: db.execute("SELECT count(*) FROM watched").fetchone()[0]))

    @asynccontextmanager
    async def watching(self, engine: Engine) -> AsyncIterator[None]:
        task = asyncio.create_task(
            Arrivals(engine, self.spaces, SqliteArrivals(self.labels), SystemTimer()).run()  # type: ignore[arg-type]
        )
        try:
            async with asyncio.timeout(20):
                while self.watched() < len(engine.on):
                    await asyncio.sleep(0.01)
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(arriving, "STILL_US", 100_000)
    monkeypatch.setattr(arrivals, "SOON_S", 0.05)
    return Place(tmp_path / "spaces")


async def test_a_file_comes(place: Place) -> None:
    """A file that comes fires the triggers whose pattern means it, with content and labels; what was there before does not."""
    (place.inbox / "old.csv").write_text("old")
    engine = Engine(csv=Arrival("inbox", "**/*.csv"), all=Arrival("inbox", "**"), other=Arrival("other", "**"))
    async with place.watching(engine):
        (place.inbox / "sub").mkdir()
        (place.inbox / "sub" / "new.csv").write_bytes(b"1;2")
        await engine.until(2)
        ours = CallContext("default", "s-1", "call-1-1", Path("/nowhere"), labels=("private",))
        place.spaces.perform("write", "inbox", {"path": "ours.txt", "content": "x"}, ours, Guard())
        await engine.until(3)
    assert [one.trigger for one in engine.fired][2] == "all"
    first, second, third = engine.fired
    assert {first.trigger, second.trigger} == {"csv", "all"}
    assert (first.payload, first.labels) == (b"1;2", ("untrusted",))
    assert first.facts == {"space": "inbox", "path": "sub/new.csv", "digest": digest(b"1;2"), "carried": True}
    assert (third.facts["path"], third.labels) == ("ours.txt", ("private",))


async def test_while_nobody_was_there(place: Place) -> None:
    """What came while no runtime was there fires once, at the next start; what was told is not told again."""
    engine = Engine(all=Arrival("inbox", "*"))
    async with place.watching(engine):
        (place.inbox / "a").write_text("1")
        await engine.until(1)
    (place.inbox / "b").write_text("2")
    async with place.watching(engine):
        await engine.until(2)
    async with place.watching(engine):
        (place.inbox / "c").write_text("3")
        await engine.until(3)
    assert [one.facts["path"] for one in engine.fired] == ["a", "b", "c"]


async def test_content_counts(place: Place) -> None:
    """A file that is touched, or written again with what it held, is no news; another content is."""
    engine = Engine(all=Arrival("inbox", "*"))
    async with place.watching(engine):
        (place.inbox / "a").write_text("1")
        await engine.until(1)
        (place.inbox / "a").write_text("1")
        (place.inbox / "a").touch()
        (place.inbox / "b").write_text("barrier")
        await engine.until(2)
        (place.inbox / "a").write_text("2")
        await engine.until(3)
    assert [(one.facts["path"], one.payload) for one in engine.fired] == [("a", b"1"), ("b", b"barrier"), ("a", b"2")]


async def test_told_again_until_it_is_durable(place: Place) -> None:
    """A file whose firing was not durable is told again, here and after a restart."""
    engine = Engine(all=Arrival("inbox", "*"))
    engine.broken = LogUnavailable("the log does not answer")
    async with place.watching(engine):
        (place.inbox / "a").write_text("1")
        async with asyncio.timeout(20):
            while not engine.tries:
                await asyncio.sleep(0.01)
    assert engine.fired == []
    engine.broken = None
    async with place.watching(engine):
        await engine.until(1)


async def test_links_and_large_files(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link is no arrival, wherever it leads; of a large file only the digest is told."""
    monkeypatch.setattr(space_watch, "MAX_CARRIED", 10)
    (tmp_path / "secret").write_text("secret")
    engine = Engine(all=Arrival("inbox", "**"))
    async with place.watching(engine):
        (place.inbox / "link").symlink_to(tmp_path / "secret")
        (place.inbox / "folder").symlink_to(tmp_path)
        (place.inbox / "large").write_bytes(b"x" * 11)
        await engine.until(1)
    (only,) = engine.fired
    assert (only.facts["path"], only.payload, only.facts["digest"]) == ("large", None, digest(b"x" * 11))


async def test_a_new_declaration(place: Place) -> None:
    """A trigger that is declared anew is told of nothing that came while it was not declared."""
    engine = Engine(all=Arrival("inbox", "*"))
    async with place.watching(engine):
        engine.on = {}
        for tell in engine.changed:
            tell()
        async with asyncio.timeout(20):
            while place.watched():
                await asyncio.sleep(0.01)
    (place.inbox / "between").write_text("1")
    engine.on = {"all": Arrival("inbox", "*")}
    async with place.watching(engine):
        (place.inbox / "after").write_text("1")
        await engine.until(1)
    assert [one.facts["path"] for one in engine.fired] == ["after"]
