"""Whose the files are that the runtime makes, and what a runtime that is not root can reach of what its tools have shut."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import agentos
from agentos.files import confine, ownership
from agentos.files.guard import Guard
from agentos.files.put import put

SHUT = """
import os, sys
from pathlib import Path
from agentos.files.adapters.versions_sqlite import SqliteVersions
from agentos.files.guard import Guard
from agentos.files.versions import Author, Place

class Clock:
    def now_ms(self): return 0

top = Path(sys.argv[1])
if os.geteuid() == 0:
    os.chown(top, 65534, 65534)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
root, place = top / "root", Place("default", "session", "s-1")
(root / "d/e").mkdir(parents=True)
(root / "d/e/f").write_text("precious")
versions = SqliteVersions(top / "versions", Clock())
versions.begin(place, root, Guard())
(root / "d/e/f").write_text("changed")
(root / "d/e/f").chmod(0)
(root / "d/e").chmod(0)
(root / "d").chmod(0o200)
root.chmod(0)
change = versions.capture(place, root, Author("agent/x"), Guard())
assert [entry.path for entry in change.entries] == ["d", "d/e", "d/e/f"], change
assert (change.entries[2].kept, change.notes) == (True, ()), change
assert (root / "d").stat().st_mode & 0o777 == 0o200
undone = versions.undo(place, root, None, Author("principal/ann"), Guard())
assert (root / "d/e/f").read_text() == "precious"
assert undone.notes == (), undone
again = versions.undo(place, root, [undone.number], Author("principal/ann"), Guard())
assert again.notes == (), again
assert dict(versions.tree(place)) == dict(versions.tree(place, 1))
assert (root / "d").stat().st_mode & 0o777 == 0o200
"""


def test_what_is_made_belongs_to_the_owner_of_its_folder(tmp_path: Path) -> None:
    """A file and the folders on its way are their parent's owner's, where the runtime is root; else they are its own."""
    root = tmp_path / "root"
    root.mkdir()
    owner = (1_879_048_193, 1_879_048_193) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(root, *owner)
    put(root, "a/b/file", b"x", Guard())
    for path in ("a", "a/b", "a/b/file"):
        status = (root / path).stat()
        assert (status.st_uid, status.st_gid) == owner
    with confine.open_folder(root, ()) as folder:
        os.symlink("nowhere", "link", dir_fd=folder)
        ownership.give_name("link", folder)
    assert (root / "link").lstat().st_uid == owner[0]


def test_what_is_root_s_stays_root_s(tmp_path: Path) -> None:
    """In a folder that nobody was given, what is made is the runtime's own."""
    put(tmp_path, "a/file", b"x", Guard())
    assert (tmp_path / "a/file").stat().st_uid == os.geteuid()


def test_what_its_owner_may_not_read_is_recorded_too() -> None:
    """A tool that takes its own rights to files and folders hides nothing from a runtime of its user, and keeps what it set."""
    environment = {"PYTHONPATH": str(Path(agentos.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    # Not below pytest's own folder, which nobody but its owner may enter.
    with tempfile.TemporaryDirectory() as top:
        done = subprocess.run(
            [sys.executable, "-c", SHUT, top], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
    assert (done.returncode, done.stderr) == (0, "")
