"""Where a backup may go: into the home's own folder for backups, or a folder that the runtime's user alone can write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agentos.abi.errors import AgentOSError, Conflict, UsageError
from agentos.boot.backup import Backups
from agentos.boot.home import Home

NAMED = "agentos-20261118T110640Z.tar"


class Still:
    """A clock that stands."""

    def now_ms(self) -> int:
        return 1_795_000_000_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path / "home")
    found.prepare()
    return found


@pytest.fixture
def backups(home: Home) -> Backups:
    unused: Any = None
    return Backups(home, unused, unused, unused, Still(), unused)


def test_its_own_folder_unless_told_otherwise(home: Home, backups: Backups) -> None:
    """Made on demand, for its owner alone; a backup there can be named too."""
    assert backups.place(None) == home.root / "backups" / NAMED
    assert home.backups.stat().st_mode & 0o777 == 0o700
    assert backups.place(str(home.backups / "x.tar")) == home.backups / "x.tar"


def test_a_folder_of_our_own(tmp_path: Path, backups: Backups) -> None:
    """As a file in it, or named by the time; a link to it counts as what it leads to."""
    folder = tmp_path / "saved"
    folder.mkdir(mode=0o750)
    (tmp_path / "link").symlink_to(folder)
    assert backups.place(str(folder)) == folder / NAMED
    assert backups.place(str(tmp_path / "link" / "x.tar")) == folder / "x.tar"


@pytest.mark.parametrize("where", ["", "keys", "keys/payload", "nats", "workspaces", "identities", "read", "backups/below"])
def test_nowhere_else_in_the_home(home: Home, backups: Backups, tmp_path: Path, where: str) -> None:
    """Not among keys and streams, not even by a link."""
    folder = home.root / where
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (tmp_path / "link").symlink_to(folder)
    for to in (folder, folder / "x.tar", tmp_path / "link" / "x.tar"):
        with pytest.raises(UsageError, match="inside the home"):
            backups.place(str(to))


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_not_where_others_can_write(tmp_path: Path, backups: Backups, mode: int) -> None:
    """A group, everybody, everybody with a sticky bit."""
    folder = tmp_path / "saved"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(UsageError, match="others can write"):
        backups.place(str(folder / "x.tar"))
    folder.chmod(0o755)
    assert backups.place(str(folder / "x.tar")) == folder / "x.tar"


def test_not_in_somebody_else_s_folder(tmp_path: Path, backups: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its rights are."""
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(UsageError, match="does not belong"):
        backups.place(str(tmp_path / "x.tar"))


def test_never_over_anything(home: Home, tmp_path: Path, backups: Backups) -> None:
    """Not a file, not a link that leads nowhere; also not in its own folder."""
    (tmp_path / "there.tar").write_text("mine")
    (tmp_path / "dangling.tar").symlink_to(tmp_path / "nothing")
    for name in ("there.tar", "dangling.tar"):
        with pytest.raises(Conflict):
            backups.place(str(tmp_path / name))
    backups.place(None).write_text("one of the same second")
    with pytest.raises(Conflict):
        backups.place(None)


@pytest.mark.parametrize("to", ["x.tar", "", "./x.tar", "/tmp/\0x.tar", "~/x.tar"])
def test_an_absolute_path(backups: Backups, to: str) -> None:
    """Of the runtime's host, not of wherever somebody happens to stand."""
    with pytest.raises(UsageError, match="absolute"):
        backups.place(to)


def test_no_folder_is_made_elsewhere(tmp_path: Path, backups: Backups) -> None:
    """A folder that is not there is not made; a file is no folder."""
    with pytest.raises(UsageError, match="no folder"):
        backups.place(str(tmp_path / "none" / "x.tar"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="no folder"):
        backups.place(str(tmp_path / "file" / "x.tar"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "home"]


def test_a_home_that_cannot_be_written(home: Home, backups: Backups) -> None:
    """It says which folder."""
    home.backups.write_text("in the way")
    with pytest.raises(AgentOSError):
        backups.place(None)
