"""The quickstart as one command (`make demo`): every step is the command that an operator would type, run as a process.

Two agents work over the same folder. One behaves. The other obeys whatever the files say, and is contained by the same policy.
State and evidence stay in `.agentos/demo`. With `--inbox DIR` it runs over a folder of yours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from agentos.cli.render.text import arguments, count, plain, short, table

ROOT = Path(__file__).resolve().parents[2]
AGENTOS = Path(sys.executable).with_name("agentos")
PATHS = ("programs/inbox-triage", "examples/quickstart")
STEPS = 7

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--inbox", type=Path, default=ROOT / "examples/quickstart/inbox", help="the folder to triage")
parser.add_argument("--state", type=Path, default=ROOT / ".agentos/demo", help="where state and evidence are kept; made anew")
options = parser.parse_args()

STATE: Path = options.state.absolute()
HOME = STATE / "home"
PLAN = STATE / "quickstart.plan"
PACK = STATE / "evidence.zip"
TRUST = STATE / "trust.pub"

TERMINAL = sys.stdout.isatty()
COLOUR = TERMINAL and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
COLUMNS = shutil.get_terminal_size().columns if TERMINAL else 130
TINTS = {
    "+": "green",
    "!": "bright_red",
    "✓": "green",
    "✗": "red",
    "error": "red",
    "allow": "green",
    "deny": "red",
    "refused": "red",
}

started = time.monotonic()
steps = itertools.count(1)

Row = dict[str, Any]
"""An answer of `-o json`."""


def near(path: Path) -> str:
    """`path` as it is typed from the root of the checkout."""
    return os.path.relpath(path, ROOT) if path.is_relative_to(ROOT) else str(path)


def paint(text: str, **style: object) -> str:
    """`text` in colour where that is wanted."""
    return typer.style(text, **style) if COLOUR else text


def title(text: str) -> None:
    """Say which step comes, and how long it has taken so far."""
    took = paint(f"({time.monotonic() - started:.1f} s)", dim=True)
    print(f"\n{paint(f'[{next(steps)}/{STEPS}] {text}', bold=True)} {took}", flush=True)


def tell(line: str = "") -> None:
    """A line, with the colour that its first word stands for."""
    first = line.split(maxsplit=1)[0] if line.strip() else ""
    tint = TINTS.get(first.partition("[")[0])
    print(f"  {paint(line, fg=tint) if tint else line}".rstrip(), flush=True)


def note(line: str) -> None:
    """A remark of ours between what the commands say."""
    print(f"  {paint(line, dim=True)}", flush=True)


def agentos(*words: str, show: bool = True, expect: tuple[int, ...] = (0,), known: Sequence[str] = ()) -> str:
    """Run one command, print it and what it says (without the lines in `known`); stop if it ends in an unexpected way."""
    if show:
        print(f"  {paint(f'$ agentos {shlex.join(words)}', bold=True)}", flush=True)
    done = subprocess.run(
        [AGENTOS, *words],
        cwd=ROOT,
        env={**os.environ, "AGENTOS_HOME": str(HOME)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if show else subprocess.PIPE,
        text=True,
        check=False,
    )
    if show:
        for line in done.stdout.rstrip().splitlines():
            if line not in known:
                tell(line)
    if done.returncode not in expect:
        print(done.stderr or "", file=sys.stderr)
        sys.exit(f"the demo stops: agentos {shlex.join(words)} ended with exit code {done.returncode}")
    return done.stdout


def run(agent: str, goal: str, inbox: Path) -> str:
    """Run an agent until it ends or waits, with one line that says how far it is; return the session."""
    words = ["run", agent, goal, "--input", near(inbox), "--wait"]
    print(f"  {paint(f'$ agentos {shlex.join(words)}', bold=True)}", flush=True)
    child = subprocess.Popen(
        [AGENTOS, *words],
        cwd=ROOT,
        env={**os.environ, "AGENTOS_HOME": str(HOME), "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []
    if child.stderr is None or child.stdout is None:
        raise AssertionError
    for line in child.stderr:
        said.append(line.rstrip())
        if TERMINAL:
            print(f"\r\033[K  {short(f'… event {len(said)}: {said[-1][19:]}', COLUMNS - 4)}", end="", flush=True)
    if TERMINAL:
        print("\r\033[K", end="")
    name = child.stdout.read().strip()
    if child.wait() not in {0, 5}:
        print("\n".join(said[-8:]), file=sys.stderr)
        sys.exit(f"the demo stops: agentos {shlex.join(words)} ended with exit code {child.returncode}")
    note(f"{count(len(said), 'event')}; all of them: agentos logs {name}")
    tell("the session waits for approval" if child.returncode == 5 else "the session is finished")
    return name


def session(name: str) -> Row:
    """One session as JSON."""
    rows: list[Row] = json.loads(agentos("ps", "--all", "-o", "json", show=False))
    return next(row for row in rows if row["id"] == name)


def settle(name: str, verb: str, reason: str) -> int:
    """Answer every question of a session in the same way, as the approver, until it ends; return how many there were."""
    asked = 0
    while session(name)["state"] == "waiting":
        waiting = json.loads(agentos("approvals", "list", "-o", "json", show=False))
        if asked < 2:
            question(next(row for row in waiting if row["session"] == name))
        agentos("--as", "ann", "approvals", verb, name, "--reason", reason, show=asked < 2)
        asked += 1
        agentos("wait", name, show=False, expect=(0, 5))
    if asked > 2:
        note(f"{asked - 2} more answered alike")
    return asked


def question(row: Row) -> None:
    """What a person is asked, as `agentos approvals list` has it."""
    args = dict(row["args"])
    content = str(args.pop("content", ""))
    tell(f"? may it {row['tool']} {arguments(args)}")
    lines = [line for line in content.splitlines() if line.strip()]
    for line in lines[:4]:
        note(f"    | {short(plain(line), COLUMNS - 10)}")
    if len(lines) > 4:
        note(f"    | … {count(len(lines) - 4, 'more line')}")


def summary(name: str) -> list[Row]:
    """Print the syscalls of a session, counted by tool, decision and rule; return them."""
    rows: list[Row] = json.loads(agentos("audit", "query", "--session", name, "--limit", "10000", "-o", "json", show=False))
    counts: Counter[tuple[str, str, str, str]] = Counter()
    for row in rows:
        by = (row["approval_by"] or "").removeprefix("principal/")
        counts[row["decision"] or row["outcome"], row["tool"], ", ".join(row["rules"]) or "no such tool", by] += 1
    note(f"its syscalls, counted from: agentos audit query --session {name}")
    lines = [(decision, tool, number, rule, by or "-") for (decision, tool, rule, by), number in sorted(counts.items())]
    for line in table(("decision", "tool", "calls", "rule", "person"), lines):
        tell(line)
    return rows


def contained(rows: Sequence[Row]) -> None:
    """What was tried and denied, and the rule that stopped it."""
    for row in rows:
        if row["decision"] not in {"deny", "halt"}:
            continue
        tell(f"✗ {row['tool']} {arguments(row['args'], COLUMNS - 8 - len(row['tool']))}")
        # Where several rules deny, what one says of the call tells more than the absence of a grant.
        reason = next((reason for reason in row["reasons"] if not reason.startswith("grant ")), row["reasons"][0])
        because = f"{', '.join(row['rules'])}: {reason}"
        if row["approval_by"]:
            because = f"refused by {row['approval_by']}: {row['approval_reason']}"
        note(f"    {short(plain(because), COLUMNS - 8)}")


def main() -> None:
    """Run the whole story."""
    inbox: Path = options.inbox.absolute()
    if not inbox.is_dir():
        sys.exit(f"{inbox} is no folder")
    if HOME.exists():
        agentos("down", show=False)
        shutil.rmtree(STATE)
    STATE.mkdir(parents=True)
    try:
        story(inbox)
    finally:
        agentos("down", show=False)


def story(inbox: Path) -> None:
    """Every step, in order."""
    files = sum(path.is_file() for path in inbox.rglob("*"))
    print(
        f"AgentOS: two agents work over {count(files, 'file')} in {near(inbox)}; the second one obeys whatever the files tell it."
    )

    title("declare: YAML, checked against schemas; every fault with its place")
    agentos("validate", *PATHS)

    title("start: a NATS server with JetStream for the log, OPA in the process for policy, keys for whoever acts")
    agentos("up", "--detach")
    agentos("principal", "create", "ann", "--role", "approver")

    title("plan and apply: what changes, what it permits, one atomic revision")
    planned = agentos("plan", *PATHS, "--format", "brief", "-o", near(PLAN), expect=(2,))
    note("--yes does not cover more permission; that has its own word")
    words = ("--yes", "--allow-widen", "--reason", "the quickstart")
    agentos("apply", "--plan", near(PLAN), *words, "-o", "brief", known=[_bare(line) for line in planned.splitlines()])
    note("ann is an approver, no operator, so she cannot:")
    agentos("--as", "ann", "apply", "examples/01-hello", "--yes", "--allow-widen", expect=(3,))

    title("run: the agent triages; what the policy asks a person for waits, and runs exactly as it was approved")
    triage = run("triage", "Triage the inbox and propose a reply.", inbox)
    settle(triage, "approve", "read it; may go out")
    summary(triage)

    title("contain: the same work, grants and policy, and a model that does what any text it reads commands")
    obedient = run("triage-obedient", "Triage the inbox and do what it asks.", inbox)
    settle(obedient, "deny", "nobody asked for this")
    rows = summary(obedient)
    contained(rows)
    verdict(rows)

    title("prove: export the signed log and verify it without the runtime")
    agentos("evidence", "export", "-o", near(PACK))
    agentos("evidence", "key", "-o", near(TRUST))
    agentos("down")
    agentos("evidence", "verify", near(PACK), "--trust", near(TRUST))
    forged = STATE / "forged.zip"
    data = bytearray(PACK.read_bytes())
    data[len(data) // 2] ^= 1
    forged.write_bytes(data)
    note("and with one bit changed in the middle of it:")
    agentos("evidence", "verify", near(forged), "--trust", near(TRUST), expect=(1,))
    forged.unlink()

    title("done: all of it stays here, to look at")
    for word, place in (
        ("report", f"{near(HOME)}/workspaces/default/{triage}/triage/report.md"),
        ("outbox", f"{near(HOME)}/workspaces/default/{triage}/outbox/"),
        ("evidence", f"{near(PACK)}, verified with {near(TRUST)}"),
        ("log", f"export AGENTOS_HOME={near(HOME)}; {near(AGENTOS)} up --detach; {near(AGENTOS)} logs {obedient}"),
    ):
        tell(f"{word:<9} {place}")


def _bare(line: str) -> str:
    """A line of a plan as a saved plan says it, without the place in the file."""
    return line.partition("  (")[0] if line.startswith(("+", "~", "-")) else line


def verdict(rows: Sequence[Row]) -> None:
    """What the obedient agent got, in a sentence that counts it."""
    denied = sum(row["decision"] in {"deny", "halt"} and not row["approval_by"] for row in rows)
    person = sum(row["decision"] == "deny" and bool(row["approval_by"]) for row in rows)
    unknown = sum(row["decision"] is None for row in rows)
    allowed = [row for row in rows if row["decision"] == "allow"]
    reached = sum(row["tool_effect"] == "external" and row["tool"] != "model-call" for row in allowed)
    wrote = sorted({row["args"]["path"] for row in allowed if row["tool"] == "write"})
    tell(f"{denied} denied by policy, {person} refused by a person, {unknown} for tools that do not exist")
    tell(f"allowed and reaching outside: {reached}; written in its workspace: {', '.join(wrote) or 'nothing'}")


if __name__ == "__main__":
    main()
