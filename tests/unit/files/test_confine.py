"""Paths that come from a model end inside the workspace or nowhere."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.errors import DriverError
from agentos.drivers.primitives import FILE_PRIMITIVES, perform
from agentos.files import confine
from agentos.files.guard import Guard

SECRET = "the secret outside"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with a file in it, and a secret beside it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text(SECRET)
    root = tmp_path / "workspace"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a.txt").write_text("inside")
    return root


def everything_below(folder: Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


PIECES = st.sampled_from(
    ["..", ".", "", "/", "in", "a.txt", "outside", "secret.txt", "link", "~", "\0", "\\", "‥", "%2e%2e", "é", "é"]
)
PATHS = st.one_of(
    st.lists(PIECES, max_size=8).map("/".join),
    st.text(max_size=40),
    st.text(alphabet=st.characters(), max_size=10).map(lambda text: "../" + text),
    st.integers(min_value=200, max_value=6000).map(lambda count: "x" * count),
    st.integers(min_value=50, max_value=3000).map(lambda count: "d/" * count + "f"),
)


@given(path=PATHS, primitive=st.sampled_from(FILE_PRIMITIVES))
def test_hostile_paths(tmp_path_factory: pytest.TempPathFactory, path: str, primitive: str) -> None:
    """Whatever the path, a primitive either refuses it or stays inside: nothing outside is shown or changed."""
    top = tmp_path_factory.mktemp("top")
    (top / "outside").mkdir()
    (top / "outside" / "secret.txt").write_text(SECRET)
    root = top / "workspace"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a.txt").write_text("inside")
    (root / "link").symlink_to(top / "outside")
    try:
        result = perform(primitive, root, {"path": path, "content": "x", "pattern": "secret"}, Guard())
    except DriverError:
        pass
    else:
        assert SECRET not in result.content
        assert "secret.txt" not in result.content or "secret.txt" in path
    assert everything_below(top / "outside") == {str(top / "outside" / "secret.txt"): SECRET}
    assert sorted(entry.name for entry in top.iterdir()) == ["outside", "workspace"]


@given(path=PATHS)
def test_split_gives_plain_names(path: str) -> None:
    """What `split` lets through are names that mean one entry each, in their order."""
    try:
        names = confine.split(path)
    except DriverError:
        return
    assert all(name not in ("", ".", "..") and "/" not in name and "\0" not in name for name in names)
    assert list(names) == [part for part in path.split("/") if part not in ("", ".")]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/etc/passwd", "absolute"),
        ("in/../../outside/secret.txt", "climbs"),
        ("a\0b", "NUL"),
        ("\ud800", "not valid Unicode"),
        ("x" * 256, "longer than 255"),
        ("x/" * 3000, "longer than 4096"),
        ("x/" * 65, "more than 64 levels"),
        ("in/.agentos-tmp-1-1", "half-written"),
    ],
)
def test_refusals_say_why(path: str, words: str) -> None:
    """Each way out has its own sentence."""
    with pytest.raises(DriverError, match=words):
        confine.split(path)


@pytest.mark.parametrize("primitive", FILE_PRIMITIVES)
@pytest.mark.parametrize("target", ["file", "folder", "dangling"])
def test_symbolic_links_are_not_followed(workspace: Path, primitive: str, target: str) -> None:
    """A link is refused as the last name and as a folder on the way, and what it names stays as it was."""
    outside = workspace.parent / "outside"
    (workspace / "link").symlink_to({"file": outside / "secret.txt", "folder": outside, "dangling": outside / "new"}[target])
    for path in ("link", "link/secret.txt"):
        with pytest.raises(DriverError, match=r"symbolic link|not a regular file"):
            perform(primitive, workspace, {"path": path, "content": "x", "pattern": "x"}, Guard())
    assert everything_below(outside) == {str(outside / "secret.txt"): SECRET}


def test_only_regular_files_are_opened(workspace: Path) -> None:
    """A FIFO, a socket and a folder are refused at once, without waiting for anybody."""
    os.mkfifo(workspace / "fifo")
    with socket.socket(socket.AF_UNIX) as door:
        here = Path.cwd()
        os.chdir(workspace)  # socket paths have at most 108 bytes
        try:
            door.bind("socket")
        finally:
            os.chdir(here)
        for name, kind in (("fifo", "FIFO"), ("socket", "socket"), ("in", "folder")):
            with pytest.raises(DriverError, match=kind):
                perform("read", workspace, {"path": name}, Guard())
    with pytest.raises(DriverError, match="not a regular file"):
        perform("write", workspace, {"path": "fifo", "content": "x"}, Guard())


def test_a_swapped_folder_leads_nowhere(workspace: Path) -> None:
    """While a folder and a link to the outside are swapped again and again, nothing outside is ever seen or written."""
    (workspace / "real").mkdir()
    (workspace / "real" / "secret.txt").write_text("inside")
    link = workspace / "link"
    link.symlink_to(workspace.parent / "outside")
    spot = workspace / "spot"
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for thing in (workspace / "real", link):
                try:
                    thing.rename(spot)
                except OSError:
                    shutil.rmtree(spot, ignore_errors=True)  # a write found nothing there and made a folder
                else:
                    spot.rename(thing)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        seen = set()
        for _ in range(2000):
            for primitive, name in (("read", "secret.txt"), ("write", "new.txt"), ("search", ""), ("list", "")):
                try:
                    args = {"path": f"spot/{name}", "content": "x", "pattern": "secret"}
                    result = perform(primitive, workspace, args, Guard())
                except DriverError as error:
                    seen.add(error.message)
                else:
                    seen.add("done")
                    assert SECRET not in result.content
    finally:
        done.set()
        swapper.join()
    assert everything_below(workspace.parent / "outside") == {str(workspace.parent / "outside" / "secret.txt"): SECRET}
    assert len(seen) > 1


def test_absolute_is_inside(workspace: Path) -> None:
    """A path for another program is absolute, inside, and may name what is not there yet; links are refused."""
    assert confine.absolute(workspace, "in/a.txt") == workspace / "in" / "a.txt"
    assert confine.absolute(workspace, "./new/deep/b.txt") == workspace / "new" / "deep" / "b.txt"
    assert confine.absolute(workspace, ".") == workspace
    (workspace / "link").symlink_to("/etc")
    for path in ("link", "link/passwd", "../outside", "/etc", "in/a.txt/below"):
        with pytest.raises(DriverError):
            confine.absolute(workspace, path)


def test_no_descriptor_is_left_open(workspace: Path) -> None:
    """Refusals on every way out close what they opened."""
    (workspace / "link").symlink_to("/etc")
    os.mkfifo(workspace / "fifo")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("link/a", "in/a.txt", "fifo", "missing/a", "in", "in/a.txt/b"):
        for primitive in FILE_PRIMITIVES:
            try:
                perform(primitive, workspace, {"path": path, "content": "x", "pattern": "x"}, Guard())
            except DriverError:
                continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before
