"""What is recorded of changes, and what is refused: by whom, in which order, with which contents."""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
from functools import partial
from pathlib import Path

import pytest

from agentos.abi.canonical import digest
from agentos.abi.errors import ChangedMeanwhile, DriverError, NotFound
from agentos.files import capture, versions
from agentos.files.adapters import place_file, versions_sqlite
from agentos.files.adapters.versions_sqlite import SqliteVersions
from agentos.files.guard import Guard, Stopped
from agentos.files.versions import FOUND, Author, Change, NotKept, Place, State, VersionsUnavailable

PLACE = Place("default", "session", "s-1")
ANN = Author("principal/ann")
X = Author("agent/x", "s-1", "c-1", (3, "sha256:" + "a" * 64), ("ap-1",), "a note")


class Clock:
    """A clock that goes on by a second at each look."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def now_ms(self) -> int:
        self.now += 1000
        return self.now


class Kept:
    """A place with its versions."""

    def __init__(self, top: Path, quota: int = versions.QUOTA) -> None:
        self.home, self.root, self.quota = top / "versions", top / "root", quota
        self.root.mkdir()
        self.versions = SqliteVersions(self.home, Clock(), quota)

    def capture(self, author: Author = X, *paths: str, **more: object) -> Change | None:
        return self.versions.capture(PLACE, self.root, author, Guard(), paths=paths or None, **more)  # type: ignore[arg-type]

    def change(self, author: Author, path: str, content: str | bytes) -> Change:
        self.versions.begin(PLACE, self.root, Guard())
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        found = self.capture(author)
        assert found is not None
        return found

    def undo(self, *numbers: int) -> Change | None:
        return self.versions.undo(PLACE, self.root, numbers or None, ANN, Guard())

    def restore(self, path: str, at: int, **more: str) -> Change | None:
        return self.versions.restore(PLACE, self.root, path, at, ANN, Guard(), **more)

    def text(self, path: str) -> str:
        return (self.root / path).read_text()


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_a_change_says_whose_it_is_and_what(kept: Kept) -> None:
    """Author, decision, approvals and note come back as they were given, after a restart too, with what was there before."""
    (kept.root / "a").write_text("one")
    kept.versions.begin(PLACE, kept.root, Guard())
    made = kept.change(X, "a", "two")
    kept.versions.close()
    again = SqliteVersions(kept.home, Clock()).change(PLACE, 1)
    assert again == made
    assert again.author == X
    (entry,) = again.entries
    assert (entry.path, entry.kept) == ("a", True)
    assert entry.before == State("file", 0o644, 3, digest(b"one"))
    assert entry.after == State("file", 0o644, 3, digest(b"two"))
    assert again.to_dict()["author"]["decision"] == {"seq": 3, "hash": X.decision[1] if X.decision else ""}


def test_begin_is_the_input_and_is_made_once(kept: Kept) -> None:
    """Change 0 is what was there at first, whoever touches the place first; a second beginning changes nothing."""
    (kept.root / "in").write_text("x")
    assert kept.capture() is None
    (kept.root / "in").write_text("y")
    first = kept.versions.begin(PLACE, kept.root, Guard())
    assert (first.number, first.op, first.total) == (0, "begin", 1)
    assert kept.versions.tree(PLACE, 0)["in"].digest == digest(b"x")


def test_only_removing_is_told_as_that(kept: Kept) -> None:
    """A write that left nothing behind but holes is recorded as a removal, of the folder and of all that was in it."""
    kept.change(X, "d/e/f", "x")
    (kept.root / "d/e/f").unlink()
    (kept.root / "d/e").rmdir()
    change = kept.capture()
    assert change is not None
    assert (change.op, [entry.path for entry in change.entries]) == ("remove", ["d/e", "d/e/f"])


def test_paths_alone_are_looked_at(kept: Kept) -> None:
    """With paths, what happened elsewhere stays for a later look; folders on the way there are part of it."""
    kept.versions.begin(PLACE, kept.root, Guard())
    (kept.root / "d/e").mkdir(parents=True)
    (kept.root / "d/e/ours").write_text("x")
    (kept.root / "d/other").write_text("y")
    ours = kept.capture(X, "d/e/ours")
    rest = kept.capture(FOUND, op="found")
    assert ours is not None
    assert rest is not None
    assert [entry.path for entry in ours.entries] == ["d", "d/e", "d/e/ours"]
    assert [entry.path for entry in rest.entries] == ["d/other"]


def test_a_way_that_is_gone_takes_all_with_it(kept: Kept) -> None:
    """When a folder on the way to a path is gone, or is a link now, all that was known below it is gone too."""
    kept.change(X, "d/a", "x")
    kept.change(X, "d/b", "x")
    (kept.root / "d").rename(kept.root / "elsewhere")
    (kept.root / "d").symlink_to("elsewhere")
    change = kept.capture(X, "d/a")
    assert change is not None
    assert {entry.path: entry.after for entry in change.entries} == {
        "d": State("link", 0o777, target="elsewhere"),
        "d/a": None,
        "d/b": None,
    }


def test_a_change_that_hides_is_found(kept: Kept) -> None:
    """A content of the same size whose time of writing was set back is another content all the same."""
    kept.change(X, "a", "one")
    settled = (kept.root / "a").stat()
    kept.capture()
    with (kept.root / "a").open("r+") as file:
        file.write("two")
    os.utime(kept.root / "a", ns=(settled.st_atime_ns, settled.st_mtime_ns))
    change = kept.capture()
    assert change is not None
    assert kept.versions.content(PLACE, change.entries[0].after.digest if change.entries[0].after else "") == b"two"


def test_what_was_just_written_is_read_again(tmp_path: Path) -> None:
    """A file that may change within the same tick is not believed by its times; later it is."""
    (tmp_path / "a").write_text("x")
    status = (tmp_path / "a").stat()
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        row = capture.Capture(capture._Nowhere(), Guard()).row(folder, "a", "a", status, None)
    finally:
        os.close(folder)
    assert row.ctime_ns == 0
    assert row.inode == status.st_ino


def test_what_cannot_be_told_is_left_out_and_said(kept: Kept) -> None:
    """FIFOs, sockets and names that are not UTF-8 are no part of a tree; a change says that there are some."""
    kept.versions.begin(PLACE, kept.root, Guard())
    os.mkfifo(kept.root / "fifo")
    (kept.root / os.fsdecode(b"bad-\xff")).write_text("x")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(kept.root / "socket"))
    server.close()
    (kept.root / ".agentos-tmp-1-1").write_text("half")
    change = kept.change(X, "a", "x")
    assert [entry.path for entry in change.entries] == ["a"]
    (note,) = change.notes
    assert "left out" in note
    assert "1 more" in note
    assert note.isprintable()


def test_a_file_that_becomes_a_fifo_is_gone(kept: Kept) -> None:
    """What stands there instead of a file is no file: the file was removed, and nobody waits for the FIFO."""
    kept.change(X, "a", "x")
    (kept.root / "a").unlink()
    os.mkfifo(kept.root / "a")
    change = kept.capture(X, "a")
    assert change is not None
    assert change.entries[0].after is None


def test_too_large_to_be_kept(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file above the bound digest and size are recorded; taking it back is refused by name, before anything is changed."""
    monkeypatch.setattr(capture, "MAX_KEPT", 10)
    kept.change(X, "big", b"x" * 11)
    change = kept.change(X, "small", b"y")
    kept.change(X, "small", b"z")
    (kept.root / "big").unlink()
    removed = kept.capture()
    assert removed is not None
    before = kept.versions.change(PLACE, 1)
    assert before.notes == ("too large to be kept: big",)
    assert (before.entries[0].kept, before.entries[0].after) == (False, State("file", 0o644, 11, digest(b"x" * 11)))
    with pytest.raises(NotKept, match="big"):
        kept.undo(removed.number, change.number + 1)
    assert kept.text("small") == "z"
    with pytest.raises(NotKept):
        kept.versions.content(PLACE, digest(b"x" * 11))


