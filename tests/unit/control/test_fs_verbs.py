"""The verbs about files: real versions below a real folder, a chain that says what it was told and when."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agentos.abi.canonical import Json, digest
from agentos.abi.errors import ChangedMeanwhile, DriverError, LogUnavailable, NotFound, OutcomeUnknown, UsageError
from agentos.audit.audit_chain import AuditRecord, Entry
from agentos.control import fs_verbs
from agentos.control.fs_verbs import MAX_WRITE, FsVerbs
from agentos.control.principal import Caller
from agentos.drivers.adapters.space_labels import SqliteSpaceLabels
from agentos.drivers.spaces import Spaces
from agentos.files.adapters import versions_sqlite
from agentos.files.adapters.versions_sqlite import SqliteVersions
from agentos.files.guard import Guard, Stopped
from agentos.files.versions import Author, NotKept, Place, VersionsUnavailable
from agentos.kernel.workspace import Workspaces

ANN = Caller("ann", ("operator",), "default", fleet=False)
EVE = Caller("eve", ("operator",), "other", fleet=False)
SESSION = Place("default", "session", "s-1")
BOARD = Place("default", "space", "board")


class Clock:
    """A clock that goes on by a second at each look."""

    now = 1_700_000_000_000

    def now_ms(self) -> int:
        self.now += 1000
        return self.now


class Chain:
    """An audit chain: what it was told, and what was in the workspace when it was."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.told: list[tuple[str, str, str, list[str]]] = []
        self.works = True

    async def append(
        self, decide: Callable[[AuditRecord], Awaitable[Sequence[Entry]]], *, actor: str, revision: int
    ) -> tuple[()]:
        if not self.works:
            raise LogUnavailable("no")
        assert revision == 7
        for _, data in await decide(cast("Any", None)):
            self.told.append((actor, str(data["place"]), str(data["op"]), sorted(path.name for path in self._folder.iterdir())))
        return ()


class House:
    """The verbs, with a session `s-1`, an erased one, and a space."""

    def __init__(self, top: Path) -> None:
        self.top, self.folder = top, top / "workspaces" / "default" / "s-1"
        self.folder.mkdir(parents=True)
        self.versions, self.chain, clock = SqliteVersions(top / "versions", Clock()), Chain(self.folder), Clock()
        self.labels = SqliteSpaceLabels(top / "labels")
        self.spaces = Spaces(top / "spaces", self.labels, clock, self.versions)
        self.verbs = FsVerbs(
            cast("Any", SimpleNamespace(state=self._state)),
            Workspaces(top / "workspaces"),
            self.spaces,
            self.versions,
            lambda _: cast("Any", self.chain),
            lambda _: 7,
            lambda tenant: frozenset({"board"}) if tenant == "default" else frozenset(),
            self.labels,
            clock,
        )

    @staticmethod
    async def _state(tenant: str, session: str) -> object:
        if tenant != "default" or session not in ("s-1", "s-erased"):
            raise NotFound(f"no session {session} in tenant {tenant}")
        return SimpleNamespace()

    def agent(self, path: str, content: str, call: str, place: Place = SESSION, session: str = "s-1") -> None:
        """A change that a call makes."""
        folder = self.folder if place is SESSION else self.spaces.folder("default", "board")
        self.versions.begin(place, folder, Guard())
        (folder / path).write_text(content)
        self.versions.capture(place, folder, Author("agent/x", session, call, (3, digest(b"e")), ("principal/bob",)), Guard())

    async def __call__(self, verb: str, place: str = "s-1", who: Caller = ANN, **params: Json) -> Any:
        return await self.verbs.handlers()[f"fs.{verb}"](who, {"place": place, **params})

    async def write(self, path: str, data: bytes, place: str = "s-1", **params: Json) -> Any:
        return await self("write", place, path=path, data=base64.b64encode(data).decode(), **params)

    async def read(self, **params: Json) -> bytes:
        return base64.b64decode((await self("read", **params))["data"])


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_a_file_is_written_once_and_replaced_by_name(house: House) -> None:
    """A new file needs no word, an old one its digest or `any`; the same bytes again are no change; what was there is kept."""
    first = await house.write("n/a.txt", b"one", reason="why not")
    assert first == {"path": "n/a.txt", "digest": digest(b"one"), "change": 1}
    assert await house.write("n/a.txt", b"one") == {"path": "n/a.txt", "digest": digest(b"one")}
    with pytest.raises(ChangedMeanwhile, match="is there already, since change 1 by principal/ann"):
        await house.write("n/a.txt", b"two")
    with pytest.raises(ChangedMeanwhile, match="another one") as refused:
        await house.write("n/a.txt", b"two", expected=digest(b"zero"))
    assert digest(b"one") in str(refused.value.mend)
    with pytest.raises(ChangedMeanwhile, match="there is no 'b' any more"):
        await house.write("b", b"two", expected=digest(b"one"))
    assert (house.folder / "n/a.txt").read_bytes() == b"one"
    assert (await house.write("n/a.txt", b"", expected=digest(b"one")))["change"] == 2
    assert (await house.write("n/a.txt", b"\0three", expected="any"))["change"] == 3
    assert [await house.read(path="n/a.txt", at=at) for at in (1, 2, 3)] == [b"one", b"", b"\0three"]
    [newest, *_] = (await house("log"))["changes"]
    assert newest["author"] == {"actor": "principal/ann"}
    assert (await house("log", path="n", before=2))["changes"][0]["author"] == {"actor": "principal/ann", "note": "why not"}


