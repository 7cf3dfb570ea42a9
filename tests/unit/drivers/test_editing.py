"""Writing in a workspace: nothing is replaced that the session does not know, and whose each version is."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentos.abi.canonical import Json, digest
from agentos.abi.errors import DriverError, OutcomeUnknown
from agentos.abi.syscall import Result, ToolEffect
from agentos.drivers import editing
from agentos.drivers.adapters.builtin import BuiltinDriver
from agentos.drivers.adapters.space_labels import SqliteSpaceLabels
from agentos.drivers.editing import FileConflict
from agentos.drivers.port import CallContext, ToolSpec
from agentos.drivers.signals import Sent, Target
from agentos.drivers.spaces import SpaceConflict, Spaces
from agentos.files.adapters.versions_sqlite import SqliteVersions
from agentos.files.guard import Guard
from agentos.files.versions import Author, Place, VersionsUnavailable

PLACE = Place("default", "session", "s-1")
ANN = Author("principal/ann")


class At:
    """A clock that stands."""

    def now_ms(self) -> int:
        return 1_700_000_000_000


class Desk:
    """A session at work, with people who change its files."""

    def __init__(self, top: Path) -> None:
        self.root = top / "workspace"
        self.root.mkdir()
        self.versions = SqliteVersions(top / "versions", At())
        self.spaces = Spaces(top / "spaces", SqliteSpaceLabels(top / "spaces"), At(), self.versions)
        self.driver = BuiltinDriver(None, self.spaces, self.versions)
        self.calls = 0

    async def do(self, primitive: str, space: str | None = None, session: str = "s-1", **args: Json) -> Result:
        self.calls += 1
        driver: dict[str, Json] = {"primitive": primitive} | ({"space": space} if space else {})
        tool = ToolSpec(primitive, "", ToolEffect.WRITE, True, {}, {"builtin": driver})
        context = CallContext(
            "default", session, f"c-{self.calls}", self.root, agent="triage", decided=(self.calls, f"sha256:{self.calls}")
        )
        return await self.driver.call(tool, args, context)

    def other(self, path: str, content: str) -> None:
        """Somebody else changes a file, and that is recorded as his."""
        (self.root / path).write_text(content)
        assert self.versions.capture(PLACE, self.root, ANN, Guard()) is not None

    def text(self, path: str) -> str:
        return (self.root / path).read_text()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_a_version_says_which_call_it_is_of(desk: Desk) -> None:
    """Each write is a change, by the agent, of the call, under its decision; the result names it for the log."""
    (desk.root / "in").write_text("input")
    first = await desk.do("write", path="out/a", content="1")
    second = await desk.do("write", path="out/a", content="2")
    assert (first.acted, second.acted) == ({"change": 1}, {"change": 2})
    change = desk.versions.change(PLACE, 2)
    assert change.author == Author("agent/triage", "s-1", "c-2", (2, "sha256:2"))
    assert [entry.path for entry in desk.versions.change(PLACE, 1).entries] == ["out", "out/a"]
    assert list(desk.versions.tree(PLACE, 0)) == ["in"]


async def test_the_input_may_be_replaced_unread(desk: Desk) -> None:
    """What was there at first nobody has changed."""
    (desk.root / "in").write_text("input")
    await desk.do("write", path="in", content="mine")
    assert desk.text("in") == "mine"


@pytest.mark.parametrize("recorded", [True, False])
async def test_what_somebody_else_changed_is_not_replaced_unread(desk: Desk, recorded: bool) -> None:
    """Nobody writes over what he has not seen, whether the other's change was recorded or not; having read it he may."""
    await desk.do("write", path="a", content="mine")
    if recorded:
        desk.other("a", "theirs")
    else:
        (desk.root / "a").write_text("theirs")
    with pytest.raises(FileConflict, match="somebody else") as caught:
        await desk.do("write", path="a", content="mine again")
    assert (caught.value.code, desk.text("a")) == ("file.conflict", "theirs")
    await desk.do("read", path="a")
    await desk.do("write", path="a", content="mine again")
    assert desk.text("a") == "mine again"
    assert [change.author.actor for change in desk.versions.log(PLACE, "a")][:2] == [
        "agent/triage",
        "principal/ann" if recorded else "system/found",
    ]


async def test_what_somebody_else_removed_is_not_made_again_unread(desk: Desk) -> None:
    """A removal is a change too; who has seen that there is nothing may write."""
    await desk.do("write", path="a", content="mine")
    (desk.root / "a").unlink()
    desk.versions.capture(PLACE, desk.root, ANN, Guard())
    with pytest.raises(FileConflict):
        await desk.do("write", path="a", content="again")
    with pytest.raises(DriverError, match="no such file"):
        await desk.do("read", path="a")
    await desk.do("write", path="a", content="again")
    assert desk.text("a") == "again"


async def test_reading_too_early_is_no_reading(desk: Desk) -> None:
    """What was read before the other's change does not count."""
    await desk.do("write", path="a", content="mine")
    await desk.do("read", path="a")
    desk.other("a", "theirs")
    await desk.do("read", path="a")
    desk.other("a", "theirs, later")
    with pytest.raises(FileConflict):
        await desk.do("write", path="a", content="mine again")


