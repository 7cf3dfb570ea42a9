"""What a person is shown who is asked about a change of a file: the difference, or why there is none, and never anything else."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agentos.abi.canonical import Json, digest
from agentos.control import proposals
from agentos.control.proposals import MAX_LINE, MAX_LINES, MAX_TEXT, Proposals
from agentos.drivers.adapters.space_labels import SqliteSpaceLabels
from agentos.drivers.spaces import Spaces
from agentos.kernel.workspace import Workspaces

REFUSED = "so it will be refused"
TOOLS = {
    "propose": SimpleNamespace(driver={"builtin": {"primitive": "propose"}}),
    "post": SimpleNamespace(driver={"builtin": {"primitive": "propose", "space": "board"}}),
    "write": SimpleNamespace(driver={"builtin": {"primitive": "write"}}),
    "grep": SimpleNamespace(driver={"exec": {"command": ["grep"]}}),
}


class Desk:
    """Proposals about the files of one session, and of a space."""

    def __init__(self, top: Path) -> None:
        self.top, self.folder = top, top / "workspaces" / "default" / "s-1"
        self.folder.mkdir(parents=True)
        clock: Any = SimpleNamespace(now_ms=lambda: 0)
        self.spaces = Spaces(top / "spaces", SqliteSpaceLabels(top / "labels"), clock)
        current: Any = SimpleNamespace(tools=TOOLS)
        self.proposals = Proposals(lambda _: current, Workspaces(top / "workspaces"), self.spaces)

    async def shown(self, tool: str = "propose", state: str = "waiting", **args: Json) -> list[str] | None:
        row: dict[str, Json] = {"tool": tool, "state": state, "session": "s-1", "args": args}
        [told] = await self.proposals.shown("default", [row])
        assert {key: value for key, value in told.items() if key != "diff"} == row
        return cast("str", told["diff"]).split("\n") if "diff" in told else None


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_the_difference_to_what_is_there(desk: Desk) -> None:
    """A unified diff, to the file that the call names; ends of lines and a missing last one are part of it."""
    (desk.folder / "a.md").write_bytes(b"one\r\ntwo\nthree")
    whole = digest(b"one\r\ntwo\nthree")
    assert await desk.shown(path="./a.md", content="one\ntwo\nthree\n", expected=whole) == [
        "--- a/a.md",
        "+++ b/a.md",
        "@@ -1,3 +1,3 @@",
        "-one\\r",
        "+one",
        " two",
        "-three",
        "\\ no newline at the end",
        "+three",
    ]
    assert await desk.shown(path="n/new.md", content="x\n") == ["--- /dev/null", "+++ b/n/new.md", "@@ -0,0 +1,1 @@", "+x"]
    assert await desk.shown(path="new.md", content="") == ["an empty file"]
    assert await desk.shown(path="a.md", content="one\r\ntwo\nthree", expected=whole) == ["nothing differs"]


async def test_of_what_is_no_proposal_nothing_is_shown(desk: Desk) -> None:
    """Other tools, answered questions, tools that are not declared any more."""
    assert await desk.shown("write", path="a", content="x") is None
    assert await desk.shown("grep", pattern="a") is None
    assert await desk.shown("gone", path="a", content="x") is None
    assert await desk.shown(state="approved", path="a", content="x") is None


async def test_what_will_be_refused_is_said_first(desk: Desk) -> None:
    """A yes to it would be in vain: the file is another one, is there already, or is not there any more."""
    (desk.folder / "a").write_text("of a person\n")
    for expected in (None, digest(b"of the agent\n")):
        shown = await desk.shown(path="a", content="of the agent again\n", **({} if expected is None else {"expected": expected}))
        assert shown is not None
        assert REFUSED in shown[0]
        assert shown[1:] == ["--- a/a", "+++ b/a", "@@ -1,1 +1,1 @@", "-of a person", "+of the agent again"]
    shown = await desk.shown(path="b", content="x\n", expected=digest(b"x"))
    assert shown is not None
    assert "is not there any more" in shown[0]
    assert shown[1:] == ["--- /dev/null", "+++ b/b", "@@ -0,0 +1,1 @@", "+x"]
    shown = await desk.shown(path="a", content="of a person\n", expected=digest(b"another"))
    assert shown == ["nothing differs"], "the same bytes are never a conflict"


async def test_nothing_that_is_shown_drives_a_terminal_or_forges_a_line(desk: Desk) -> None:
    """Control characters, other ends of lines and names that reorder text come escaped, on the one line that they are of."""
    (desk.folder / "a").write_text("ok\u2028-rm\n")
    told = await desk.shown(path="a", content="\x1b[2Jok\u2028+fine\x0c+more\u202e\n", expected=digest("ok\u2028-rm\n".encode()))
    assert told == ["--- a/a", "+++ b/a", "@@ -1,1 +1,1 @@", "-ok\\u2028-rm", "+\\x1b[2Jok\\u2028+fine\\x0c+more\\u202e"]
    named = await desk.shown(path="x\x1b[31m\n+y", content="1\n")
    assert named is not None
    assert len(named) == 4
    assert "".join(named).isprintable()


async def test_what_cannot_be_compared_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Binary and large files, folders, links, pipes, ways out, and arguments that are none: no byte of them is shown."""
    secret = desk.top / "secret"
    secret.write_text("not of this session")
    (desk.folder / "bin").write_bytes(b"\0\xff")
    (desk.folder / "folder").mkdir()
    (desk.folder / "link").symlink_to(secret)
    (desk.folder / "way").symlink_to(desk.top)
    os.mkfifo(desk.folder / "pipe")
    for path in ("link", "way/secret", "../secret", "/etc/passwd", "pipe", "folder", ".", "a/", "a\0"):
        shown = await desk.shown(path=path, content="x")
        assert shown is not None
        assert "cannot be compared" in shown[0], path
        assert "not of this session" not in shown[0]
    shown = await desk.shown(path="bin", content="text\n", expected=digest(b"\0\xff"))
    assert shown == ["not shown: binary, or too large; it is replaced by 5 characters, which stand in the arguments"]
    assert await desk.shown(path=3, content="x") == ["the call names no file"]
    assert await desk.shown(path="a") == ["the call names no file"]
    monkeypatch.setattr(proposals, "MAX_READ", 1)
    shown = await desk.shown(path="bin", content="x", expected=digest(b"\0\xff"))
    assert shown is not None
    assert REFUSED in shown[0]


