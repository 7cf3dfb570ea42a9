"""Which mounts may be made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentos.sandbox.adapters.mounts import declared, held, system_trees
from agentos.sandbox.inside import Tree
from agentos.sandbox.port import SandboxUnavailable
from agentos.sandbox.profile import Mount


def test_the_home_and_what_holds_it_are_refused(tmp_path: Path) -> None:
    """Nothing of the runtime's home can be mounted, by no way to it."""
    home, beside = tmp_path / "home", tmp_path / "beside"
    (home / "inner").mkdir(parents=True)
    beside.mkdir()
    (tmp_path / "way").symlink_to(home)
    trees = system_trees()
    for path in (home, home / "inner", tmp_path, tmp_path / "way", tmp_path / "beside" / ".." / "home", Path("/")):
        with pytest.raises(SandboxUnavailable):
            declared(Mount(os.fspath(path), "/data"), home, trees)
    assert declared(Mount(os.fspath(beside), "/data", write=True), home, trees) == Tree(os.fspath(beside), "/data", write=True)


@pytest.mark.parametrize(
    "at", ["/", "/proc", "/proc/1", "/dev/null", "/run/agentos/relay.py", "/run/secrets", "/workspace", "/usr", "/tmp/..", "x"]
)
def test_places_that_are_taken(at: str, tmp_path: Path) -> None:
    """What the sandbox has itself cannot be covered."""
    with pytest.raises(SandboxUnavailable):
        declared(Mount(os.fspath(tmp_path), at), None, system_trees())


def test_what_is_held_is_no_link(tmp_path: Path) -> None:
    """A path is walked without following a link anywhere in it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    descriptor = held(os.fspath(tmp_path / "a" / "file"))
    assert os.path.sameopenfile(descriptor, descriptor)
    assert os.fstat(descriptor).st_ino == (tmp_path / "a" / "file").stat().st_ino
    os.close(descriptor)
    for path in (tmp_path / "link" / "file", tmp_path / "link", tmp_path / "none"):
        with pytest.raises(SandboxUnavailable):
            held(os.fspath(path))