async def test_the_chain_is_told_before_anything_changes(house: House) -> None:
    """Who, where and what, while the workspace is as it was; without the chain nothing is changed; a dry run tells nobody."""
    house.agent("a", "1", "c-1")
    await house.write("b", b"2")
    await house("restore", path="a", at=0)
    await house("undo", dry_run=True)
    await house("undo")
    assert house.chain.told == [
        ("principal/ann", "session s-1", "write", ["a"]),
        ("principal/ann", "session s-1", "restore", ["a", "b"]),
        ("principal/ann", "session s-1", "undo", ["b"]),
    ]
    await house("undo")
    assert len(house.chain.told) == 3
    house.chain.works = False
    for verb, params in (("restore", {"path": "a", "at": 1}), ("undo", {"changes": [2]})):
        with pytest.raises(LogUnavailable):
            await house(verb, **params)
    with pytest.raises(LogUnavailable):
        await house.write("c", b"3")
    assert list(house.folder.iterdir()) == []


async def test_what_is_meant_by_undo(house: House) -> None:
    """All, some by number, or a call's; what is none of these is not found, and nothing is done."""
    house.agent("a", "1", "c-1")
    house.agent("b", "2", "c-2")
    assert await house("undo", dry_run=True) == {"undone": (2, 1)}
    assert await house("undo", call="c-2") == {"undone": (2,), "change": 3}
    assert await house("undo", call="s-1/c-1") == {"undone": (1,), "change": 4}
    assert list(house.folder.iterdir()) == []
    assert await house("undo") == {"undone": ()}
    for params in ({"changes": [9]}, {"changes": [0]}, {"call": "c-9"}, {"call": "s-2/c-1"}):
        with pytest.raises(NotFound):
            await house("undo", **cast("Any", params))
    for odd in (
        {"changes": []},
        {"changes": ["1"]},
        {"changes": [True]},
        {"changes": [-1]},
        {"changes": [1] * 1001},
        {"call": ""},
    ):
        with pytest.raises(UsageError):
            await house("undo", **cast("Any", odd))


async def test_undo_in_a_space_names_the_session(house: House) -> None:
    """Ids of calls are of their session: one alone could take back what another session did."""
    house.agent("a", "1", "c-1", BOARD, "s-1")
    house.agent("b", "2", "c-1", BOARD, "s-2")
    with pytest.raises(UsageError, match="others work in it too"):
        await house("undo", "space/board")
    with pytest.raises(UsageError, match="several sessions"):
        await house("undo", "space/board", call="c-1")
    assert (await house("undo", "space/board", call="s-1/c-1"))["undone"] == (1,)
    assert [path.name for path in house.spaces.folder("default", "board").iterdir()] == ["b"]


async def test_what_a_person_writes_into_a_space_carries_labels(house: House) -> None:
    """As it was said, for exactly these bytes; in a workspace labels are refused."""
    await house.write("a", b"1", "space/board", labels=["secret"])
    assert house.spaces.labels_of("default", "board", "a", digest(b"1")) == ("secret",)
    with pytest.raises(UsageError, match="files of spaces"):
        await house.write("a", b"1", labels=["secret"])


