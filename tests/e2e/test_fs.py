"""`agentos fs` as people type it: what agents did to files, by which decision, and taking that back."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import shutil
import subprocess
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from e2e_files import DECLARED, tree_digest
from e2e_runtime import AGENTOS, ROOT, Cli, Done, mask
from syrupy.assertion import SnapshotAssertion

from agentos.abi.canonical import digest

VERBS = ("ls", "cat", "write", "log", "diff", "blame", "restore", "undo")
DRIVES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")
"""What can drive a terminal, or make its reader see another text."""


def told(done: Done, *paths: Path) -> str:
    """Both streams, without what differs from run to run."""
    text = mask(f"{done.out}--- exit {done.code}\n{done.err}", *paths)
    return re.sub(r"sha256:[0-9a-f]{12}…", "sha256:SHORT…", text)


@pytest.fixture
def house(up: Cli, tmp_path: Path) -> Cli:
    """The agents, applied; ann who approves and bob who audits."""
    file = tmp_path / "files.yaml"
    file.write_text(DECLARED)
    up("apply", str(file), "--yes", "--allow-widen")
    up("principal", "create", "ann", "--role", "approver")
    up("principal", "create", "bob", "--role", "auditor")
    return up


def run(cli: Cli, agent: str, goal: str, *words: str, expect: int = 0) -> str:
    return str(cli("run", agent, goal, *words, "--wait", "-o", "json", expect=expect).json["session"])


def workspace(cli: Cli, session: str) -> Path:
    return cli.home / "workspaces" / "default" / session


def log(cli: Cli, place: str, *words: str) -> list[dict[str, Any]]:
    """The changes of a place, the oldest first."""
    changes: list[dict[str, Any]] = cli("fs", "log", place, *words, "-o", "json").json
    return changes[::-1]


def decided(cli: Cli, session: str, call: str) -> dict[str, Any]:
    """The last decision about a call, as the log has it."""
    events = cli("logs", session, "-o", "json").json
    found: dict[str, Any] = [
        event for event in events if event["type"] == "agentos.syscall.decided" and event["data"]["call"] == call
    ][-1]
    return found


def test_what_the_verbs_say_of_themselves(cli: Cli, snapshot: SnapshotAssertion) -> None:
    """The help of the group and of each verb."""
    assert mask(cli("fs", "--help").out) == snapshot(name="group")
    for verb in VERBS:
        assert mask(cli("fs", verb, "--help").out) == snapshot(name=verb)


def test_three_ways_to_write_and_whose_each_change_is(house: Cli, snapshot: SnapshotAssertion) -> None:
    """By a primitive, by a program in a sandbox, by a proposal that a person read as a diff: each change names agent, call and
    the event that decided it, the last one also who approved.
    """
    session = run(house, "scribe", "write a letter", expect=5)
    assert told(house("approvals", "list")) == snapshot(name="list")
    [row] = house("approvals", "list", "-o", "json").json
    assert row["diff"].splitlines()[3:6] == [" Dear customer,", "-we are sorry.", "+we are very sorry."]
    assert [one["author"]["call"] for one in log(house, session)[1:]] == ["call-1-1", "call-1-2", "call-2-1"]
    assert told(house("--as", "ann", "approvals", "approve", session, "--reason", "it is true")) == snapshot(name="approve")
    house("wait", session)
    said = [
        house("fs", "ls", session),
        house("fs", "ls", session, "out", "--at", "1"),
        house("fs", "log", session),
        house("fs", "log", session, "out/list.txt", "--limit", "1"),
        house("fs", "diff", session, "--path", "out/list.txt", expect=2),
        house("fs", "diff", session, "2", "3", expect=2),
        house("fs", "diff", session, "4", "4"),
        house("fs", "blame", session, "out/letter.md"),
        house("fs", "cat", session, "out/letter.md"),
        house("fs", "cat", session, "out/letter.md", "--at", "3"),
    ]
    assert "\n".join(told(done) for done in said) == snapshot(name="said")
    changes = log(house, session)
    assert [one["number"] for one in changes] == [0, 1, 2, 3, 4]
    for change, call in zip(changes[1:], ("call-1-1", "call-1-2", "call-2-1", "call-4-1"), strict=True):
        event, author = decided(house, session, call), change["author"]
        assert (author["actor"], author["session"], author["call"]) == ("agent/scribe", session, call)
        assert author["decision"]["seq"] == event["seq"]
        assert event["data"]["decision"]["effect"] == "allow"
    assert [one["author"].get("approvals") for one in changes] == [None, None, None, None, ["principal/ann"]]
    assert decided(house, session, "call-4-1")["data"]["approvals"][0]["by"] == "principal/ann"
    finished = [one["data"] for one in house("logs", session, "-o", "json").json if one["type"] == "agentos.syscall.finished"]
    acted = {one["call"]: one["acted"] for one in finished if "change" in one.get("acted", {})}
    assert {call: one["change"] for call, one in acted.items()} == {
        "call-1-1": 1, "call-1-2": 2, "call-2-1": 3, "call-4-1": 4
    }  # fmt: skip
    assert acted["call-2-1"]["sandbox"]["isolation"] == "bubblewrap"
    assert acted["call-2-1"]["decision"] == changes[3]["author"]["decision"]


def test_undo_restores_all_and_can_be_undone(house: Cli, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    """Contents, permissions, links, empty folders: byte for byte back to the run's input, and byte for byte forth again. A dry
    run changes nothing, and a second undo finds nothing to do."""
    inbox = tmp_path / "inbox"
    (inbox / "keep").mkdir(parents=True)
    (inbox / "old.txt").write_bytes(b"old\r\n\0")
    (inbox / "keep" / "a").write_text("kept\n")
    clean = tree_digest(workspace(house, run(house, "untidy", "talk", "--input", str(inbox))))
    session = run(house, "untidy", "make a mess", "--input", str(inbox))
    folder = workspace(house, session)
    (folder / "made" / "pipe").unlink()
    messy = tree_digest(folder)
    said = [house("fs", "log", session), house("fs", "diff", session, expect=2), house("fs", "undo", session, "--dry-run")]
    assert tree_digest(folder) == messy
    said += [house("fs", "undo", session, "--reason", "what a mess"), house("fs", "log", session, "--limit", "1")]
    assert tree_digest(folder) == clean
    said += [house("fs", "undo", session), house("fs", "undo", session, "--dry-run")]
    again = house("fs", "undo", session, "--change", "2", "-o", "json").json
    assert again == {"undone": [2], "change": 3}
    assert tree_digest(folder) == messy
    assert "\n".join(told(done) for done in said) == snapshot
    for path in folder.rglob("*"):
        assert path.is_symlink() or not path.lstat().st_mode & 0o6000
    house("fs", "restore", session, "input/old.txt", "--at", "0")
    assert (folder / "input" / "old.txt").read_bytes() == b"old\r\n\0"
    assert told(house("fs", "restore", session, "input/old.txt", "--at", "0")) == snapshot(name="restored")
    house("fs", "restore", session, "made", "--at", "0", "--reason", "not that")
    assert not (folder / "made").exists()
    assert log(house, session)[-1]["author"] == {"actor": "principal/operator", "note": "not that"}


def test_one_call_is_taken_back_and_not_over_the_work_of_others(house: Cli, snapshot: SnapshotAssertion) -> None:
    """What a later change has built upon is not taken back without it: exit code 4 names the files, and nothing is touched."""
    session = run(house, "scribe", "write a letter", expect=5)
    folder = workspace(house, session)
    before = tree_digest(folder)
    said = [
        house("fs", "undo", session, "--call", "call-1-2", expect=4),
        house("fs", "undo", session, "--change", "2", expect=4),
        house("fs", "undo", session, "--call", "call-9-9", expect=1),
        house("fs", "undo", session, "--change", "0", expect=1),
        house("fs", "undo", session, "--change", "77", expect=1),
    ]
    assert tree_digest(folder) == before
    said += [house("fs", "undo", session, "--call", "call-2-1", "--dry-run")]
    said += [house("fs", "undo", session, "--call", "call-2-1")]
    assert (folder / "out" / "list.txt").read_text() == "pear\napple\nfig\n"
    said += [house("fs", "undo", session, "--change", "2", "--change", "3", "--change", "4")]
    assert not (folder / "out" / "list.txt").exists()
    assert (folder / "out" / "letter.md").exists()
    assert "\n".join(told(done) for done in said) == snapshot
    conflict = house("fs", "undo", session, "--change", "1", "-o", "json", expect=0).json
    assert conflict["undone"] == [1]
    assert not (folder / "out").exists()


def test_who_writes_says_what_he_replaces(house: Cli, snapshot: SnapshotAssertion) -> None:
    """Without a word only a new file is written; with the digest exactly that file is replaced; with `any` whatever is there,
    which is kept. Of several who replace the same file at once one does, the others are told (4)."""
    session = run(house, "scribe", "write a letter", expect=5)
    words = ("fs", "write", session, "n/notes.md")
    said = [house(*words, stdin="one\n"), house(*words, stdin="one\n"), house(*words, stdin="two\n", expect=4)]
    said += [house(*words, "--expected", digest(b"nothing"), stdin="two\n", expect=4)]
    said += [house(*words, "--expected", digest(b"one\n"), "--reason", "better", stdin="two\n")]
    said += [house("fs", "write", session, "gone.md", "--expected", digest(b"x"), stdin="x", expect=4)]
    said += [
        house("fs", "write", session, "n", stdin="x", expect=64),
        house("fs", "write", session, "n/../../x", stdin="x", expect=1),
    ]
    said += [house("fs", "write", session, "x.md", "--label", "secret", stdin="x", expect=64)]
    assert "\n".join(told(done) for done in said) == snapshot
    with ThreadPoolExecutor(4) as pool:
        at_once = list(
            pool.map(lambda n: house(*words, "--expected", digest(b"two\n"), stdin=f"by {n}\n", expect=None), range(4))
        )
    assert sorted(done.code for done in at_once) == [0, 4, 4, 4]
    [winner] = [number for number, done in enumerate(at_once) if done.code == 0]
    assert house("fs", "cat", session, "n/notes.md").out == f"by {winner}\n"
    house("fs", "restore", session, "n/notes.md", "--at", "4", "--expected", digest(b"two\n"), expect=4)
    house(*words, "--expected", "any", stdin="")
    assert workspace(house, session).joinpath("n/notes.md").read_bytes() == b""
    assert house("fs", "cat", session, "n/notes.md", "--at", "6").out == f"by {winner}\n"
    too_large = house("fs", "write", session, "large", stdin="x" * (1024 * 1024 + 1), expect=64)
    assert "1048576 is the most" in too_large.err


def test_an_agent_does_not_write_over_what_a_person_wrote_meanwhile(house: Cli) -> None:
    """The write is refused until the agent has read the file again; both versions are kept."""
    session = house("run", "patient", "wait for us", "-o", "json").json["session"]
    deadline = time.monotonic() + 30
    while "wait" not in [one["data"].get("tool") for one in house("logs", session, "-o", "json").json]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    house("fs", "write", session, "a.txt", "--expected", digest(b"of the agent\n"), stdin="of a person\n")
    house("session", "signal", session, "go")
    house("wait", session)
    result = house("session", "show", session, "-o", "json").json["result"]
    refused, read, wrote = result.split(" | ")
    assert "somebody else has changed the file" in refused
    assert read == "of a person\n"
    assert wrote == "wrote 21 bytes to a.txt"
    assert [one["author"]["actor"] for one in log(house, session)] == [
        "system/begin", "agent/patient", "principal/operator", "agent/patient"
    ]  # fmt: skip
    assert house("fs", "cat", session, "a.txt", "--at", "2").out == "of a person\n"


def test_what_two_agents_share(house: Cli, snapshot: SnapshotAssertion) -> None:
    """A space is a place like a workspace: each sees the other's files, changes name their session, and undo takes one session's
    call back and not the other's of the same id."""
    first = run(house, "poster", "first.txt")
    second = run(house, "poster", "second.txt")
    assert "from first.txt" in house("session", "show", second, "-o", "json").json["result"]
    shown = told(house("fs", "log", "space/board"))
    assert f"{first}/call-1-1" in house("fs", "log", "space/board").out
    said = [house("fs", "undo", "space/board", expect=64), house("fs", "undo", "space/board", "--call", "call-1-1", expect=64)]
    said += [house("fs", "undo", "space/board", "--call", f"{first}/call-1-1"), house("fs", "ls", "space/board")]
    said += [house("fs", "write", "space/board", "list.csv", "--label", "internal", stdin="a,b\n")]
    assert "\n".join([shown, *(told(done) for done in said)]) == snapshot
    assert house("fs", "cat", "space/board", "second.txt").out == "from second.txt\n"
    assert (house.home / "spaces" / "default" / "board" / "second.txt").exists()
    again = run(house, "poster", "first.txt")
    assert house("session", "show", again, "-o", "json").json["state"] == "finished"


