"""The home folder: private, owned by one runtime at a time, and honest about who owns it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agentos.abi.errors import AgentOSError, Conflict
from agentos.boot.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "deep" / "home")
    made.prepare()
    return made


def test_every_folder_is_for_its_owner_alone(home: Home) -> None:
    """Mode 0700 for the home and all that is made in it; making it twice changes nothing."""
    home.prepare()
    folders = [home.root, *(path for path in home.root.rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    assert home.root in folders


def test_a_home_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """A file in the way: which, why, and where else to go."""
    (tmp_path / "file").write_text("")
    with pytest.raises(AgentOSError, match=r"Not a directory|File exists") as caught:
        Home(tmp_path / "file" / "home").prepare()
    assert "AGENTOS_HOME" in str(caught.value.mend)


def test_a_home_has_one_owner(home: Home) -> None:
    """The second is told the pid of the first; after the first, the home is free, also when the first failed."""
    assert home.owner() is None
    with home.own():
        assert home.owner() == os.getpid()
        with pytest.raises(Conflict, match=f"pid {os.getpid()}"), home.own():
            raise AssertionError("owned twice")
        assert home.owner() == os.getpid()
    assert home.owner() is None
    with pytest.raises(ZeroDivisionError), home.own():
        raise ZeroDivisionError
    with home.own():
        assert home.owner() == os.getpid()


def test_a_runtime_that_was_killed_owns_nothing(home: Home) -> None:
    """Its pid still stands in the lock file, and means nothing."""
    script = f"""
import os, signal
from pathlib import Path
from agentos.boot.home import Home
with Home(Path({str(home.root)!r})).own():
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == -9
    assert (home.root / "lock").read_text().strip().isdigit()
    assert home.owner() is None
    with home.own():
        assert home.owner() == os.getpid()


def test_a_lock_with_junk_in_it_is_still_a_lock(home: Home) -> None:
    """Who looks learns that it is owned by nobody it can name; who wants it is refused."""
    with home.own():
        (home.root / "lock").write_text("not a pid")
        assert home.owner() is None
        with pytest.raises(Conflict), home.own():
            raise AssertionError("owned twice")


def test_the_announcement_is_whole_or_absent(home: Home) -> None:
    """URL and pid in one file that is replaced at once; taking it back twice is fine."""
    home.announce("nats://127.0.0.1:1")
    home.announce("nats://127.0.0.1:2")
    assert json.loads(home.endpoint.read_text()) == {"url": "nats://127.0.0.1:2", "pid": os.getpid()}
    assert [path.name for path in home.endpoint.parent.iterdir()] == ["endpoint.json"]
    home.withdraw()
    home.withdraw()
    assert not home.endpoint.exists()
