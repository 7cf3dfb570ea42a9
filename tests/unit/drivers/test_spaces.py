"""Shared spaces: labels that stay with files, and nobody who writes over what he has not seen."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from agentos.abi.canonical import Json, digest
from agentos.abi.errors import DriverError
from agentos.abi.resource import Key, Resource
from agentos.abi.syscall import Result
from agentos.drivers.adapters.builtin import BuiltinDriver
from agentos.drivers.adapters.space_labels import SqliteSpaceLabels
from agentos.drivers.dispatch import tool_spec
from agentos.drivers.port import CallContext
from agentos.drivers.spaces import UNTRUSTED, SpaceConflict, Spaces, SpaceUnlabelled, space_schema
from agentos.files import confine
from agentos.files.guard import Guard, Stopped


class At:
    """A clock that stands."""

    def now_ms(self) -> int:
        return 1_700_000_000_000


def opened(root: Path) -> Spaces:
    return Spaces(root, SqliteSpaceLabels(root), At())


def session(name: str, *labels: str, tenant: str = "default") -> CallContext:
    return CallContext(tenant, name, "call-1-1", Path("/nowhere"), labels=labels)


def do(spaces: Spaces, primitive: str, who: CallContext, space: str = "reports", **args: Json) -> Result:
    return spaces.perform(primitive, space, args, who, Guard())


def test_labels_stay_with_the_file(tmp_path: Path) -> None:
    """Whoever reads, searches or lists a file carries what its writer carried, after a restart too; another file says nothing."""
    first = opened(tmp_path)
    do(first, "write", session("s-1", "private"), path="a/secret.md", content="the word\n")
    do(first, "write", session("s-2"), path="b/open.md", content="nothing\n")
    first.close()
    spaces = opened(tmp_path)
    assert do(spaces, "read", session("s-3"), path="a/secret.md").labels == ("private",)
    assert do(spaces, "read", session("s-3"), path="b/open.md").labels == ()
    assert do(spaces, "search", session("s-3"), pattern="word").labels == ("private",)
    assert do(spaces, "search", session("s-3"), pattern="word", path="b").labels == ()
    assert do(spaces, "list", session("s-3")).labels == ("private",)
    spaces.close()


def test_nothing_found_carries_too(tmp_path: Path) -> None:
    """That a private file does not hold a word is told of that file, so it carries its labels."""
    spaces = opened(tmp_path)
    do(spaces, "write", session("s-1", "private"), path="secret.md", content="x")
    assert do(spaces, "search", session("s-2"), pattern="word").labels == ("private",)


def test_a_file_from_outside(tmp_path: Path) -> None:
    """A file that no session wrote is untrusted; so is one that was changed behind our back, however it was labelled before."""
    spaces = opened(tmp_path)
    folder = spaces.folder("default", "reports")
    (folder / "drop.txt").write_text("hello")
    assert do(spaces, "read", session("s-1"), path="drop.txt").labels == (UNTRUSTED,)
    assert do(spaces, "list", session("s-1")).labels == (UNTRUSTED,)
    do(spaces, "write", session("s-1"), path="ours.txt", content="ours")
    (folder / "ours.txt").write_text("theirs")
    assert do(spaces, "read", session("s-2"), path="ours.txt").labels == (UNTRUSTED,)


def test_a_moved_file_keeps_its_labels(tmp_path: Path) -> None:
    """Bytes that were written under labels keep them where they are put by hand, in another space too."""
    spaces = opened(tmp_path)
    do(spaces, "write", session("s-1", "private"), path="a.md", content="the word")
    (spaces.folder("default", "reports") / "a.md").rename(spaces.folder("default", "other") / "b.md")
    assert do(spaces, "read", session("s-2"), "other", path="b.md").labels == ("private", UNTRUSTED)


def test_labels_only_gather(tmp_path: Path) -> None:
    """The same bytes written again by a session without labels do not lose those that they have."""
    spaces = opened(tmp_path)
    do(spaces, "write", session("s-1", "private"), path="a.md", content="x")
    do(spaces, "write", session("s-2", "draft"), path="a.md", content="x")
    assert do(spaces, "read", session("s-3"), path="a.md").labels == ("draft", "private")


def test_nobody_writes_over_what_he_has_not_seen(tmp_path: Path) -> None:
    """Without `expected` only a new file is written, with it only that very file is replaced; a refusal changes nothing and does
    not tell what is there."""
    spaces, one, two = opened(tmp_path), session("s-1"), session("s-2")
    first = do(spaces, "write", one, path="a.md", content="1").data["digest"]
    with pytest.raises(SpaceConflict, match="such a file already"):
        do(spaces, "write", two, path="a.md", content="2")
    second = do(spaces, "write", two, path="a.md", content="2", expected=first).data["digest"]
    assert second == digest(b"2")
    with pytest.raises(SpaceConflict, match="meanwhile") as caught:
        do(spaces, "write", one, path="a.md", content="3", expected=first)
    assert second not in str(caught.value.to_dict())
    assert do(spaces, "read", one, path="a.md").content == f"2\n[the file has {second}]"
    do(spaces, "write", one, path="a.md", content="4", expected="any")
    (spaces.folder("default", "reports") / "a.md").unlink()
    with pytest.raises(SpaceConflict, match="not there any more"):
        do(spaces, "write", one, path="a.md", content="5", expected=second)


def test_the_same_call_again(tmp_path: Path) -> None:
    """A write that is made again after a crash, because its outcome was lost, finds its own bytes and succeeds."""
    spaces, who = opened(tmp_path), session("s-1")
    for _ in range(2):
        do(spaces, "write", who, path="a.md", content="1")
    before = digest(b"1")
    for _ in range(2):
        assert do(spaces, "write", who, path="a.md", content="2", expected=before).data["digest"] == digest(b"2")


def test_labels_are_there_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever crashes between the record and the file leaves no file without its labels; when nothing can be recorded nothing is
    written."""
    spaces = opened(tmp_path)
    from agentos.drivers import editing

    def crash(*_args: object) -> Result:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(editing, "put", crash)
        with pytest.raises(KeyboardInterrupt):
            do(spaces, "write", session("s-1", "private"), path="a.md", content="x")
    assert spaces.labels_of("default", "reports", "a.md", digest(b"x")) == ("private",)
    spaces.close()
    (tmp_path / "default.db").write_bytes(b"this is no database, and was made so by somebody else" * 100)
    broken = opened(tmp_path)
    with pytest.raises(SpaceUnlabelled):
        do(broken, "write", session("s-1", "private"), path="b.md", content="x")
    assert not (broken.folder("default", "reports") / "b.md").exists()
    (broken.folder("default", "reports") / "c.md").write_text("x")
    for primitive, args in (("read", {"path": "c.md"}), ("list", {}), ("search", {"pattern": "x"})):
        with pytest.raises(SpaceUnlabelled):
            do(broken, primitive, session("s-1"), **args)