def test_a_full_place_keeps_what_it_has(tmp_path: Path) -> None:
    """Beyond the quota nothing old is dropped: what is new is not kept, and the change says so. What is smaller still fits."""
    kept = Kept(tmp_path, quota=1000)
    kept.change(X, "first", os.urandom(600))
    change = kept.change(X, "second", os.urandom(600))
    assert (change.entries[0].kept, change.notes) == (False, ("not kept, as the place is full: second",))
    third = kept.change(X, "third", b"small")
    assert third.entries[0].kept
    assert len(kept.versions.content(PLACE, kept.versions.tree(PLACE)["first"].digest)) == 600
    with pytest.raises(NotKept):
        kept.versions.keep("default", "s-1", os.urandom(600))
    (kept.root / "first").unlink()
    kept.capture()
    assert kept.restore("first", 1) is not None


def test_outputs_are_kept_beside_files(kept: Kept) -> None:
    """The whole of an output is had again by its digest, without the place being begun."""
    found = kept.versions.keep("default", "s-1", b"whole")
    assert found == digest(b"whole")
    assert kept.versions.content(PLACE, found) == b"whole"
    assert kept.versions.log(PLACE) == ()
    with pytest.raises(NotKept, match="the most"):
        kept.versions.keep("default", "s-1", b"x" * (versions.MAX_KEPT + 1))


