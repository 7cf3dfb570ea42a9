"""What has to be where once changes are taken back; and that putting it there touches nothing outside, whoever is faster."""

from __future__ import annotations

from pathlib import Path

from agentos.abi.canonical import digest
from agentos.files.undo import put, targets
from agentos.files.versions import State

ONE, TWO = State("file", 0o644, 1, digest(b"1")), State("file", 0o644, 1, digest(b"2"))


def test_targets() -> None:
    """Newest first: what is there goes back change by change, and whoever changed it later is named."""
    history = [(4, TWO), (2, ONE), (0, TWO)]
    assert targets({"a": history}, {4}) == ({"a": ONE}, {})
    assert targets({"a": history}, {2, 4}) == ({"a": TWO}, {})
    assert targets({"a": history}, {2}) == ({"a": TWO}, {})  # what is there is what was there before
    assert targets({"a": [(4, None), *history[1:]]}, {2}) == ({}, {"a": 4})
    assert targets({"a": [(3, ONE)]}, {3}) == ({"a": None}, {})


def test_a_link_that_came_in_between_is_not_followed(tmp_path: Path) -> None:
    """What became a link since the tree was looked at leads nowhere: nothing reaches what it leads to."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (outside / "d").mkdir(parents=True)
    (outside / "d/file").write_text("1")
    modes = {path: path.stat().st_mode for path in (outside / "d", outside / "d/file")}
    root.mkdir()
    (root / "file").symlink_to(outside / "d/file")
    (root / "d").symlink_to(outside / "d")
    wanted = {
        "file": State("file", 0o600, 1, digest(b"1")),
        "d": State("folder", 0o700),
        "d/file": None,
        "d/new": ONE,
    }
    notes = put(root, wanted, {"file": ONE, "d": State("folder", 0o755), "d/file": ONE}, lambda _: b"1")
    assert {path: path.stat().st_mode for path in modes} == modes
    assert sorted(path.name for path in (outside / "d").iterdir()) == ["file"]
    assert (outside / "d/file").read_text() == "1"
    assert any(note.startswith("file stays as it is") for note in notes)
