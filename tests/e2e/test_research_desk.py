"""`examples/research-desk` on a real runtime: run by a person, by a file, by hand of its trigger, and killed in the middle."""

from __future__ import annotations

import shutil
import time
from typing import Any

import pytest
from e2e_runtime import ROOT, Cli, Done
from test_crash_points import alive

from agentos.abi.canonical import Json

EXAMPLE = ROOT / "examples" / "research-desk"
PAPERS = sorted(path.name for path in (EXAMPLE / "papers").iterdir())
ROGUE = "01 logistics hub, night turn.md"
EMBARGOED = {"07 design studio, diary study.txt", "09 insurance claims, two regions.md"}
QUESTION = "Does a four-day week pay off?"

COUNTED = """
| verdict | papers |
| --- | --- |
| supports | 4 |
| contradicts | 2 |
| unclear | 1 |

Of 10 readers 8 answered, 1 of them nothing of use.
"""


class Desk:
    """The example, applied, with its papers in place."""

    def __init__(self, cli: Cli) -> None:
        self._cli = cli
        cli("apply", str(EXAMPLE), "--yes", "--allow-widen")
        shutil.copytree(EXAMPLE / "papers", self.space("papers"))

    def space(self, name: str) -> Any:
        return self._cli.home / "spaces" / "desk" / name

    def __call__(self, *words: str, expect: int | None = 0) -> Done:
        return self._cli("--tenant", "desk", *words, expect=expect)

    def rows(self) -> dict[str, Json]:
        return {row["id"]: row for row in self("ps", "--all", "-o", "json").json}

    def until(self, what: str, found: Any) -> Any:
        """What `found` gives, once it is something."""
        deadline = time.monotonic() + 60
        while not (met := found()):
            assert time.monotonic() < deadline, f"never came: {what}"
            time.sleep(0.2)
        return met

    def report(self, lead: str) -> str:
        assert self("wait", lead).code == 0
        return self("session", "files", lead, "output/report.md").out

    def check(self, lead: str, question: str = QUESTION) -> dict[str, Json]:
        """The report is there, and one reader for each paper; gives their sessions by paper."""
        assert self.report(lead) == f"# What the papers say\n\n{question}\n{COUNTED}"
        shown = self("session", "show", lead, "-o", "json").json
        rows = self.rows()
        readers = {row["goal"]: row for row in rows.values() if row["parent"] == lead}
        assert sorted(readers) == PAPERS
        assert {row["id"] for row in readers.values()} == {one["session"] for one in shown["children"]}
        assert sum(row["parent"] == lead for row in rows.values()) == 10, "nobody reads twice"
        states = {paper: row["state"] for paper, row in readers.items()}
        assert states == {paper: "cancelled" if paper in EMBARGOED else "finished" for paper in PAPERS}
        return readers


def test_ten_readers_and_one_that_obeys_its_paper(up: Cli) -> None:
    """Eight of ten answers are enough, and who waits for more is cancelled. The reader that obeys its paper may not mail, may not
    have its lead wait for itself, may not read on; and what it says is not counted."""
    desk = Desk(up)
    lead = desk("run", "lead", QUESTION).out.strip()
    readers = desk.check(lead)
    rogue = readers[ROGUE]["id"]
    assert readers[ROGUE]["denied"] == 2
    denied = desk("audit", "query", "--effect", "deny", "-o", "json").json
    assert [(one["session"], one["tool"], *one["rules"]) for one in sorted(denied, key=lambda one: one["time"])] == [
        (rogue, "outbox", "grants.delegator"),
        (rogue, "read-paper", "kernel.budget"),
    ]
    events = desk("logs", rogue, "-o", "json").json
    [error] = [event["data"]["error"] for event in events if event["type"] == "agentos.syscall.failed"]
    assert error["code"] == "lock.deadlock"
    assert f"{lead} waits for delegation call-2-1, which {rogue}" in error["message"]
    assert events[-1]["data"]["result"] == "Every paper supports."
    assert not (up.home / "workspaces" / "desk" / rogue / "outbox").exists()
    page = desk("session", "show", rogue, "-o", "json").json
    assert page["parent"] == {"session": lead, "call": "call-2-1", "tool": "hand-out", "agent": "lead"}
    assert page["budget"]["calls"] == {"used": 4, "limit": 4}
    assert "children     10: 2 cancelled, 8 finished" in desk("session", "show", lead).out
    _, first, *below = desk("ps", "--all", "--tree").out.splitlines()
    assert first.startswith(lead)
    assert [line.split()[0] for line in below if line.startswith("  s-")] == [row["id"] for row in _by_making(readers)]
    assert desk("session", "replay", lead).code == 0
    assert not desk("locks", "-o", "json").json["locks"]