def test_undo_of_one_change_among_others(kept: Kept) -> None:
    """Changes of other paths stay; a change of the same path by others later is a conflict that names it, and changes nothing."""
    kept.versions.begin(PLACE, kept.root, Guard())
    first = kept.change(X, "a", "1")
    kept.change(X, "b", "1")
    kept.change(ANN, "a", "2")
    with pytest.raises(ChangedMeanwhile, match=r"a \(change 3\)") as caught:
        kept.undo(first.number)
    assert caught.value.paths == ("a",)
    assert caught.value.to_dict()["paths"] == ["a"]
    assert (kept.text("a"), kept.text("b")) == ("2", "1")
    change = kept.undo(1, 3)
    assert change is not None
    assert change.undoes == (1, 3)
    assert not (kept.root / "a").exists()
    assert kept.text("b") == "1"


def test_undo_of_a_change_between(kept: Kept) -> None:
    """A change with an earlier one left out is taken back down to that one."""
    kept.versions.begin(PLACE, kept.root, Guard())
    for text in ("1", "2", "3"):
        kept.change(X, "a", text)
    with pytest.raises(ChangedMeanwhile):
        kept.undo(2)
    assert kept.undo(2, 3) is not None
    assert kept.text("a") == "1"


def test_undo_again_changes_nothing(kept: Kept) -> None:
    """What is taken back already is not a conflict, and there is nothing to do."""
    change = kept.change(X, "a", "1")
    assert kept.undo(change.number) is not None
    assert kept.undo(change.number) is None


def test_undo_records_first_what_nobody_had_seen(kept: Kept) -> None:
    """What somebody left there since the last look is recorded before all is taken back, so it can be had again."""
    kept.versions.begin(PLACE, kept.root, Guard())
    (kept.root / "a").write_text("precious")
    undone = kept.undo()
    assert undone is not None
    assert not (kept.root / "a").exists()
    assert [change.op for change in kept.versions.log(PLACE)] == ["undo", "found", "begin"]
    assert kept.undo(undone.number) is not None
    assert kept.text("a") == "precious"


def test_a_folder_with_something_else_in_it_stays(kept: Kept) -> None:
    """Undoing the making of a folder leaves it where others have put something, and says so."""
    kept.versions.begin(PLACE, kept.root, Guard())
    made = kept.change(X, "d/ours", "1")
    kept.change(ANN, "d/theirs", "1")
    change = kept.undo(made.number)
    assert change is not None
    assert change.notes == ("d stays as it is: it holds something else",)
    assert [path.name for path in (kept.root / "d").iterdir()] == ["theirs"]


def test_undo_goes_through_no_link(kept: Kept, tmp_path: Path) -> None:
    """A folder that has become a link outwards is not written through: the link is in the way, and nothing is changed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    kept.change(X, "d/a", "1")
    change = kept.change(X, "d/a", "2")
    (kept.root / "d/a").unlink()
    (kept.root / "d").rmdir()
    (kept.root / "d").symlink_to(outside)
    with pytest.raises(ChangedMeanwhile):
        kept.undo(change.number)
    assert list(outside.iterdir()) == []
    assert kept.undo() is not None
    assert list(outside.iterdir()) == []


def test_change_0_is_not_taken_back(kept: Kept) -> None:
    """The beginning is nobody's change; numbers that are not there are said not to be."""
    kept.change(X, "a", "1")
    with pytest.raises(ChangedMeanwhile, match="change 0"):
        kept.undo(0)
    with pytest.raises(NotFound, match="change 7"):
        kept.undo(7)
    for ask in (kept.versions.change, kept.versions.tree):
        with pytest.raises(NotFound):
            ask(PLACE, 7)