def test_hostile_names_and_contents_reach_no_terminal(house: Cli, tmp_path: Path) -> None:
    """Control characters of names and contents are shown escaped by every verb and in every form; only `cat` into a file or a
    pipe gives the bytes as they are."""
    inbox = tmp_path / "inbox"
    (inbox / "keep").mkdir(parents=True)
    (inbox / "old.txt").write_text("old\n")
    session = run(house, "untidy", "make a mess", "--input", str(inbox))
    evil = "made/\x1b[2J\u202e\x07evil.txt"
    for words in (
        ("ls", session), ("ls", session, "-o", "json"), ("ls", session, "-o", "yaml"), ("log", session), ("log", session, evil),
        ("log", session, "-o", "json"), ("diff", session), ("diff", session, "-o", "yaml"), ("blame", session, evil),
        ("blame", session, evil, "-o", "json"), ("cat", session, f"{evil}\x1b[31m"), ("restore", session, evil, "--at", "0"),
        ("undo", session, "--change", "2"), ("write", session, evil),
    ):  # fmt: skip
        done = house("fs", *words, expect=None, stdin="mine\n")
        assert not DRIVES.search(done.out + done.err), words
        assert words[0] == "undo" or re.search(r"\\(x1b|u001b|e)\[", done.out + done.err), words
    whole = subprocess.run(
        [AGENTOS, "fs", "cat", session, "made/data.bin"], cwd=ROOT, env=house.environment(), capture_output=True, check=True
    )
    assert whole.stdout == bytes(range(256))
    shown = on_terminal(house, "fs", "cat", session, evil)
    assert "\\x1b]0;owned\\x07 first" in shown
    assert "second\\x1b[31m\\u2028-third" in shown
    assert not DRIVES.search(shown.replace("\r\n", "\n"))


