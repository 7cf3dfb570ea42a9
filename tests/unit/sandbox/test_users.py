"""Whom processes work as."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agentos.sandbox.adapters.users import FIRST, INSIDE, NOBODY, SPAN, Users, give_tree


def test_every_owner_has_a_user() -> None:
    """Under root, an owner has always the same user, above all others of the host; different owners have different ones."""
    many = Users(root=True, many=True)
    numbers = {many.of(f"default/s-{number}") for number in range(500)}
    assert len(numbers) > 490
    assert all(FIRST <= number < FIRST + SPAN for number in numbers)
    assert many.of("default/s-1") == many.of("default/s-1")


def test_never_root() -> None:
    """Where there are few users, all owners share nobody; an ordinary runtime has one number in its namespace."""
    assert Users(root=True).of("a/b") == NOBODY
    assert Users(root=False).of("a/b") == INSIDE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_tree_is_given_without_following_links(tmp_path: Path) -> None:
    """All files of a tree are its user's, but what links lead to and files that have another name elsewhere."""
    top, outside = tmp_path / "top", tmp_path / "outside"
    (top / "a" / "b").mkdir(parents=True)
    outside.mkdir()
    (top / "a" / "b" / "file").write_text("x")
    (outside / "secret").write_text("x")
    (top / "link").symlink_to(outside / "secret")
    (top / "folder").symlink_to(outside)
    os.link(outside / "secret", top / "a" / "hard")
    give_tree(top, 12345)
    assert {path.lstat().st_uid for path in (top, top / "a", top / "a" / "b", top / "a" / "b" / "file", top / "link")} == {12345}
    assert outside.stat().st_uid == (outside / "secret").stat().st_uid == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_deep_tree_is_given(tmp_path: Path) -> None:
    """No depth of folders is too much."""
    above = os.open(tmp_path, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=above)
        below = os.open("d", os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    give_tree(tmp_path, 12345)
    assert os.fstat(above).st_uid == 12345
    os.close(above)
    # Whoever clears folders away by a function that calls itself would not get to the end of these.
    subprocess.run(("/bin/rm", "-rf", tmp_path / "d"), check=True)