def test_restore_a_path(kept: Kept) -> None:
    """One path is what it was at any moment, with the folders on its way; the rest stays. It is a change like any other."""
    kept.versions.begin(PLACE, kept.root, Guard())
    kept.change(X, "d/a", "1")
    kept.change(X, "d/a", "2")
    kept.change(X, "b", "1")
    (kept.root / "d/a").unlink()
    (kept.root / "d").rmdir()
    kept.capture()
    change = kept.restore("d/a", 1)
    assert change is not None
    assert (change.op, change.author) == ("restore", ANN)
    assert [entry.path for entry in change.entries] == ["d", "d/a"]
    assert (kept.text("d/a"), kept.text("b")) == ("1", "1")
    assert kept.restore("d/a", 1) is None
    assert kept.restore("d", 0) is not None
    assert not (kept.root / "d").exists()
    with pytest.raises(NotFound):
        kept.restore("never", 1)


def test_restore_what_was_expected(kept: Kept) -> None:
    """Who says what he expects to replace replaces nothing else."""
    kept.versions.begin(PLACE, kept.root, Guard())
    kept.change(X, "a", "1")
    kept.change(X, "a", "2")
    for wrong in (digest(b"1"), ""):
        with pytest.raises(ChangedMeanwhile) as caught:
            kept.restore("a", 1, expected=wrong)
        assert caught.value.paths == ("a",)
    assert kept.text("a") == "2"
    assert kept.restore("a", 1, expected=digest(b"2")) is not None
    assert kept.text("a") == "1"


def test_log_of_a_path(kept: Kept) -> None:
    """The changes of a path and of what is below it, the newest first, with these entries alone, a part at a time."""
    kept.versions.begin(PLACE, kept.root, Guard())
    (kept.root / "ab").write_text("x")
    kept.change(X, "a/b", "1")  # and `ab`
    kept.change(X, "c", "1")
    kept.change(X, "a/b", "2")
    assert [change.number for change in kept.versions.log(PLACE, "a")] == [3, 1]
    assert [entry.path for entry in kept.versions.log(PLACE, "a")[1].entries] == ["a", "a/b"]
    assert kept.versions.log(PLACE, "a")[1].total == 3
    assert [change.number for change in kept.versions.log(PLACE, limit=2)] == [3, 2]
    assert [change.number for change in kept.versions.log(PLACE, before=2)] == [1, 0]
    with pytest.raises(DriverError, match="climbs"):
        kept.versions.log(PLACE, "../x")


def test_diff_and_blame(kept: Kept) -> None:
    """A diff shows what is different between two moments; a blame names the change of each line."""
    kept.versions.begin(PLACE, kept.root, Guard())
    kept.change(X, "a", "one\ntwo\nthree\n")
    kept.change(ANN, "a", "one\n2\nthree\n")
    (kept.root / "a").chmod(0o600)
    kept.change(X, "bin", b"\0\1")
    found = {one.path: one for one in kept.versions.diff(PLACE, 1)}
    assert found["a"].text == "--- a/a\n+++ b/a\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"
    assert found["a"].note == "mode 0644 → 0600"
    assert (found["bin"].text, found["bin"].note) == ("", "not shown: binary, or too large")
    assert [one.path for one in kept.versions.diff(PLACE, 0, 1, "a")] == ["a"]
    blame = kept.versions.blame(PLACE, "a")
    assert [(line.text, line.number) for line in blame.lines] == [("one", 1), ("2", 2), ("three", 1)]
    assert blame.changes[2].author == ANN
    with pytest.raises(NotFound):
        kept.versions.blame(PLACE, "nothing")
    with pytest.raises(NotKept):
        kept.versions.blame(PLACE, "bin")


