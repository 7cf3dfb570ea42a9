"""Versions against a plain model: whatever is done to a tree, every moment of it can be told and had again."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentos.abi.canonical import digest
from agentos.abi.errors import ChangedMeanwhile
from agentos.files.adapters.versions_sqlite import SqliteVersions
from agentos.files.guard import Guard
from agentos.files.versions import FOUND, Author, Change, Place, State

PLACE = Place("default", "session", "s-1")

NAMES = st.sampled_from(
    [
        "a",
        "a0",
        "a.",
        "a-",
        "b",
        "é",
        "e\u0301",
        "a\nb",
        "-rf",
        " ",
        "'; DROP TABLE entries; --",
        "%s",
        "\\",
        "*",
        "🦀",
        "\u202ex",
        "~",
    ]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(tuple)
CONTENTS = st.sampled_from([b"", b"one\n", b"two\n", b"\0\xff" * 9, b"one\ntwo\n", bytes(range(256)) * 3])
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o000, 0o444, 0o111])
TARGETS = st.sampled_from(["a", "../..", "/etc/passwd", "nowhere", "🦀", "."])
AUTHORS = st.sampled_from(
    [Author("agent/x", "s-1", "c-1", (3, "sha256:aa")), Author("agent/y", "s-2", "c-9"), Author("principal/ann"), FOUND]
)

Truth = dict[str, State]


class Clock:
    """A clock that stands."""

    def now_ms(self) -> int:
        return 1_700_000_000_000


def seen(root: Path) -> Truth:
    """What is below a folder, told by the plainest means."""
    found: Truth = {}
    for where, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(where, name)
            status = path.lstat()
            shown, mode = str(path.relative_to(root)), stat.S_IMODE(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                found[shown] = State("link", mode, target=str(path.readlink()))
            elif stat.S_ISDIR(status.st_mode):
                found[shown] = State("folder", mode)
            else:
                body = path.read_bytes()
                found[shown] = State("file", mode, len(body), digest(body))
    return found


class Trees(RuleBasedStateMachine):
    """Several people change a tree; sometimes somebody looks, takes something back, or puts something there again."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp(prefix="versions-"))
        self.root = self.top / "root"
        self.canary = self.top / "canary"
        self.root.mkdir()
        self.canary.mkdir()
        (self.canary / "file").write_text("untouched")
        self.versions = SqliteVersions(self.top / "versions", Clock())
        self.truth: list[Truth] = []
        self.contents: dict[str, bytes] = {}

    def teardown(self) -> None:
        assert (self.canary / "file").read_text() == "untouched"
        assert [path.name for path in self.canary.iterdir()] == ["file"]
        self.versions.close()
        shutil.rmtree(self.top)

    @initialize(paths=st.lists(PATHS, max_size=4), content=CONTENTS)
    def begin(self, paths: list[tuple[str, ...]], content: bytes) -> None:
        for path in paths:
            self.write(path, content, 0o644)
        change = self.versions.begin(PLACE, self.root, Guard())
        assert (change.number, change.op) == (0, "begin")
        self.truth.append(seen(self.root))

    @rule(path=PATHS, content=CONTENTS, mode=MODES)
    def write(self, path: tuple[str, ...], content: bytes, mode: int) -> None:
        target = self.room(path)
        target.write_bytes(content)
        target.chmod(mode)
        self.contents[digest(content)] = content

    @rule(path=PATHS, mode=MODES)
    def folder(self, path: tuple[str, ...], mode: int) -> None:
        target = self.room(path)
        target.mkdir()
        target.chmod(mode)

    @rule(path=PATHS, leads=TARGETS)
    def link(self, path: tuple[str, ...], leads: str) -> None:
        self.room(path).symlink_to(str(self.canary) if leads == "." else leads)

    @rule(path=PATHS)
    def remove(self, path: tuple[str, ...]) -> None:
        self.clear(self.root.joinpath(*path))

    @rule(path=PATHS, mode=MODES)
    def permit(self, path: tuple[str, ...], mode: int) -> None:
        target = self.root.joinpath(*path)
        if self.inside(target) and not target.is_symlink() and target.exists():
            target.chmod(mode)

    @rule(path=PATHS, to=PATHS)
    def move(self, path: tuple[str, ...], to: tuple[str, ...]) -> None:
        source = self.root.joinpath(*path)
        if to[: len(path)] == path or path[: len(to)] == to or not self.inside(source) or not os.path.lexists(source):
            return
        target = self.room(to)
        if os.path.lexists(source):
            source.rename(target)

    @rule(author=AUTHORS)
    def look(self, author: Author) -> None:
        now = seen(self.root)
        change = self.versions.capture(PLACE, self.root, author, Guard())
        assert (change is None) == (now == self.truth[-1])
        if change is not None:
            self.recorded(change, now)
            assert change.author == author

    @rule()
    def look_after_a_restart(self) -> None:
        self.versions.close()
        self.versions = SqliteVersions(self.top / "versions", Clock())

    @rule(data=st.data())
    def tell(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.truth) - 1))
        assert dict(self.versions.tree(PLACE, at)) == self.truth[at]
        for state in self.truth[at].values():
            if state.kind == "file":
                assert self.versions.content(PLACE, state.digest) == self.contents[state.digest]

    @rule()
    def undo_all_and_undo_that(self) -> None:
        self.settle()
        now = self.truth[-1]
        change = self.versions.undo(PLACE, self.root, None, Author("principal/ann"), Guard())
        assert seen(self.root) == self.truth[0]
        if change is None:
            assert now == self.truth[0]
            return
        self.recorded(change, self.truth[0])
        again = self.versions.undo(PLACE, self.root, [change.number], Author("principal/ann"), Guard())
        assert seen(self.root) == now
        assert again is not None
        assert again.undoes == (change.number,)
        self.recorded(again, now)

    @precondition(lambda self: len(self.truth) > 1)
    @rule(data=st.data())
    def undo_some(self, data: st.DataObject) -> None:
        self.settle()
        numbers = data.draw(st.sets(st.integers(1, len(self.truth) - 1), min_size=1, max_size=4))
        now = self.truth[-1]
        try:
            change = self.versions.undo(PLACE, self.root, numbers, Author("principal/ann"), Guard())
        except ChangedMeanwhile:
            assert seen(self.root) == now
            return
        if change is None:
            assert seen(self.root) == now
            return
        self.recorded(change, seen(self.root))
        if numbers == {len(self.truth) - 2}:
            assert self.truth[-1] == self.truth[-3], "the last change alone is always taken back whole"

    @rule(data=st.data(), path=PATHS)
    def restore(self, data: st.DataObject, path: tuple[str, ...]) -> None:
        self.settle()
        at, shown = data.draw(st.integers(0, len(self.truth) - 1)), "/".join(path)
        then, now = self.truth[at], self.truth[-1]
        if not any(self.below(one, shown) for one in (*then, *now)):
            return
        try:
            change = self.versions.restore(PLACE, self.root, shown, at, Author("principal/ann"), Guard())
        except ChangedMeanwhile:
            assert seen(self.root) == now
            return
        after = seen(self.root)
        assert {one: state for one, state in after.items() if self.below(one, shown)} == {
            one: state for one, state in then.items() if self.below(one, shown)
        }
        if change is not None:
            self.recorded(change, after)

    @invariant()
    def numbers_are_counted(self) -> None:
        if self.truth:
            assert [change.number for change in self.versions.log(PLACE, limit=3)] == list(range(len(self.truth)))[:-4:-1]

    # --- what the rules are made of

    def settle(self) -> None:
        self.look(FOUND)

    def recorded(self, change: Change, now: Truth) -> None:
        """A change is the difference of two trees, and nothing else."""
        before = self.truth[-1]
        assert change.number == len(self.truth)
        assert {entry.path: (entry.before, entry.after) for entry in change.entries} == {
            path: (before.get(path), now.get(path)) for path in before.keys() | now.keys() if before.get(path) != now.get(path)
        }
        assert change == self.versions.change(PLACE, change.number)
        self.truth.append(now)

    @staticmethod
    def below(path: str, above: str) -> bool:
        return path == above or path.startswith(f"{above}/")

    def inside(self, target: Path) -> bool:
        """Whether no link is on the way to a path: what is behind one is not ours."""
        return not any(parent.is_symlink() for parent in target.parents if self.root in parent.parents)

    def room(self, path: tuple[str, ...]) -> Path:
        """Room for something new at a path: folders above it, nothing at it."""
        current = self.root
        for name in path[:-1]:
            current /= name
            if current.is_symlink() or not current.is_dir():
                self.clear(current)
                current.mkdir()
        target = current / path[-1]
        self.clear(target)
        return target

    def clear(self, target: Path) -> None:
        if not self.inside(target) or not os.path.lexists(target):
            return
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink()


TestTrees = Trees.TestCase
TestTrees.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