async def test_what_is_not_kept_is_not_lost_in_silence(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose content could not be kept is shown to nobody, and taken away only by who says so."""
    for module in ("agentos.files.capture.MAX_KEPT", "agentos.files.adapters.versions_sqlite.MAX_KEPT"):
        monkeypatch.setattr(module, 3)
    assert versions_sqlite.MAX_KEPT == 3
    house.agent("large", "12345", "c-1")
    with pytest.raises(NotKept, match="'large' was not kept"):
        await house("read", path="large")
    for verb, params in (("undo", {}), ("restore", {"path": "large", "at": 0})):
        with pytest.raises(NotKept, match="would be lost"):
            await house(verb, **cast("Any", params))
    assert (house.folder / "large").read_text() == "12345"
    assert (await house("undo", lose=True))["undone"] == (1,)
    with pytest.raises(NotKept, match=r"1 file \(large\) was not kept"):
        await house("undo", changes=[2])


async def test_a_write_that_cannot_be_recorded_is_told_as_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is there: saying that nothing was changed would be wrong."""
    await house("list")
    capture, calls = house.versions.capture, 0

    def failing(*args: Any, **more: Any) -> object:
        nonlocal calls
        calls += 1
        if more.get("paths") is not None:
            raise VersionsUnavailable("the disk is full")
        return capture(*args, **more)

    monkeypatch.setattr(house.versions, "capture", failing)
    with pytest.raises(OutcomeUnknown, match="written, and could not be recorded"):
        await house.write("a", b"1")
    assert (house.folder / "a").read_bytes() == b"1"


async def test_a_file_is_read_in_parts_that_belong_together(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its digest the rest is that of the file as it was when it was begun, whoever writes it meanwhile."""
    monkeypatch.setattr(fs_verbs, "MAX_PART", 4)
    (house.folder / "a").write_bytes(b"0123456789")
    first = await house("read", path="a")
    (house.folder / "a").write_bytes(b"abcdefghij")
    body = base64.b64decode(first["data"])
    while len(body) < first["bytes"]:
        part = await house("read", digest=first["digest"], offset=len(body))
        assert "path" not in part
        body += base64.b64decode(part["data"])
    assert body == b"0123456789"
    assert part["more"] is False
    assert (await house("read", path="a", offset=99))["data"] == ""
    with pytest.raises(NotKept):
        await house("read", digest=digest(b"never"))


async def test_lists_are_bounded_and_below_a_path(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in order, below a folder by its name and not by the beginning of one; more than the most is said."""
    for name in ("out/a", "out/b", "outer"):
        (house.folder / name).parent.mkdir(exist_ok=True)
        (house.folder / name).write_text(name)
    assert [one["path"] for one in (await house("list", path="out"))["files"]] == ["out", "out/a", "out/b"]
    assert [one["path"] for one in (await house("list", path="./out//"))["files"]] == ["out", "out/a", "out/b"]
    monkeypatch.setattr(fs_verbs, "MAX_FILES", 2)
    listed = await house("list")
    assert ([one["path"] for one in listed["files"]], listed["more"]) == (["out", "out/a"], True)
    monkeypatch.setattr(fs_verbs, "MAX_DIFF", 30)
    await house.write("z", b"1\n")
    await house.write("y", b"1\n")
    differences = await house("diff")
    assert differences["more"] is True
    assert (await house("diff", start=0, end=1, path="z"))["differences"][0]["text"].endswith("+1\n")
    with pytest.raises(NotFound, match="has no 'nope'"):
        await house("list", path="nope")
    with pytest.raises(NotFound):
        await house("list", at=9)


async def test_lines_are_told_with_their_changes(house: House) -> None:
    """Blame names the change of each line and its author, with decision and approvals; of no text it says so."""
    house.agent("a", "one\ntwo\n", "c-1")
    await house.write("a", b"one\n2\n", expected="any")
    blame = await house("blame", path="a")
    assert blame["lines"] == [{"text": "one", "change": 1}, {"text": "2", "change": 2}]
    assert blame["changes"]["1"]["author"]["approvals"] == ["principal/bob"]
    assert blame["changes"]["2"]["author"]["actor"] == "principal/ann"
    with pytest.raises(NotFound):
        await house("blame", path="b")


@pytest.mark.parametrize("place", ["s-2", "s-erased", "space/nope", "space/", "space/../../x"])
async def test_places_that_are_not_there(house: House, place: str) -> None:
    """No such session, one whose workspace is gone, no such space: not found, by every verb."""
    for verb in house.verbs.handlers():
        params: dict[str, Json] = {}
        if verb in ("fs.read", "fs.blame", "fs.write", "fs.restore"):
            params["path"] = "a"
        if verb == "fs.write":
            params["data"] = ""
        with pytest.raises(NotFound):
            await house(verb.removeprefix("fs."), place, **params)


async def test_another_tenant_is_told_nothing(house: House) -> None:
    """A session of somebody else and one that does not exist have the same answer; so have spaces."""
    said = []
    for place in ("s-1", "s-9"):
        with pytest.raises(NotFound) as refused:
            await house("list", place, who=EVE)
        said.append(str(refused.value).replace(place, "X"))
    assert said[0] == said[1]
    with pytest.raises(NotFound, match="tenant other has no space 'board'"):
        await house("list", "space/board", who=EVE)


@pytest.mark.parametrize("path", ["../s-2/a", "/etc/passwd", "a/../../b", "a\0b", "n" * 300, ".agentos-tmp-1"])
async def test_paths_lead_nowhere_else(house: House, path: str) -> None:
    """Each verb that takes a path refuses it, and no file is made anywhere."""
    outside = house.top / "workspaces" / "default"
    for verb in ("list", "log", "diff"):
        with pytest.raises(DriverError):
            await house(verb, path=path)
    for verb, more in (("read", {}), ("blame", {}), ("restore", {"at": 0}), ("write", {"data": "MQ=="})):
        with pytest.raises(DriverError):
            await house(verb, path=path, **cast("Any", more))
    assert (list(outside.rglob("*")), house.chain.told) == ([house.folder], [])


async def test_what_is_no_file_is_neither_read_nor_replaced(house: House) -> None:
    """Folders, links, pipes: said, and left as they are; nothing is written through a link."""
    outside = house.top / "outside"
    outside.write_text("not ours")
    (house.folder / "folder").mkdir()
    (house.folder / "link").symlink_to(outside)
    (house.folder / "way").symlink_to(house.top)
    os.mkfifo(house.folder / "pipe")
    for path in ("folder", "link", "way", "."):
        with pytest.raises((UsageError, DriverError)):
            await house("read", path=path)
    for path in ("folder", "link", "pipe", "way/outside", "way/new", "."):
        with pytest.raises((UsageError, DriverError)):
            await house.write(path, b"x", expected="any")
    assert outside.read_text() == "not ours"
    assert not (house.top / "new").exists()


@pytest.mark.parametrize(
    ("verb", "params"),
    [
        ("list", {"at": -2}), ("list", {"odd": 1}), ("list", {"path": ""}), ("read", {}),
        ("read", {"path": "a", "digest": "sha256:0"}), ("read", {"path": "a", "offset": -1}), ("log", {"limit": 0}),
        ("log", {"limit": 201}), ("diff", {"start": "x"}), ("write", {"path": "a"}), ("write", {"path": "a", "data": "?"}),
        ("write", {"path": "a", "data": "MQ"}), ("write", {"path": "a", "data": "é"}),
        ("write", {"path": "a", "data": "", "labels": ["A b"]}), ("restore", {"path": "a", "at": "1"}),
        ("undo", {"dry_run": 1}), ("undo", {"lose": "yes"}), ("undo", {"reason": "x" * 2001}),
    ],
)  # fmt: skip
async def test_words_that_are_off(house: House, verb: str, params: dict[str, Json]) -> None:
    """Unknown, missing and malformed parameters are a wrong use, before anything is done."""
    with pytest.raises(UsageError):
        await house(verb, **params)
    assert house.chain.told == []


async def test_what_is_too_large_is_refused(house: House) -> None:
    """The limit is that of a tool's write, and is said."""
    with pytest.raises(UsageError, match=f"{MAX_WRITE} is the most"):
        await house.write("a", b"x" * (MAX_WRITE + 1))
    assert (await house.write("a", b"x" * MAX_WRITE))["change"] == 1


@pytest.mark.parametrize("text", ["../s-1", "s-1/x", "S-1", "s 1", "*", ">", "s-1.x", "a" * 65])
async def test_words_that_are_no_place(house: House, text: str) -> None:
    """Nothing that could mean more than one session, or a folder, is looked up."""
    with pytest.raises((UsageError, NotFound)):
        await house("list", text)


async def test_whoever_gives_up_stops_the_work(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that is gone leaves no thread walking a tree for nobody."""
    seen: list[Guard] = []
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(_place: Place, _root: Path, guard: Guard) -> None:
        seen.append(guard)
        loop.call_soon_threadsafe(begun.set)
        while True:
            guard.check()

    monkeypatch.setattr(house.versions, "begin", slow)
    looking = asyncio.ensure_future(house("list"))
    async with asyncio.timeout(10):
        await begun.wait()
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
    with pytest.raises(Stopped):
        seen[0].check()