def test_a_mask_is_applied_to_the_files_themselves(kept: Kept) -> None:
    """What a mask takes out is neither in the file, nor in a name or the target of a link, nor in anything that was kept."""
    kept.versions.begin(PLACE, kept.root, Guard())

    def mask(content: bytes) -> bytes:
        return content.replace(b"hunter2", b"[masked]")

    (kept.root / "out-hunter2").mkdir()
    (kept.root / "out-hunter2/in hunter2.txt").write_text("pass: hunter2\n")
    (kept.root / "out-hunter2/in hunter2.txt").chmod(0o640)
    (kept.root / "link").symlink_to("hunter2")
    os.mkfifo(kept.root / "fifo-hunter2")
    change = kept.capture(X, mask=mask)
    assert change is not None
    assert sorted(path.relative_to(kept.root).as_posix() for path in kept.root.rglob("*") if "fifo" not in path.name) == [
        "link",
        "out-[masked]",
        "out-[masked]/in [masked].txt",
    ]
    target = kept.root / "out-[masked]/in [masked].txt"
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("pass: [masked]\n", 0o640)
    assert str((kept.root / "link").readlink()) == "[masked]"
    kept.versions.close()
    for file in kept.home.rglob("*"):
        assert file.is_dir() or b"hunter2" not in file.read_bytes()
    assert "hunter2" not in str(change.to_dict())
    assert kept.capture(X, mask=mask) is None


def test_look_and_what_was_read(kept: Kept) -> None:
    """A look tells what is there beside what is known; a reading is noted when others have changed the file, until it changes."""
    kept.versions.begin(PLACE, kept.root, Guard())
    assert kept.versions.look(PLACE, kept.root, "a", Guard()) == versions.Look(None, None, None)
    kept.change(X, "a", "1")
    kept.versions.saw(PLACE, "a", digest(b"1"), "s-1")
    assert kept.versions.look(PLACE, kept.root, "a", Guard()).seen is None, "its own needs no note"
    kept.change(ANN, "a", "2")
    kept.versions.saw(PLACE, "a", digest(b"2"), "s-1")
    (kept.root / "a").write_text("3")
    look = kept.versions.look(PLACE, kept.root, "a", Guard())
    assert (look.there, look.known) == (State("file", 0o644, 1, digest(b"3")), State("file", 0o644, 1, digest(b"2")))
    assert look.seen == digest(b"2")
    assert look.last is not None
    assert look.last.author == ANN
    kept.capture()
    assert kept.versions.look(PLACE, kept.root, "a", Guard()).seen is None


def test_one_at_a_time(kept: Kept) -> None:
    """Whoever waits for a place that somebody else has can be stopped."""
    has, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with kept.versions.turn(PLACE, Guard()):
            has.set()
            may_go.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    has.wait()
    guard = Guard()
    guard.stop()
    try:
        with pytest.raises(Stopped):
            kept.versions.capture(PLACE, kept.root, X, guard)
    finally:
        may_go.set()
        holder.join()
    assert kept.versions.log(PLACE) == ()


def test_stopped_in_the_middle_nothing_is_recorded(kept: Kept) -> None:
    """A capture that is stopped leaves no half of a change, and the next one finds all of it."""
    kept.versions.begin(PLACE, kept.root, Guard())
    (kept.root / "a").write_text("1")

    class Late(Guard):
        def check(self) -> None:
            raise Stopped

    with pytest.raises(Stopped):
        kept.versions.capture(PLACE, kept.root, X, Late())
    assert kept.versions.tree(PLACE) == {}
    assert kept.capture() is not None