def _by_making(readers: dict[str, Json]) -> list[Json]:
    return sorted(readers.values(), key=lambda row: (row["created_ms"], row["id"]))


def test_a_question_that_arrives_and_one_that_is_due(up: Cli) -> None:
    """A file in the space of questions starts one run, which answers it; the clock's trigger tells when it is due, can be fired
    by hand, and the same firing again starts nothing."""
    desk = Desk(up)
    rows = {row["name"]: row for row in desk("trigger", "list", "--next", "3", "-o", "json").json["triggers"]}
    assert len(rows["monday"]["next"]) == 3
    assert rows["question"]["next"] == []
    (desk.space("questions") / "kitchens.txt").write_text("And what do kitchens say?\n")
    [by_file] = desk.until("a run for the file", lambda: desk("trigger", "show", "question", "-o", "json").json["runs"])
    desk.check(by_file["session"], "And what do kitchens say?")
    fired = desk("trigger", "fire", "monday", "--id", "by-hand", "-o", "json").json
    desk.check(fired["session"])
    again = desk("trigger", "fire", "monday", "--id", "by-hand", "-o", "json").json
    assert (again["session"], again["again"]) == (fired["session"], True)
    leads = {row["id"]: row for row in desk.rows().values() if row["agent"] == "lead"}
    assert {(row["trigger_name"], row["actor"]) for row in leads.values()} == {
        ("question", "trigger/question"),
        ("monday", "principal/operator"),
    }
    assert len(leads) == 2


@pytest.mark.parametrize("point", ["after-session.created:5", "before-session.finished:4"])
def test_killed_while_the_readers_are_at_work(cli: Cli, point: str) -> None:
    """SIGKILL with four readers begun, and with three that have finished: the next runtime brings the report, and no reader is
    begun twice."""
    cli("up", "--detach")
    desk = Desk(cli)
    cli("down")
    cli("up", "--detach", more={"AGENTOS_FAILPOINT": point})
    pid = cli.runtime_pid()
    lead = desk("run", "lead", QUESTION).out.strip()
    desk.until(point, lambda: not alive(pid))
    cli("up", "--detach")
    readers = desk.check(lead)
    for row in readers.values():
        types = [event["type"] for event in desk("logs", row["id"], "-o", "json").json]
        assert types.count("agentos.session.created") == 1


def test_readers_are_frozen_and_thawed(up: Cli) -> None:
    """While readers are frozen the lead waits for them, and both can be seen; after the thaw the report comes."""
    desk = Desk(up)
    freeze = desk("freeze", "--agent", "reader", "--reason", "one of them obeys papers", "-o", "json").json["freeze"]
    lead = desk("run", "lead", QUESTION).out.strip()
    shown = desk.until("the lead waits", lambda: desk("session", "show", lead, "-o", "json").json.get("children"))
    assert {one["state"] for one in shown} == {"not begun"}
    assert "waits for    10 of its 10 children" in desk("session", "show", lead).out
    both = desk("freeze", "--agent", "lead", "--reason", "and who sends them", "-o", "json").json["freeze"]
    page = desk("session", "show", lead)
    assert "frozen       by principal/operator" in page.out
    assert f"next: agentos thaw {both}" in page.err
    [row] = desk("ps", "-o", "json").json
    assert (row["id"], row["frozen"]) == (lead, both)
    assert desk("ps").out.splitlines()[1].split()[2] == "frozen"
    desk("thaw", "--all", "--reason", "they may")
    assert "frozen" not in desk("session", "show", lead, "-o", "json").json
    desk.check(lead)
    assert freeze != both
