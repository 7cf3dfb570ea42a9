"""The quickstart as one command (`make demo`): every step is the command that an operator would type, run as a process.

Two agents work over the same folder. One behaves. The other obeys whatever the files say, and is contained by the same policy.
State and evidence stay in `.agentos/demo`. With `--inbox DIR` it runs over a folder of yours.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AGENTOS = Path(sys.executable).with_name("agentos")
PATHS = ("programs/inbox-triage", "examples/quickstart")

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--inbox", type=Path, default=ROOT / "examples/quickstart/inbox", help="the folder to triage")
parser.add_argument("--state", type=Path, default=ROOT / ".agentos/demo", help="where state and evidence are kept; made anew")
options = parser.parse_args()

STATE: Path = options.state.absolute()
HOME = STATE / "home"
PACK = STATE / "evidence.zip"
TRUST = STATE / "trust.pub"

started = time.monotonic()


def near(path: Path) -> str:
    """`path` as it is typed from the root of the checkout."""
    return os.path.relpath(path, ROOT) if path.is_relative_to(ROOT) else str(path)


def title(text: str) -> None:
    """Say which step comes, and how long it has taken so far."""
    print(f"\n\033[1m[{time.monotonic() - started:5.1f} s] {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def agentos(*words: str, show: bool = True, expect: tuple[int, ...] = (0,), keep: int | None = None) -> str:
    """Run one command; print it and what it says (at most `keep` lines); stop the demo if it ends in an unexpected way."""
    if show:
        print(f"$ agentos {' '.join(words)}", flush=True)
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
        lines = done.stdout.rstrip().splitlines()
        for line in lines if keep is None else lines[:keep]:
            print(f"  {line}")
        if keep is not None and len(lines) > keep:
            print(f"  … {len(lines) - keep} more lines")
    if done.returncode not in expect:
        print(done.stderr or "", file=sys.stderr)
        sys.exit(f"the demo stops: agentos {' '.join(words)} ended with exit code {done.returncode}")
    sys.stdout.flush()
    return done.stdout


def session(name: str) -> dict[str, object]:
    """One session as JSON."""
    return next(row for row in json.loads(agentos("ps", "--all", "-o", "json", show=False)) if row["id"] == name)


def follow(agent: str, goal: str, inbox: Path) -> str:
    """Run an agent until it ends or waits; return the session."""
    agentos("run", agent, goal, "--input", near(inbox), "--wait", expect=(0, 5), keep=6)
    return str(json.loads(agentos("ps", "--all", "-o", "json", show=False))[0]["id"])


def settle(name: str, verb: str, reason: str) -> int:
    """Answer every question of a session in the same way, as the approver, until it ends; return how many there were."""
    asked = 0
    while session(name)["state"] == "waiting":
        if asked == 0:
            agentos("approvals", "list", keep=8)
        agentos("--as", "ann", "approvals", verb, name, "--reason", reason, show=asked < 2)
        asked += 1
        agentos("wait", name, show=False, expect=(0, 5))
    return asked


def table(name: str) -> list[dict[str, object]]:
    """Print the syscalls of a session, counted by tool, decision and rule."""
    rows = json.loads(agentos("audit", "query", "--session", name, "--limit", "10000", "-o", "json", show=False))
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        decision = row["decision"] or row["outcome"]
        counts[row["tool"], decision, ", ".join(row["rules"] or ()) or ("no such tool" if decision == "refused" else "")] += 1
    width = max(len(tool) for tool, _, _ in counts)
    print(f"  {'TOOL'.ljust(width)}  DECISION  COUNT  RULE")
    for (tool, decision, rule), count in sorted(counts.items()):
        print(f"  {tool.ljust(width)}  {decision:<8}  {count:>5}  {rule}")
    return rows


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
        tell(inbox)
    finally:
        agentos("down", show=False)


def tell(inbox: Path) -> None:
    """Every step of the story, in order."""
    title("declare: YAML is checked, every fault with its place")
    agentos("validate", *PATHS)

    title("start: a NATS server with JetStream, policy in the process, an operator with a key of its own")
    agentos("up", "--detach")
    agentos("principal", "create", "ann", "--role", "approver")

    title("plan and apply: what changes, what it widens, one atomic revision")
    agentos("plan", *PATHS, expect=(2,), keep=16)
    agentos("apply", *PATHS, "--yes", "--allow-widen", "--reason", "the quickstart", keep=6)
    print("  …and somebody without the operator's role cannot:")
    agentos("--as", "ann", "apply", "examples/01-hello", "--yes", "--allow-widen", expect=(3,), keep=4)

    title(f"run: the agent triages {near(inbox)}")
    triage = follow("triage", "Triage the inbox and propose a reply.", inbox)
    title("approve: what the policy asks a person for waits, at no cost, and runs exactly as asked")
    asked = settle(triage, "approve", "read it; may go out")
    print(f"  {asked} approved")
    table(triage)

    title("contain: the same work by an agent that obeys whatever the files tell it")
    obedient = follow("triage-obedient", "Triage the inbox and do what it asks.", inbox)
    refused = settle(obedient, "deny", "nobody asked for this")
    rows = table(obedient)
    print(f"  {refused} refused by a person; denied by policy:")
    for row in rows:
        if row["decision"] in {"deny", "halt"}:
            args = json.dumps(row["args"], ensure_ascii=True)
            print(f"  ✗ {row['tool']} {args[:90]}\n      {', '.join(row['rules'])}: {row['reasons'][0]}")

    title("prove: export the evidence and verify it without the runtime")
    agentos("evidence", "export", "-o", near(PACK))
    agentos("evidence", "key", "-o", near(TRUST))
    agentos("down")
    agentos("evidence", "verify", near(PACK), "--trust", near(TRUST))
    forged = STATE / "forged.zip"
    data = bytearray(PACK.read_bytes())
    data[len(data) // 2] ^= 1
    forged.write_bytes(data)
    print("  …one changed bit in the middle of it:")
    agentos("evidence", "verify", near(forged), "--trust", near(TRUST), expect=(1,), keep=6)
    forged.unlink()

    title("done")
    print(f"  state     {near(HOME)}  (look around: agentos --home {near(HOME)} up --detach)")
    print(f"  results   {near(HOME)}/workspaces/default/{triage}/triage/report.md")
    print(f"  evidence  {near(PACK)}, key {near(TRUST)}")


if __name__ == "__main__":
    main()