def test_few_files_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many places few are held open; those that are not are as they were."""
    monkeypatch.setattr(versions_sqlite, "MAX_OPEN", 2)
    kept = Kept(tmp_path)
    places = [Place("default", "session", f"s-{number}") for number in range(6)]
    (kept.root / "a").write_text("1")
    for place in places:
        kept.versions.begin(place, kept.root, Guard())
    assert len(kept.versions._open) == 2
    assert [kept.versions.tree(place)["a"].size for place in places] == [1] * 6
    kept.versions.release(places[-1])
    assert places[-1] not in kept.versions._open


def test_destroyed_is_gone(kept: Kept) -> None:
    """Nothing of a destroyed place is left on disk, and another one is untouched; there may have been none."""
    other = Place("default", "space", "s-1")
    kept.change(X, "a", "1")
    kept.versions.begin(other, kept.root, Guard())
    kept.versions.destroy(PLACE)
    assert [path.name for path in (kept.home / "default/sessions").iterdir()] == []
    assert kept.versions.log(PLACE) == ()
    assert len(kept.versions.log(other)) == 1
    kept.versions.destroy(PLACE)


@pytest.mark.parametrize("flaw", ["torn", "foreign", "another place's", "broken content"])
def test_a_file_that_is_not_ours(kept: Kept, flaw: str) -> None:
    """Nothing is recorded in, or believed of, a file that is broken or is of somebody else: it is said, and stays as it is."""
    kept.change(X, "a", "1")
    kept.versions.close()
    path = kept.home / "default/sessions/s-1.db"
    place = PLACE
    if flaw == "torn":
        path.write_bytes(b"no database at all, however long it may be")
    elif flaw == "foreign":
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 77")
        connection.close()
    elif flaw == "another place's":
        path.rename(path.with_name("s-2.db"))
        place, path = Place("default", "session", "s-2"), path.with_name("s-2.db")
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE contents SET data = (SELECT data FROM contents LIMIT 1), digest = 'sha256:0'")
        connection.close()
    before = path.read_bytes()
    asked = partial(kept.versions.capture, place, kept.root, X, Guard())
    with pytest.raises(VersionsUnavailable):
        partial(kept.versions.content, place, "sha256:0")() if flaw == "broken content" else asked()
    assert path.read_bytes() == before


def test_names_that_name_no_place(kept: Kept) -> None:
    """A place whose name could lead elsewhere is none."""
    for place in (Place("..", "session", "s-1"), Place("default", "session", "../x"), Place("default", "space", "")):
        with pytest.raises(DriverError, match="no place"):
            kept.versions.begin(place, kept.root, Guard())


def test_a_place_without_a_folder(kept: Kept) -> None:
    """Where there is no folder nothing is recorded, least of all that all of it is gone."""
    kept.change(X, "a", "1")
    (kept.root / "a").unlink()
    kept.root.rmdir()
    with pytest.raises(DriverError, match="cannot be opened"):
        kept.capture()
    assert len(kept.versions.log(PLACE)) == 2


def test_the_mask_of_a_place_is_for_every_look(tmp_path: Path) -> None:
    """What was left there meanwhile is masked too, whoever looks: an undo keeps no value that nobody may see."""
    kept = Kept(tmp_path)
    masked = SqliteVersions(kept.home, Clock(), masks=lambda place: lambda content: content.replace(b"hunter2", b"[masked]"))
    masked.begin(PLACE, kept.root, Guard())
    (kept.root / "a").write_text("hunter2")
    change = masked.undo(PLACE, kept.root, None, ANN, Guard())
    assert change is not None
    assert masked.content(PLACE, change.entries[0].before.digest if change.entries[0].before else "") == b"[masked]"
    with pytest.raises(NotKept):
        masked.content(PLACE, digest(b"hunter2"))


def test_paths_take_up_room_too(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that makes files without end cannot fill the disk by the mere telling: at some point nothing more is recorded, so
    nothing more is done; what was done can still be taken back.
    """
    monkeypatch.setattr(place_file, "_TOLD", 3000)
    kept.change(X, "first", "1")
    for number in range(20):
        (kept.root / f"{number}").write_text("")
    with pytest.raises(VersionsUnavailable, match="no room to tell of more changes"):
        kept.capture(X)
    for number in range(20):
        (kept.root / f"{number}").unlink()
    for number in range(10):
        kept.change(X, "first", f"{number + 2}")
    with pytest.raises(VersionsUnavailable):
        kept.change(X, "second", "100")
    assert kept.versions.log(PLACE, limit=100)[0].number == 11
    assert kept.undo(*range(2, 12)) is not None
    assert (kept.text("first"), kept.text("second")) == ("1", "100")
    assert [change.op for change in kept.versions.log(PLACE, limit=2)] == ["undo", "found"]
