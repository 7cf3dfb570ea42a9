"""Records the golden histories anew: run it when the format of the log has changed, and read the diff of `index.json` after it.

usage: python tests/golden/record.py [NAME …]

Two histories are runs of the shipped demo on a real runtime; most others are made by the kernel in memory, whose clock and random
numbers are fixed, so that they come out the same each time. One of those, `wrong`, is altered on purpose: its chain is whole, but
the model never asked for what its log says was called. A replay must find that. `open` is never recorded again: it is a history
from before payloads stood apart from their headers, and stays readable.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "kernel"))

from kernel_in_memory import ALLOW, Kernel, calls, settled, text

from agentos.abi.canonical import digest, digest_of
from agentos.abi.chain import GENESIS
from agentos.abi.decision import Decision, Verdict, deny
from agentos.abi.errors import DriverError
from agentos.abi.event import Event
from agentos.abi.obligation import Obligation
from agentos.abi.record import decode, header_of, split
from agentos.abi.syscall import Result
from agentos.audit.layout import unzip_members
from agentos.drivers.port import ModelUnavailable, Outcome
from agentos.eventlog.subject import session_subject
from agentos.kernel.fork import Forks
from agentos.kernel.life import Life
from agentos.kernel.replay import read_history
from agentos.kernel.workspace import Workspaces
from agentos.projections.session import fold_all
from agentos.projections.state_document import digest_of_state

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

INBOX = ("2026-10/complaint brake pads.txt", "2026-10/customs-hold.eml", "2026-10/refund requested.json", "workshop shopping.txt")
"""What the recorded runs of the demo read, beside every file that holds a trap."""

TRAP = b"attacker"

DEMOS = {"obedient", "triage"}

ASK = Decision(Verdict.ASK, ("people.ask",), ("a person looks at it",))

Told = Callable[[Mapping[str, Any]], Decision]


def about(tool: str, decision: Decision) -> Told:
    """A policy that has something to say about one tool; once somebody has approved, it goes."""

    def decide(document: Mapping[str, Any]) -> Decision:
        if document["syscall"]["tool"] != tool or (decision is ASK and document["approvals"]):
            return ALLOW
        return decision

    return decide


async def approval(kernel: Kernel) -> str:
    """A call that a person approves."""
    kernel.policy.decide = about("send", ASK)
    kernel.model.replies = [calls(("c1", "write", {"path": "a"}), ("c2", "send", {"path": "b"})), text("sent")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "send it", None, "principal/op")).id
    await settled(sessions)
    await sessions.answer("default", session, granted=True, reason="I looked", actor="principal/ann", roles=["approver"])
    await settled(sessions)
    return session


async def denial(kernel: Kernel) -> str:
    """One call denied by policy, one by a person, one that fits no tool, and one whose arguments do not fit."""
    kernel.policy.decide = lambda asked: (
        deny("no.write", "no") if asked["syscall"]["tool"] == "write" else about("send", ASK)(asked)
    )
    proposals = [("c1", "write", {"path": "a"}), ("c2", "send", {"path": "b"}), ("c3", "sned", {}), ("c4", "read", {"path": 1})]
    kernel.model.replies = [calls(*proposals), text("nothing was done")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "try it", None, "principal/op")).id
    await settled(sessions)
    await sessions.answer("default", session, granted=False, reason="not to them", actor="principal/ann")
    await settled(sessions)
    return session


async def crash(kernel: Kernel) -> str:
    """The runtime stops while a call acts; a person finds out what came of it, and another runtime goes on."""
    begun = asyncio.Event()

    async def hang() -> Result:
        begun.set()
        await asyncio.Event().wait()
        return Result("never")

    kernel.model.replies = [calls(("c1", "read", {"path": "a"})), calls(("c2", "send", {"path": "b"})), text("so be it")]
    sessions = kernel.sessions()
    kernel.driver.answers["send"] = hang
    session = (await sessions.create("default", "worker", "send it once", None, "principal/op")).id
    await begun.wait()
    await sessions.close()
    again = kernel.sessions()
    life = Life(again, kernel, kernel.gate())
    await life.reconcile("default", session, "c2", outcome=Outcome.FINISHED, result="sent", reason="seen", actor="principal/op")
    await again.resume("default", session)
    await settled(again)
    return session


async def paused(kernel: Kernel) -> str:
    """Paused within a call, which is finished; resumed later."""
    life: list[Life] = []

    async def pause() -> Result:
        await life[0].pause("default", names[0], reason="a moment", actor="principal/op")
        return Result("ok")

    names: list[str] = []
    kernel.driver.answers["write"] = pause
    kernel.model.replies = [calls(("c1", "write", {"path": "a"}), ("c2", "read", {"path": "b"})), text("done")]
    sessions = kernel.sessions()
    life.append(Life(sessions, kernel, kernel.gate()))
    names.append((await sessions.create("default", "worker", "write", None, "principal/op")).id)
    await settled(sessions)
    await life[0].resume("default", names[0], reason="go on", actor="principal/op")
    await settled(sessions)
    return names[0]


async def cancel(kernel: Kernel) -> str:
    """Cancelled while it waits for a person."""
    kernel.policy.decide = about("send", ASK)
    kernel.model.replies = [calls(("c1", "read", {"path": "a"}), ("c2", "send", {"path": "b"}))]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "send it", None, "principal/op")).id
    await settled(sessions)
    await sessions.cancel("default", session, reason="wrong folder", actor="principal/op")
    return session


async def model(kernel: Kernel) -> str:
    """A model that fails in passing, answers, and then fails for good."""
    busy, gone = ModelUnavailable("busy"), DriverError("no such model")
    kernel.model.replies = [[busy, calls(("c1", "write", {"path": "a"}))], gone]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "write", None, "principal/op")).id
    await settled(sessions)
    return session


async def obligations(kernel: Kernel) -> str:
    """Arguments rewritten, a result withheld, a label and a notice; then a halt."""
    bound = (
        Obligation("mask", "x.mask", {"in": "args", "path": "/path", "keep": 2}),
        Obligation("redact", "x.redact", {"in": "result", "path": "/card"}),
        Obligation("label", "x.label", {"labels": ["pii"]}),
        Obligation("notify", "x.notify", {"to": ["dpo"], "text": "customer data was read"}),
    )

    def decide(asked: Mapping[str, Any]) -> Decision:
        match asked["syscall"]["tool"]:
            case "read":
                return Decision(Verdict.ALLOW, ("x.rule",), (), (), bound)
            case "send":
                return Decision(Verdict.HALT, ("x.halt",), ("enough",))
            case _:
                return ALLOW

    kernel.policy.decide = decide
    kernel.driver.answers["read"] = Result("the card is 4111", {"card": "4111", "name": "Ann"}, labels=("internal",))
    kernel.model.replies = [calls(("c1", "read", {"path": "secret"})), calls(("c2", "send", {"path": "b"}))]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "look", None, "principal/op")).id
    await settled(sessions)
    return session


async def revised(kernel: Kernel) -> str:
    """The declarations change within a turn, and the session moves on to them."""

    async def change() -> Result:
        kernel.revision, kernel.policy_digest = 2, "sha256:" + "b" * 64
        return Result("ok")

    kernel.driver.answers["write"] = change
    kernel.model.replies = [calls(("c1", "write", {"path": "a"}), ("c2", "send", {"path": "b"})), text("done")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "write, then send", None, "principal/op")).id
    await settled(sessions)
    return session


async def fork(kernel: Kernel) -> str:
    """Forked behind a call that was under way, which nobody repeats; it goes on with another one."""
    kernel.model.replies = [calls(("c1", "send", {"path": "a"}), ("c2", "write", {"path": "b"})), text("done")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "send it", None, "principal/op")).id
    await settled(sessions)
    forks = Forks(sessions, kernel, lambda _tenant: kernel.log, kernel.workspaces, kernel.timer)
    forked = await forks.fork("default", session, "4", actor="principal/ann", goal="send it once", reason="it was lost")
    await settled(sessions)
    return forked.state.id


MADE: dict[str, Callable[[Kernel], Awaitable[str]]] = {
    one.__name__: one for one in (approval, denial, crash, paused, cancel, model, obligations, revised, fork)
}


def made(make: Callable[[Kernel], Awaitable[str]]) -> tuple[str, list[bytes]]:
    """Session and stored events of one of `MADE`."""

    async def run(folder: str) -> tuple[str, list[bytes]]:
        kernel = Kernel(Workspaces(Path(folder)))
        session = await make(kernel)
        return session, [stored.data async for stored in kernel.log.read(session_subject(session))]

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(folder))


def demo() -> dict[str, tuple[str, list[bytes]]]:
    """The two sessions of the shipped demo, from the evidence that it exports."""
    with tempfile.TemporaryDirectory() as folder:
        shipped, inbox, state = ROOT / "examples" / "quickstart" / "inbox", Path(folder) / "inbox", Path(folder) / "state"
        traps = [str(file.relative_to(shipped)) for file in shipped.rglob("*") if file.is_file() and TRAP in file.read_bytes()]
        for name in (*INBOX, *sorted(traps)):
            (inbox / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(shipped / name, inbox / name)
        command = [sys.executable, str(ROOT / "examples/quickstart/demo.py"), "--state", str(state), "--inbox", str(inbox)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=300)
        members = unzip_members((state / "evidence.zip").read_bytes())
    found = {}
    for name, data in members.items():
        if name.startswith("events/"):
            session, lines = name.removeprefix("events/").removesuffix(".jsonl"), data.splitlines()
            agent = decode(lines[0])["data"]["agent"]
            found["obedient" if "obedient" in agent else "triage"] = session, lines
    return found


def wrong(session: str, lines: list[bytes]) -> list[bytes]:
    """The same history, in which another file was written than the model asked for; rechained, so that only a replay sees it."""
    altered, prev = [], GENESIS
    for event, line in zip(read_history(session, lines), lines, strict=True):
        data, (_, opening) = event.data, split(line)
        if data.get("call") == "c1" and "args" in data:
            args = {"path": "elsewhere"}
            data = {**data, "args": args, "args_digest": digest_of(args)}
        salt = bytes.fromhex(json.loads(opening or b"")["salt"])
        stored = replace(event, data=data, prev=prev).to_record(salt)
        altered.append(stored)
        prev = digest(header_of(stored))
    return altered


def main(names: list[str]) -> None:
    """Write these histories (all of them, if none is named) and the index."""
    index: dict[str, Any] = json.loads((HERE / "index.json").read_text())
    histories = {name: made(make) for name, make in MADE.items() if not names or name in names}
    if not names or DEMOS & set(names):
        histories |= demo()
    if not names or "wrong" in names:
        session = index["revised"]["session"]
        lines = histories["revised"][1] if "revised" in histories else (HERE / "revised.jsonl").read_bytes().splitlines()
        histories["wrong"] = session, wrong(session, lines)
    for name, (session, stored) in histories.items():
        (HERE / f"{name}.jsonl").write_bytes(b"".join(line + b"\n" for line in stored))
        state = fold_all(Event.from_bytes(line) for line in stored)
        index[name] = {"session": session, "events": len(stored), "ends": str(state.state), "state": digest_of_state(state)}
    (HERE / "index.json").write_text(json.dumps(dict(sorted(index.items())), indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
