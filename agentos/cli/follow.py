"""Following a session: its events as lines for people, until it ends or waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentos.abi.canonical import Json
from agentos.cli.command import emit, paint, plain, say

if TYPE_CHECKING:
    from agentos.control.client import Client

WAIT_MS: Final = 10_000
PAUSES: Final = frozenset({"agentos.session.waiting"})
ENDS: Final = frozenset(
    {"agentos.session.finished", "agentos.session.failed", "agentos.session.cancelled", "agentos.session.halted"}
)
COLOURS: Final = {"allow": "green", "deny": "red", "halt": "red", "ask": "yellow"}


async def follow(client: Client, session: str, *, quiet: bool = False, through_waits: bool = False) -> None:
    """Print the session's events as they come; return when it ends, or waits for a person (unless `through_waits`)."""
    seq = position = 0
    while True:
        params: dict[str, Json] = {"session": session, "seq": seq, "position": position, "wait_ms": WAIT_MS if seq else 0}
        answer = await client.call("session.events", params)
        seq, position = answer["seq"], answer["position"]
        last = ""
        for event in answer["events"]:
            last = event["type"]
            if not quiet:
                for text in lines(event):
                    emit(text)
        if last in ENDS or (last in PAUSES and not through_waits):
            return


def show_end(session: Json) -> int:
    """Say how a session stands after `follow`; return the exit code for it."""
    state = session["state"]
    if state == "finished":
        return 0
    if state == "waiting":
        name = session["session"]
        say(f"waits for approval: agentos approvals approve {name} --reason '…' (or deny)")
        return 5
    error = session.get("error", {})
    say(f"{state}: {plain(str(error.get('message', '')))}")
    return 3 if state == "halted" else 1


def lines(event: Json) -> list[str]:
    """One event as lines for people."""
    data, clock = event["data"], event["time"][11:23]
    match event["type"].removeprefix("agentos."):
        case "session.created":
            text = f"created by {event['actor']}: {data['agent']}: {data['goal']} ({len(data['inputs'])} input files)"
        case "session.owned":
            text = f"taken over by a new runtime (epoch {data['epoch']})"
        case "session.revised":
            text = f"moved from revision {data['from']} to {data['to']}"
        case "session.waiting":
            text = f"waits for a person: call {data['call']}"
        case "session.finished":
            text = f"finished: {data['result']}"
        case "session.failed":
            text = f"failed: {data['error']['message']}"
        case "session.cancelled":
            text = f"cancelled by {event['actor']}: {data['reason']}"
        case "session.halted":
            text = f"halted by policy: {'; '.join(data['reasons'])}"
        case "syscall.decided":
            return [f"{clock} #{event['seq']:<4} {_decided(data)}"]
        case syscall if syscall.startswith("syscall."):
            text = _outcome(syscall, data)
        case "approval.granted":
            text = f"approved by {event['actor']}: {data['reason']}"
        case "approval.denied":
            text = f"refused by {event['actor']}: {data['reason']}"
        case other:
            text = other
    return [f"{clock} #{event['seq']:<4} {plain(text)}"]


def _decided(data: Json) -> str:
    effect = data["decision"]["effect"]
    args = ", ".join(f"{key}={_short(value)}" for key, value in data["args"].items())
    text = f"{paint(effect.ljust(5), fg=COLOURS[effect], bold=effect != 'allow')} {plain(data['tool'])}({plain(args)})"
    if effect == "allow":
        return text
    return f"{text}  {plain(', '.join(data['decision']['rules']))}: {plain('; '.join(data['decision']['reasons']))}"


def _outcome(kind: str, data: Json) -> str:
    match kind:
        case "syscall.refused":
            return f"{data['tool']} refused: {data['error']['message']}"
        case "syscall.finished":
            return f"{data['tool']} done in {data['duration_us'] / 1000:.1f} ms{_said(data)}"
        case "syscall.failed":
            return f"{data['tool']} failed: {data['error']['message']}"
        case _:
            return f"{data['tool']}: outcome unknown, it is not repeated"


def _said(data: Json) -> str:
    body = data["result"].get("data")
    if data["tool"] != "model-call" or not isinstance(body, dict):
        return " (the tool reports an error)" if data["result"]["is_error"] else ""
    words = " ".join(str(block["text"]) for block in body["content"] if block.get("type") == "text")
    return f": {_short(words)}" if words else ""


def _short(value: Json) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 72 else text[:69] + "…"