def test_another_tenant(tmp_path: Path) -> None:
    """A space of the same name in another tenant is another folder, and knows other labels."""
    spaces = opened(tmp_path)
    do(spaces, "write", session("s-1", "private"), path="a.md", content="x")
    with pytest.raises(DriverError, match="no such"):
        do(spaces, "read", session("s-2", tenant="acme"), path="a.md")
    assert sqlite3.connect(tmp_path / "default.db").execute("SELECT count(*) FROM written").fetchone() == (1,)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "link/x", f"{confine.TEMPORARY}x"])
def test_confined(tmp_path: Path, path: str) -> None:
    """No path leads out of a space, and no name but a declared one's leads into a folder."""
    spaces = opened(tmp_path)
    (spaces.folder("default", "reports") / "link").symlink_to(tmp_path)
    with pytest.raises(DriverError):
        do(spaces, "write", session("s-1"), path=path, content="x", expected="any")
    for odd in ("..", "a/b", ""):
        with pytest.raises(DriverError):
            spaces.folder("default", odd)


def test_a_writer_who_waits_can_be_stopped(tmp_path: Path) -> None:
    """Somebody who waits for another writer's turn is stopped at his deadline, with nothing changed."""
    spaces, guard = opened(tmp_path), Guard()
    guard.stop()
    with spaces._turn("default", "reports", Guard()), pytest.raises(Stopped):
        spaces.perform("write", "reports", {"path": "a", "content": "x"}, session("s-1"), guard)
    assert list(spaces.folder("default", "reports").iterdir()) == []


async def test_the_tool(tmp_path: Path) -> None:
    """A declared tool of a space takes `expected`, speaks of the space, and acts there through the driver."""
    spec = {"description": "Write a report.", "effect": "read", "driver": {"builtin": {"primitive": "write", "space": "reports"}}}
    tool = tool_spec(Resource(Key("Tool", "default", "report"), {}, {}, spec))
    assert tool.effect == "write"
    assert "expected" in tool.input_schema["properties"]
    assert "workspace" not in str(tool.input_schema)
    spaces = opened(tmp_path)
    result = await BuiltinDriver(spaces=spaces).call(tool, {"path": "a.md", "content": "x"}, session("s-1"))
    assert result.data == {"path": "a.md", "bytes": 1, "digest": digest(b"x"), "space": "reports"}
    with pytest.raises(DriverError, match="no shared spaces"):
        await BuiltinDriver().call(tool, {"path": "b.md", "content": "x"}, session("s-1"))
    with pytest.raises(DriverError, match="acts on no space"):
        space_schema("lock", "reports")