async def test_expected_names_what_is_replaced(desk: Desk) -> None:
    """With a digest exactly this file is replaced; with `any` whatever is there, which is recorded first."""
    await desk.do("write", path="a", content="1")
    with pytest.raises(FileConflict, match="meanwhile"):
        await desk.do("write", path="a", content="2", expected=digest(b"0"))
    await desk.do("write", path="a", content="2", expected=digest(b"1"))
    (desk.root / "a").write_text("precious")
    await desk.do("write", path="a", content="3", expected="any")
    found = desk.versions.log(PLACE, "a")
    assert [change.op for change in found] == ["write", "found", "write", "write"]
    assert desk.versions.content(PLACE, digest(b"precious")) == b"precious"


async def test_the_same_call_again(desk: Desk) -> None:
    """A call that a crash has cut off before its version was recorded is made again, and its version is its own."""
    await desk.do("write", path="a", content="1")
    (desk.root / "a").write_text("2")
    result = await desk.do("write", path="a", content="2")
    assert result.content == "wrote 1 bytes to a"
    change = desk.versions.log(PLACE)[0]
    assert (change.author.actor, change.author.call, result.acted) == ("agent/triage", "c-2", {"change": 2})
    assert (await desk.do("write", path="a", content="2")).acted == {}


async def test_propose_replaces_what_was_shown(desk: Desk) -> None:
    """A proposal is for exactly the file that its diff was made against: a new one, or the one that `expected` names."""
    await desk.do("propose", path="a", content="1")
    with pytest.raises(FileConflict, match="already"):
        await desk.do("propose", path="a", content="2")
    await desk.do("propose", path="a", content="2", expected=digest(b"1"))
    desk.other("a", "theirs")
    with pytest.raises(FileConflict, match="meanwhile"):
        await desk.do("propose", path="a", content="3", expected=digest(b"2"))
    assert desk.text("a") == "theirs"
    assert desk.versions.log(PLACE)[1].author.call == "c-3"


async def test_two_sessions_in_a_space(desk: Desk) -> None:
    """A space has versions as a workspace has: whose each is, and undone and had again; nobody replaces what he does not name."""
    await desk.do("write", "reports", path="a.md", content="1\n")
    with pytest.raises(SpaceConflict):
        await desk.do("write", "reports", "s-2", path="a.md", content="2\n")
    result = await desk.do("propose", "reports", "s-2", path="a.md", content="1\n2\n", expected=digest(b"1\n"))
    assert result.acted == {"change": 2}
    place, root = Place("default", "space", "reports"), desk.spaces.folder("default", "reports")
    blame = desk.versions.blame(place, "a.md")
    assert [(line.text, blame.changes[line.number].author.session) for line in blame.lines] == [("1", "s-1"), ("2", "s-2")]
    change = desk.versions.undo(place, root, [2], ANN, Guard())
    assert change is not None
    assert (await desk.do("read", "reports", path="a.md")).content.startswith("1\n\n[the file has")
    again = await desk.do("write", "reports", path="a.md", content="1\n")
    assert again.content == f"a.md holds these 2 bytes already of the space reports; its digest is {digest(b'1' + bytes([10]))}"


async def test_what_cannot_be_recorded_is_not_written(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where versions cannot be kept nothing is changed; where that shows too late the outcome is unknown, never a success."""
    await desk.do("write", path="a", content="1")

    def broken(*_: object, **__: object) -> None:
        raise VersionsUnavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(desk.versions, "look", broken)
        with pytest.raises(VersionsUnavailable):
            await desk.do("write", path="a", content="2")
    assert desk.text("a") == "1"
    monkeypatch.setattr(desk.versions, "capture", broken)
    with pytest.raises(OutcomeUnknown, match="could not be recorded"):
        await desk.do("write", path="a", content="2")


async def test_nothing_stands_between_look_and_write(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is no regular one, a folder and a link are refused, and nothing is recorded of it."""
    (desk.root / "folder").mkdir()
    (desk.root / "link").symlink_to("/etc/passwd")
    for path in ("folder", "link"):
        with pytest.raises(DriverError, match="not a regular file"):
            await desk.do("write", path=path, content="x", expected="any")
    with pytest.raises(DriverError, match="not followed"):
        await desk.do("write", path="link/x", content="x")
    with pytest.raises(DriverError, match="is the most"):
        await desk.do("write", path="a", content="x" * (editing.MAX_WRITE + 1))
    assert [change.number for change in desk.versions.log(PLACE)] == [0]


async def test_fire(desk: Desk) -> None:
    """`fire` tells the triggers that wait for the signal, and nobody else."""
    sent: list[tuple[Target, str, str]] = []

    class Signals:
        async def wait(self, place: CallContext, name: str, *, wait_ms: int) -> None:
            raise AssertionError

        async def send(self, place: CallContext, target: Target, name: str, data: str) -> Sent:
            sent.append((target, name, data))
            return Sent()

    desk.driver.signals = Signals()  # type: ignore[assignment]
    result = await desk.do("fire", signal="go", data="now")
    assert sent == [(Target(triggers=True), "go", "now")]
    assert result.content == "told go to the triggers that wait for it"
