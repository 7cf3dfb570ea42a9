"""Control groups, on folders that look like those of the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentos.sandbox.adapters.cgroups import RUNTIME, groups
from agentos.sandbox.profile import Limits

PID = 4711


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with one process, without children."""
    found = tmp_path / "proc"
    (found / "self" / "task" / str(PID)).mkdir(parents=True)
    (found / "self" / "task" / str(PID) / "children").write_text("")
    (found / str(PID) / "task" / str(PID)).mkdir(parents=True)
    (found / str(PID) / "task" / str(PID) / "children").write_text("")
    return found


def own(proc: Path, text: str) -> None:
    (proc / "self" / "cgroup").write_text(text)


def delegated(folder: Path, controllers: str = "cpu memory pids", enabled: str = "", inside: str = f"{PID}\n") -> None:
    """A group of version 2."""
    folder.mkdir(parents=True)
    for name, text in (("controllers", controllers), ("subtree_control", enabled), ("procs", inside)):
        (folder / f"cgroup.{name}").write_text(text)


def test_version_1(tmp_path: Path, proc: Path) -> None:
    """Groups are made below the runtime's own ones, with both limits, and taken away."""
    own(proc, "4:memory:/box\n3:pids:/\n1:name=systemd:/x\n0::/\n")
    for folder in ("memory/box", "pids"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "cgroup.procs").write_text("")
    found = groups(PID, tmp_path, proc)
    assert found is not None
    assert found.version == 1
    memory, pids = tmp_path / "memory" / "box" / f"agentos-{PID}-0", tmp_path / "pids" / f"agentos-{PID}-0"
    # The files of a group come with its folder, in the kernel; here there are none to write to, and nothing is left of it.
    with pytest.raises(FileNotFoundError):
        found.make(Limits(memory_mib=10, processes=7))
    assert not memory.exists()
    assert not pids.exists()


def test_version_2_moves_the_runtime_out_of_the_way(tmp_path: Path, proc: Path) -> None:
    """In a group that is delegated, the runtime moves into one of its own, and hands the controllers on."""
    own(proc, "0::/system.slice/agentos.service\n")
    here = tmp_path / "system.slice" / "agentos.service"
    delegated(here)
    (here / RUNTIME).mkdir()
    (here / RUNTIME / "cgroup.procs").write_text("")
    found = groups(PID, tmp_path, proc)
    assert found is not None
    assert found.version == 2
    assert (here / RUNTIME / "cgroup.procs").read_text() == str(PID)
    assert (here / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_version_2_of_a_runtime_that_has_moved(tmp_path: Path, proc: Path) -> None:
    """Who is in the runtime's group finds the delegated one above it."""
    here = tmp_path / "agentos.service"
    own(proc, f"0::/agentos.service/{RUNTIME}\n")
    delegated(here, enabled="memory pids", inside="")
    delegated(here / RUNTIME)
    found = groups(PID, tmp_path, proc)
    assert found is not None
    assert found.version == 2


@pytest.mark.parametrize(
    ("text", "controllers", "inside"),
    [
        ("0::/here\n", "cpu", f"{PID}\n"),
        ("0::/here\n", "memory pids", f"{PID}\n1\n"),
        ("0::/\n", "memory pids", f"{PID}\n"),
        ("3:cpu:/here\n", "memory pids", f"{PID}\n"),
    ],
)
def test_no_groups(text: str, controllers: str, inside: str, tmp_path: Path, proc: Path) -> None:
    """Without controllers, in a group with strangers, and in the root of all groups, none are made, and nobody is moved."""
    own(proc, text)
    delegated(tmp_path / "here", controllers, inside=inside)
    assert groups(PID, tmp_path, proc) is None
    assert not (tmp_path / "here" / RUNTIME).exists()
    assert (tmp_path / "here" / "cgroup.subtree_control").read_text() == ""


def test_strays_of_runtimes_that_were_killed(tmp_path: Path, proc: Path) -> None:
    """Groups of a runtime that is not there any more are taken away; those of others stay."""
    own(proc, "4:memory:/\n3:pids:/\n")
    for kind in ("memory", "pids"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "cgroup.procs").write_text("")
        for name in ("agentos-999999-3", f"agentos-{PID}-1", "agentos-x-y", "other"):
            (tmp_path / kind / name).mkdir()
    assert groups(PID, tmp_path, proc) is not None
    assert sorted(path.name for path in (tmp_path / "pids").iterdir()) == sorted(
        ["agentos-x-y", f"agentos-{PID}-1", "cgroup.procs", "other"]
    )
