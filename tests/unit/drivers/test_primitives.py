"""What the file primitives give back, and the bounds they say they keep."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agentos.abi.canonical import Json, canonical
from agentos.abi.errors import DriverError
from agentos.abi.syscall import Result, ToolEffect
from agentos.drivers import primitives
from agentos.drivers.primitives import PRIMITIVES, default_effect, input_schema, perform
from agentos.files.guard import Guard, Stopped


def do(primitive: str, workspace: Path, **args: Json) -> Result:
    return perform(primitive, workspace, args, Guard())


def sha(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


def test_read_a_text(tmp_path: Path) -> None:
    """The text comes whole, with the size and digest of the file."""
    body = "Grüße\nzwei\n".encode()
    (tmp_path / "a.md").write_bytes(body)
    result = do("read", tmp_path, path="./a.md")
    assert result.content == "Grüße\nzwei\n"
    assert result.data == {"path": "a.md", "bytes": len(body), "truncated": False, "digest": sha(body), "binary": False}


def test_read_cuts_and_says_so(tmp_path: Path) -> None:
    """Of a large text the beginning is shown, up to a whole character, with the size and digest of the whole."""
    body = ("x" + "é" * 200_000).encode()
    (tmp_path / "big").write_bytes(body)
    result = do("read", tmp_path, path="big")
    text, _, notice = result.content.rpartition("\n")
    assert body.startswith(text.encode())
    assert len(text.encode()) == primitives.MAX_READ - 1
    assert (
        notice
        == f"[cut here: the first {primitives.MAX_READ - 1} of {len(body)} bytes are shown; the whole file has {sha(body)}]"
    )
    assert result.data["truncated"] is True


def test_read_a_huge_file_in_little_memory(tmp_path: Path) -> None:
    """A sparse file of 64 MiB is told to be binary; it is never held in memory."""
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    result = do("read", tmp_path, path="huge")
    assert result.content.startswith("[a binary file of 67108864 bytes, sha256:")
    assert len(result.content) < 200


@pytest.mark.parametrize("body", [b"\xff\xfe", b"a\0b", b"\x89PNG\r\n", b"half \xc3"])
def test_read_a_binary_file(tmp_path: Path, body: bytes) -> None:
    """What is not UTF-8 text is described, not shown."""
    (tmp_path / "b").write_bytes(body)
    result = do("read", tmp_path, path="b")
    assert result.content == f"[a binary file of {len(body)} bytes, {sha(body)}: it has no text to show]"
    assert result.data["binary"] is True


@given(content=st.text(max_size=300))
def test_write_then_read(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    """What was written is what is read, unless it holds a NUL, which makes it binary."""
    root = tmp_path_factory.mktemp("root")
    body = content.encode()
    wrote = do("write", root, path="deep/er/a.txt", content=content)
    assert wrote.data == {"path": "deep/er/a.txt", "bytes": len(body), "digest": sha(body)}
    back = do("read", root, path="deep/er/a.txt")
    assert back.data["digest"] == sha(body)
    assert back.content == content or "\0" in content
    assert [entry.name for entry in (root / "deep" / "er").iterdir()] == ["a.txt"]


def test_write_replaces_as_a_whole(tmp_path: Path) -> None:
    """A reader that has the old file open keeps it; permissions stay; a hard link to the old file is not written through."""
    target = tmp_path / "a.txt"
    target.write_text("old")
    target.chmod(0o640)
    os.link(target, tmp_path / "other")
    with target.open() as open_file:
        do("write", tmp_path, path="a.txt", content="new")
        assert open_file.read() == "old"
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "other").read_text() == "old"


def test_write_bounds(tmp_path: Path) -> None:
    """More than 1 MiB, or text that has no bytes, changes nothing."""
    for content in ("x" * (primitives.MAX_WRITE + 1), "\ud800"):
        with pytest.raises(DriverError):
            do("write", tmp_path, path="a", content=content)
    assert list(tmp_path.iterdir()) == []
    do("write", tmp_path, path="a", content="x" * primitives.MAX_WRITE)


def test_write_over_a_folder(tmp_path: Path) -> None:
    """A folder is not replaced, and a path that ends with a slash is not a file."""
    (tmp_path / "in").mkdir()
    for path in ("in", "in/", "", "."):
        with pytest.raises(DriverError):
            do("write", tmp_path, path=path, content="x")


def test_a_stopped_write_leaves_nothing(tmp_path: Path) -> None:
    """Stopped before its commit, a write leaves neither the file nor its half-written copy, and the guard knows."""
    guard = Guard()
    assert guard.stop()
    with pytest.raises(Stopped):
        perform("write", tmp_path, {"path": "a", "content": "x"}, guard)
    assert list(tmp_path.iterdir()) == []


def test_a_committed_write_is_told(tmp_path: Path) -> None:
    """After its commit, stopping answers that it was too late."""
    guard = Guard()
    perform("write", tmp_path, {"path": "a", "content": "x"}, guard)
    assert not guard.stop()


def test_list_is_sorted_and_complete(tmp_path: Path) -> None:
    """All regular files, folder by folder by name, with sizes; what is left out is counted."""
    for name in ("b/2.md", "b/1.md", "a.md", "c/d/e.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "link").symlink_to("a.md")
    (tmp_path / ".agentos-tmp-1-1").write_text("half")
    os.mkfifo(tmp_path / "fifo")
    result = do("list", tmp_path)
    assert result.data == [
        {"path": "a.md", "bytes": 4},
        {"path": "b/1.md", "bytes": 6},
        {"path": "b/2.md", "bytes": 6},
        {"path": "c/d/e.md", "bytes": 8},
    ]
    assert result.content.splitlines()[0] == "        4  a.md"
    assert result.content.endswith("[left out: 2 entries that are links, devices, unreadable or not named in UTF-8]")
    assert do("list", tmp_path, path="b").data == [{"path": "b/1.md", "bytes": 6}, {"path": "b/2.md", "bytes": 6}]
    assert do("list", tmp_path, path="b/1.md").data == [{"path": "b/1.md", "bytes": 6}]
    with pytest.raises(DriverError, match="no such file"):
        do("list", tmp_path, path="missing")


def test_list_tells_when_it_is_cut(tmp_path: Path) -> None:
    """Beyond the bound the first ones are listed, and the rest is mentioned."""
    for number in range(primitives.MAX_ENTRIES + 5):
        (tmp_path / f"{number:05}").touch()
    result = do("list", tmp_path)
    assert len(result.data) == primitives.MAX_ENTRIES
    assert result.data[-1]["path"] == f"{primitives.MAX_ENTRIES - 1:05}"
    assert "only the first 1000 files are listed" in result.content


def test_hostile_names_stay_on_their_line(tmp_path: Path) -> None:
    """A name with a line break forges no entry; a name that is not UTF-8 is left out, so that results can be stored."""
    (tmp_path / "a\n       12  forged").touch()
    with open(os.fsencode(tmp_path) + b"/\xff", "wb"):  # noqa: PTH123 a path of bytes
        pass
    result = do("list", tmp_path)
    assert result.content.splitlines()[0] == "        0  'a\\n       12  forged'"
    assert "[left out: 1 entries" in result.content
    canonical(result.to_dict())


def test_search_is_literal_and_ignores_case(tmp_path: Path) -> None:
    """Lines that contain the text, whatever its case; characters of patterns mean themselves."""
    (tmp_path / "a.txt").write_text("one\nA (B)+ c\nSTRASSE\n")
    (tmp_path / "b.bin").write_bytes(b"(b)+\0")
    result = do("search", tmp_path, pattern="(b)+")
    assert result.data == [{"path": "a.txt", "line": 2, "text": "A (B)+ c"}]
    assert result.content == "a.txt:2: A (B)+ c\n[not searched: 1 files that are binary or larger than 1048576 bytes]"
    assert do("search", tmp_path, pattern="straße", path="a.txt").data == [{"path": "a.txt", "line": 3, "text": "STRASSE"}]
    assert do("search", tmp_path, pattern="nowhere", path="a.txt").content == "[no line matches]"


def test_search_is_bounded(tmp_path: Path) -> None:
    """Long lines are cut, many matches are cut and told, and a hostile pattern is only text."""
    (tmp_path / "a.txt").write_text("\n".join("aaaa" * 300 for _ in range(500)))
    result = do("search", tmp_path, pattern="a")
    assert len(result.data) == primitives.MAX_MATCHES
    assert all(len(match["text"]) == primitives.MAX_LINE for match in result.data)
    assert "only the first 200 matching lines are shown" in result.content
    assert do("search", tmp_path, pattern="(a+)+$").data == []
    for pattern in ("", "x" * 1001, "a\nb"):
        with pytest.raises(DriverError, match="one line"):
            do("search", tmp_path, pattern=pattern)


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_schemas(primitive: str) -> None:
    """Each schema is a valid one, describes each argument, and allows no other."""
    schema = input_schema(primitive)
    Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert all(shape["description"] for shape in schema["properties"].values())
    assert default_effect(primitive) is (ToolEffect.READ if primitive in {"read", "search", "list"} else ToolEffect.WRITE)


def test_unknown_primitive(tmp_path: Path) -> None:
    """An unknown primitive is refused by name everywhere."""
    for ask in (input_schema, default_effect):
        with pytest.raises(DriverError, match="'delete'"):
            ask("delete")
    with pytest.raises(DriverError, match="'delete'"):
        do("delete", tmp_path, path="a")


def test_arguments_of_the_wrong_type(tmp_path: Path) -> None:
    """Arguments that slipped through validation are still refused."""
    for args in ({}, {"path": 3}, {"path": None}):
        with pytest.raises(DriverError, match="`path` must be text"):
            perform("read", tmp_path, args, Guard())
