"""When a file has arrived, and which files a pattern means."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.supervisor.arriving import STILL_US, Seen, Settling, arrival_id, meant

ONE = Seen(1, 1, 1, 1)


def test_a_file_that_stands_still() -> None:
    """A file is told once, when it has stood still for long enough; what grows is not, and what is gone never is."""
    settling = Settling()
    assert settling.look({"a": ONE, "b": ONE, "c": ONE}, 0) == []
    assert settling.pause_s(0) == STILL_US / 1_000_000
    assert settling.look({"a": ONE, "b": replace(ONE, bytes=2)}, STILL_US) == ["a"]
    assert settling.look({"a": ONE, "b": replace(ONE, bytes=2)}, 2 * STILL_US) == ["b"]
    assert settling.pause_s(0) is None
    assert settling.look({"a": ONE, "b": replace(ONE, bytes=2)}, 9 * STILL_US) == []


def test_a_change_is_told() -> None:
    """Every change of a file is told again, a new file in its place too; so is what could not be acted on."""
    settling = Settling()
    settling.look({"a": ONE}, 0)
    assert settling.look({"a": ONE}, STILL_US) == ["a"]
    settling.again("a", STILL_US)
    assert settling.look({"a": ONE}, 2 * STILL_US - 1) == []
    assert settling.look({"a": ONE}, 2 * STILL_US) == ["a"]
    settling.look({"a": replace(ONE, inode=2)}, 3 * STILL_US)
    assert settling.look({"a": replace(ONE, inode=2)}, 4 * STILL_US) == ["a"]
    settling.again("gone", 0)


@given(st.lists(st.tuples(st.dictionaries(st.sampled_from("ab"), st.integers(1, 2)), st.integers(0, 2 * STILL_US))))
def test_never_before_it_stood_still(looks: list[tuple[dict[str, int], int]]) -> None:
    """Whatever is seen when: a path is told only if all looks of the last second saw the same, and only once for that."""
    settling, now = Settling(), 0
    since: dict[str, tuple[int, int, bool]] = {}
    for files, wait in looks:
        now += wait
        told = settling.look({path: replace(ONE, bytes=size) for path, size in files.items()}, now)
        since = {
            path: since[path] if path in since and since[path][0] == size else (size, now, False) for path, size in files.items()
        }
        expected = [path for path, (_, first, done) in since.items() if not done and now - first >= STILL_US]
        assert told == sorted(expected)
        since |= {path: (since[path][0], since[path][1], True) for path in expected}


@pytest.mark.parametrize(
    ("glob", "path", "is_meant"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "x/a.csv", False),
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "x/y/a.csv", True),
        ("**", "x/y", True),
        ("inbox/**", "inbox/a/b", True),
        ("inbox/**", "outbox/a", False),
        ("**/b/*.md", "a/b/c/b/d.md", True),
        ("*", ".hidden", False),
        ("**", ".git/config", False),
        ("**", "a/.b", False),
        (".git/*", ".git/config", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a].txt", "[a].txt", True),
        ("[a].txt", "a.txt", False),
        ("a*b*c", "a.b.b.c", True),
        ("a*b*c", "a.c.b", False),
        ("a", "a\nb", False),
        ("*", "a\nb", True),
    ],
)
def test_meant(glob: str, path: str, is_meant: bool) -> None:
    """A pattern stays within names unless it says `**`, and what is hidden is only meant by name."""
    assert meant(glob, path) is is_meant


def test_a_hostile_name_takes_no_time() -> None:
    """A name that almost fits a pattern with many stars is answered at once."""
    assert not meant("*a" * 20 + "b", "a" * 255)
    assert not meant("**/" * 20 + "b", "/".join(["a"] * 64))


def test_the_id_tells_nothing() -> None:
    """The id of an arrival is that of its place and content, and shows neither."""
    one = arrival_id("inbox", "secret-plan.md", "sha256:" + "0" * 64)
    assert one == arrival_id("inbox", "secret-plan.md", "sha256:" + "0" * 64)
    others = {arrival_id("inbox2", "secret-plan.md", "sha256:" + "0" * 64), arrival_id("inbox", "x", "sha256:" + "0" * 64)}
    assert one not in others
    assert "secret" not in one