def on_terminal(cli: Cli, *words: str) -> str:
    """What a command prints when its standard output is a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([AGENTOS, *words], cwd=ROOT, env=cli.environment(), stdin=theirs, stdout=theirs, stderr=theirs) as made:
        os.close(theirs)
        found = b""
        try:
            while chunk := os.read(ours, 65536):
                found += chunk
        except OSError:
            # Linux tells the end of a terminal so.
            pass
        assert made.wait(30) == 0
    os.close(ours)
    return found.decode()


def test_what_was_not_kept_and_what_was_cut(house: Cli, snapshot: SnapshotAssertion) -> None:
    """A file beyond the limit is told by digest and size, and not shown; it is taken back only by who says that he loses it. The
    whole of a result that was cut is there by its digest."""
    session = run(house, "untidy", "fill the disk")
    said = [house("fs", "log", session), house("fs", "cat", session, "huge.bin", expect=1)]
    said += [house("fs", "undo", session, expect=1), house("fs", "restore", session, "huge.bin", "--at", "0", expect=1)]
    assert (workspace(house, session) / "huge.bin").exists()
    said += [house("fs", "undo", session, "--lose"), house("fs", "undo", session, "--change", "2", expect=1)]
    assert "\n".join(told(done) for done in said) == snapshot
    assert not (workspace(house, session) / "huge.bin").exists()
    talker = run(house, "untidy", "talk")
    result = house("session", "show", talker, "-o", "json").json["result"]
    named = re.search(r"sha256:[0-9a-f]{64}", result)
    assert named is not None
    whole = "".join(f"{number}\n" for number in range(1, 2001))
    assert house("fs", "cat", talker, named.group()).out == whole
    assert "files.not-kept" in house("fs", "cat", talker, digest(b"never"), expect=1).err


def test_places_that_are_not_there(house: Cli, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    """A session of another tenant is told like one that does not exist; paths that lead out, changes that are none and words that
    are no place have their sentence and their exit code; a workspace that is gone is said."""
    other = tmp_path / "other.yaml"
    other.write_text("apiVersion: agentos/v1\nkind: Tenant\nmetadata: {name: other}\nspec: {description: Others}\n")
    house("apply", str(other), "--yes", "--allow-widen")
    session = run(house, "scribe", "write a letter", expect=5)
    house("principal", "create", "eve", "--role", "operator", "--for", "other")
    nowhere = "s-" + "0" * 19
    said = []
    for verb, *words in (
        ("ls",), ("cat", "out/letter.md"), ("log",), ("diff",), ("blame", "out/letter.md"), ("write", "x"),
        ("restore", "x", "--at", "0"), ("undo",),
    ):  # fmt: skip
        theirs = house("--as", "eve", "fs", verb, session, *words, stdin="x", expect=1)
        none = house("--as", "eve", "fs", verb, nowhere, *words, stdin="x", expect=1)
        assert theirs.err.replace(session, nowhere) == none.err
        assert (theirs.out, none.out) == ("", "")
    for words, code in (
        (("ls", nowhere), 1), (("ls", "../default"), 64), (("ls", "space/nope"), 1), (("ls", "space/../x"), 1),
        (("ls", session, "nope"), 1), (("ls", session, "--at", "99"), 1), (("cat", session, "../../x"), 1),
        (("cat", session, "/etc/passwd"), 1), (("cat", session, "out"), 64), (("cat", session, "."), 64),
        (("cat", session, "out/letter.md", "--at", "0"), 1), (("diff", session, "0", "99"), 1), (("blame", session, "out"), 1),
        (("restore", session, "never", "--at", "0"), 1), (("restore", session, "out", "--at", "99"), 1),
        (("log", session, "--limit", "0"), 64), (("undo", session, "--change", "x"), 64),
    ):  # fmt: skip
        said.append(f"$ fs {' '.join(words)}\n{told(house('fs', *words, expect=code))}")
    shutil.rmtree(workspace(house, session))
    said += [told(house("fs", verb, session, expect=1)) for verb in ("ls", "log", "undo")]
    assert mask("\n".join(said)) == snapshot


def test_who_may_look_and_who_may_change(house: Cli, tmp_path: Path) -> None:
    """An auditor reads, and changes nothing; an approver does neither. What an operator changes stands in the tenant's audit
    chain, with the reason, and all chains still verify."""
    session = run(house, "scribe", "write a letter", expect=5)
    before = tree_digest(workspace(house, session))
    reads = (("ls", session), ("cat", session, "out/letter.md"), ("log", session), ("blame", session, "out/letter.md"))
    changes = (("write", session, "x"), ("restore", session, "out", "--at", "0"), ("undo", session))
    for words in reads:
        house("--as", "bob", "fs", *words)
        house("--as", "ann", "fs", *words, expect=3)
    house("--as", "bob", "fs", "diff", session, expect=2)
    house("--as", "ann", "fs", "diff", session, expect=3)
    for who in ("ann", "bob"):
        for words in changes:
            assert "role operator can" in house("--as", who, "fs", *words, stdin="x", expect=3).err
    assert tree_digest(workspace(house, session)) == before
    house("fs", "write", session, "x", "--reason", "case 12", stdin="x")
    house("fs", "restore", session, "out", "--at", "1")
    house("fs", "undo", session, "--dry-run")
    house("fs", "undo", session, "--reason", "all of it")
    house("evidence", "export", "-o", str(tmp_path / "pack.zip"))
    with zipfile.ZipFile(tmp_path / "pack.zip") as pack:
        events = [json.loads(line) for line in pack.read("audit/chain.jsonl").splitlines()]
    files = [event["data"] | {"actor": event["actor"]} for event in events if event["type"] == "agentos.audit.files"]
    by = {"actor": "principal/operator", "place": f"session {session}"}
    assert files == [
        {**by, "op": "write", "reason": "case 12"}, {**by, "op": "restore", "reason": ""},
        {**by, "op": "undo", "reason": "all of it"},
    ]  # fmt: skip
    assert house("audit", "verify", "-o", "json").json["ok"]


def test_the_versions_of_an_erased_session_are_gone(house: Cli) -> None:
    """Neither a change nor a byte of a content is left on the disk, and every verb says that the session was erased."""
    session = run(house, "untidy", "talk", "--data-subject", "customer-7")
    secret = base64.b32encode(os.urandom(30)).decode()
    house("fs", "write", session, "note.md", stdin=f"{secret}\n")
    house("fs", "write", session, "note.md", "--expected", "any", stdin="nothing\n")
    kept = house.home / "versions" / "default" / "sessions"
    assert list(kept.glob(f"{session}.db*"))
    house("audit", "erase", "--data-subject", "customer-7", "--basis", "request 17", "--yes")
    assert not list(kept.glob(f"{session}*"))
    assert not workspace(house, session).exists()
    for words in (("ls",), ("log",), ("cat", "note.md"), ("diff",), ("undo",)):
        assert "erased" in house("fs", words[0], session, *words[1:], expect=1).err
    house("fs", "write", session, "note.md", stdin="again\n", expect=1)
    assert not list(kept.glob(f"{session}*"))
    assert house("audit", "verify", "-o", "json").json["ok"]