async def test_a_difference_is_bounded(desk: Desk) -> None:
    """In lines, in the length of a line, and in all; what is left out is said."""
    many = await desk.shown(path="a", content="x\n" * 5000)
    assert many is not None
    assert len(many) == MAX_LINES + 1
    assert many[-1] == f"… and {5000 + 3 - MAX_LINES} more lines, which stand in the arguments"
    long = await desk.shown(path="a", content="x" * 5000)
    assert long is not None
    assert long[3].startswith("+" + "x" * (MAX_LINE - 1) + "… and ")
    wide = await desk.shown(path="a", content=("y" * (MAX_LINE - 1) + "\n") * 1000)
    assert wide is not None
    assert len("\n".join(wide)) <= MAX_TEXT + 100
    assert "more lines" in wide[-1]


async def test_a_space_is_looked_at_where_the_tool_writes_into_one(desk: Desk) -> None:
    """Not in the workspace of the session."""
    (desk.spaces.folder("default", "board") / "a").write_text("of the board\n")
    (desk.folder / "a").write_text("of the session\n")
    shown = await desk.shown("post", path="a", content="new\n", expected=digest(b"of the board\n"))
    assert shown == ["--- a/a", "+++ b/a", "@@ -1,1 +1,1 @@", "-of the board", "+new"]
