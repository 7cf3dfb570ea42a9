"""Files between a parent and its children: nothing is read or written through a link, and everything is bounded."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from agentos.abi.errors import AgentOSError, DriverError, UsageError
from agentos.drivers.delegating import Ended
from agentos.files.guard import Guard
from agentos.kernel import handover, homecoming
from agentos.kernel.handover import pack
from agentos.kernel.homecoming import Homecoming
from agentos.kernel.workspace import Workspaces


def names_in(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        return {member.name: source.read() for member in tar if (source := tar.extractfile(member)) is not None}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside of every workspace."""
    path = tmp_path / "secret"
    path.write_text("secret")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "w" / "default" / "s-parent"
    (folder / "input" / "mail").mkdir(parents=True)
    (folder / "input" / "mail" / "a.md").write_text("a")
    (folder / "notes.md").write_text("n")
    return folder


def test_a_file_keeps_its_path_but_for_a_leading_input(root: Path) -> None:
    """So that a child finds what it is told of, and `input/input/` never comes about."""
    found = pack(root, ["input/mail", "notes.md", "./input/mail/a.md"], {"context.jsonl": b"{}"})
    assert found is not None
    assert names_in(found[0]) == {"mail/a.md": b"a", "notes.md": b"n", "context.jsonl": b"{}"}
    assert found[1] == {"mail/a.md": "input/mail/a.md", "notes.md": "notes.md", "context.jsonl": "context.jsonl"}


@pytest.mark.parametrize("path", ["gone.md", "link", "link/x", "../s-other/x", "/etc/passwd", "pipe", "."])
def test_what_cannot_be_handed_over_is_an_error(root: Path, secret: Path, path: str) -> None:
    """A name that leads out, a link, a device, the whole workspace."""
    (root / "link").symlink_to(secret)
    os.mkfifo(root / "pipe")
    with pytest.raises(DriverError):
        pack(root, [path], {})


def test_a_link_in_a_folder_is_left_out(root: Path, secret: Path) -> None:
    """Nothing behind it is read."""
    (root / "input" / "mail" / "b.md").symlink_to(secret)
    found = pack(root, ["input"], {})
    assert found is not None
    assert set(names_in(found[0])) == {"mail/a.md"}


def test_too_much_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In files and in bytes."""
    monkeypatch.setattr(handover, "MAX_BYTES", 1)
    with pytest.raises(UsageError):
        pack(root, ["input", "notes.md"], {})
    monkeypatch.setattr(handover, "MAX_BYTES", 100)
    monkeypatch.setattr(handover, "MAX_FILES", 1)
    with pytest.raises(UsageError):
        pack(root, ["input", "notes.md"], {})


async def test_what_comes_back_replaces_what_stood_there(root: Path, secret: Path) -> None:
    """Twice the same; a link that a tool has put in the way is removed and not followed, one in the output is left out."""
    workspaces = Workspaces(root.parents[1])
    output = root.parent / "s-child" / "output"
    output.mkdir(parents=True)
    (output / "a.md").write_text("A")
    (output / "b.md").symlink_to(secret)
    (root / "delegated" / "c1").mkdir(parents=True)
    (root / "delegated" / "c1" / "0").symlink_to(secret.parent)
    (root / "delegated" / "c1" / "0.txt").symlink_to(secret)
    made = Homecoming(workspaces, None)  # type: ignore[arg-type]
    for _ in range(2):
        files = await made.take_back("default", "s-child", "s-parent", "c1", 0, "the whole")
        assert [file.path for file in files] == ["delegated/c1/0/a.md"]
    assert (root / "delegated" / "c1" / "0" / "a.md").read_text() == "A"
    assert (root / "delegated" / "c1" / "0.txt").read_text() == "the whole"
    assert secret.read_text() == "secret"
    assert sorted(path.name for path in root.iterdir()) == ["delegated", "input", "notes.md"]


async def test_a_folder_that_is_a_link_takes_nothing_in(root: Path, secret: Path) -> None:
    """`delegated` itself leads out: the files are refused, and nothing is written there."""
    outside = secret.parent / "outside"
    outside.mkdir()
    (root / "delegated").symlink_to(outside)
    output = root.parent / "s-child" / "output"
    output.mkdir(parents=True)
    (output / "a.md").write_text("A")
    made = Homecoming(Workspaces(root.parents[1]), None)  # type: ignore[arg-type]
    with pytest.raises(DriverError):
        await made.take_back("default", "s-child", "s-parent", "c1", 0, None)
    assert list(outside.iterdir()) == []


async def test_a_folder_that_becomes_a_link_while_files_come_back_leads_nowhere(
    root: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool of the parent's puts a link where the files are being gathered, at any step: nothing is written behind it."""
    outside = secret.parent / "outside"
    outside.mkdir()
    output = root.parent / "s-child" / "output" / "sub"
    output.mkdir(parents=True)
    (output / "a.md").write_text("A")
    (output / "b.md").write_text("B")
    steps = 0

    class Hostile(Guard):
        def check(self) -> None:
            nonlocal steps
            steps += 1
            for place in root.glob(".agentos-tmp-*"):
                if not place.is_symlink():
                    place.rename(root / f"moved-{steps}")
                    place.symlink_to(outside)

    monkeypatch.setattr(homecoming, "Guard", Hostile)
    made = Homecoming(Workspaces(root.parents[1]), None)  # type: ignore[arg-type]
    with pytest.raises(AgentOSError):
        await made.take_back("default", "s-child", "s-parent", "c1", 0, None)
    assert steps > 1
    assert list(outside.rglob("*")) == []


async def test_an_output_that_is_a_link_gives_nothing_back(root: Path, secret: Path) -> None:
    """It leads out of the child's workspace."""
    (secret.parent / "outside").mkdir()
    (secret.parent / "outside" / "a.md").write_text("not yours")
    child = root.parent / "s-child"
    child.mkdir()
    (child / "output").symlink_to(secret.parent / "outside")
    made = Homecoming(Workspaces(root.parents[1]), None)  # type: ignore[arg-type]
    assert await made.take_back("default", "s-child", "s-parent", "c1", 0, None) == []
    assert not list(root.glob("delegated/c1/0/*"))


async def test_more_than_is_taken_back_is_not_even_copied(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that leaves too much is told of, and what was copied by then is gone."""
    monkeypatch.setattr(homecoming, "MAX_BYTES", 10)
    output = root.parent / "s-child" / "output"
    output.mkdir(parents=True)
    for number in range(5):
        (output / str(number)).write_text("12345")
    made = Homecoming(Workspaces(root.parents[1]), None)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        await made.take_back("default", "s-child", "s-parent", "c1", 0, None)
    assert not list(root.glob(".agentos-tmp-*"))


async def test_a_disk_that_refuses_is_an_error_of_the_files_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of the child is told, with a word about its files."""
    output = root.parent / "s-child" / "output"
    output.mkdir(parents=True)
    (output / "a.md").write_text("A")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    made = Homecoming(Workspaces(root.parents[1]), None)  # type: ignore[arg-type]
    (told,) = await made.bring("default", "s-parent", "c1", [Ended(0, "s-child", "writer", "finished", "done")], 1)
    assert "not taken over" in told.text
    assert "No space left" in told.text
