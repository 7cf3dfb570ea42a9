"""Differences of texts, and which version a line came with."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from agentos.files import lines

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "", "é\u202e", "\x1b[31m"]), max_size=12).map("\n".join)


@given(a=TEXTS, b=TEXTS)
def test_blocks_lead_from_one_text_to_the_other(a: str, b: str) -> None:
    """Putting the new lines of each block in the place of its old ones makes the new text of the old one."""
    old, new = lines.split(a), lines.split(b)
    assert "".join(old) == a
    assert applied(old, new) == new


def test_large_texts_are_split_at_what_they_have_once() -> None:
    """Of two long texts few lines differ, however far apart; where nothing is to be split at, all of it does."""
    old = [f"line {number}\n" for number in range(20_000)]
    new = list(old)
    new[3], new[19_990] = "changed\n", "changed too\n"
    assert lines.changed(old, new) == [(3, 4, 3, 4), (19_990, 19_991, 19_990, 19_991)]
    shuffled = random.Random(7).sample(old, len(old))
    assert applied(old, shuffled) == shuffled
    hostile, other = ["x\n", "y\n"] * 5000, ["y\n", "z\n"] * 5000
    assert lines.changed(hostile, other) == [(0, 10_000, 0, 10_000)]


@given(versions=st.lists(TEXTS, min_size=1, max_size=6))
def test_blame_names_a_version_that_has_the_line(versions: list[str]) -> None:
    """The lines are those of the last text, and each came with a version that has it, and stood in all that followed."""
    told = lines.blame(list(enumerate(versions)))
    assert [line for line, _ in told] == [line.removesuffix("\n") for line in lines.split(versions[-1])]
    for line, number in told:
        assert all(line in [one.removesuffix("\n") for one in lines.split(text)] for text in versions[number:])


def test_a_diff_is_safe_to_show() -> None:
    """Control characters and directions of writing are shown escaped; a last line without an end says so."""
    assert lines.unified("a\x1b[2J\n", "a\u202e", "x", "y") == (
        "--- x\n+++ y\n@@ -1,1 +1,1 @@\n-a\\x1b[2J\n+a\\u202e\n\\ no newline at the end\n"
    )
    assert lines.unified("same", "same", "x", "y") == ""


def test_what_is_no_text() -> None:
    """Binary contents, other encodings and very long texts are not compared."""
    assert lines.text_of(b"\0") is None
    assert lines.text_of(b"\xff") is None
    assert lines.text_of(b"x" * (lines.MAX_TEXT + 1)) is None
    assert lines.text_of("é".encode()) == "é"


def applied(old: list[str], new: list[str]) -> list[str]:
    """`old` with the blocks that lead to `new`."""
    out: list[str] = []
    at = 0
    for a1, a2, b1, b2 in lines.changed(old, new):
        assert a1 >= at
        out += old[at:a1] + new[b1:b2]
        at = a2
    return out + old[at:]
