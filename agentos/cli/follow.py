"""Following a session: its events as lines for people, until it ends or waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

from agentos.abi.canonical import Json
from agentos.abi.event import rfc3339
from agentos.abi.syscall import MODEL_CALL, NET_REQUEST
from agentos.cli.command import emit, paint, say
from agentos.cli.render.text import ARGS, arguments, count, plain, short

if TYPE_CHECKING:
    from agentos.control.client import Client

WAIT_MS: Final = 10_000
HOLDS: Final = {"agentos.session.waiting": "waiting", "agentos.session.paused": "paused"}
"""Events after which a session does not go on by itself, and what it is then."""

FREES: Final = {
    "agentos.approval.granted": "waiting",
    "agentos.approval.denied": "waiting",
    "agentos.approval.expired": "waiting",
    "agentos.session.resumed": "paused",
}
"""Events after which it is that no more."""

ENDS: Final = frozenset(
    {"agentos.session.finished", "agentos.session.failed", "agentos.session.cancelled", "agentos.session.halted"}
)
COLOURS: Final = {"allow": "green", "deny": "red", "halt": "red", "ask": "yellow"}


async def follow(
    client: Client, session: str, *, tell: Callable[[str], None] = emit, err: bool = False, through_waits: bool = False
) -> None:
    """Tell the session's events as they come; return when it ends, waits for a person or is paused (unless `through_waits`).

    `tell` gets each line; `err` says that it goes to standard error, where colour is another question.
    """
    held: set[str] = set()
    over = False
    async for events, more in pages(client, session, wait_ms=WAIT_MS):
        for event in events:
            kind = event["type"]
            # Its end need not be its last event: a harness may be stopped behind it.
            over = over or kind in ENDS
            if kind in HOLDS:
                held.add(HOLDS[kind])
            held.discard(FREES.get(kind, ""))
            for text in lines(event, err=err):
                tell(text)
        if not more and (over or (held and not through_waits)):
            return


async def pages(client: Client, session: str, *, wait_ms: int = 0) -> AsyncIterator[tuple[list[Json], bool]]:
    """A session's events, page by page, and whether there are more already.

    Ends behind the last event; with `wait_ms` never: then a page without events comes whenever none came for that long.
    """
    seq = position = 0
    while True:
        params: dict[str, Json] = {"session": session, "seq": seq, "position": position, "wait_ms": wait_ms if seq else 0}
        answer = await client.call("session.events", params)
        seq, position = answer["seq"], answer["position"]
        yield answer["events"], answer["more"]
        if not answer["more"] and not wait_ms:
            return


def show_end(session: Json) -> int:
    """Say how a session stands after `follow`; return the exit code for it."""
    state = session["state"]
    if state == "finished":
        return 0
    if state == "waiting":
        name = session["session"]
        say("the session waits for approval")
        say(f"next: agentos approvals list; agentos approvals approve {name} --reason '…' (or deny)")
        return 5
    if state == "paused":
        say(f"the session is paused, by {session['paused']['by']}: {plain(session['paused']['reason'])}")
        say(f"next: agentos session resume {session['session']} --reason '…'")
        return 5
    error = session.get("error", {})
    say(f"{state}: {plain(str(error.get('message', '')))}".rstrip(": "))
    return 3 if state == "halted" else 1


def lines(event: Json, *, err: bool = False) -> list[str]:
    """One event as lines for people."""
    data, clock = event["data"], event["time"][11:23]
    match event["type"].removeprefix("agentos."):
        case "session.created":
            source = data.get("forked")
            how = (
                f"forked from {source['session']} #{source['seq']} by {event['actor']}"
                if source
                else _begun(data, event["actor"])
            )
            text = f"{how}: {data['agent']}: {data['goal']} ({count(len(data['inputs']), 'input file')})"
            if "deferred" in data:
                text += f"; begins {begins(data['deferred'])}"
        case "session.begun":
            ended = ", ".join(f"{name} {outcome}" for name, outcome in data["outcomes"].items())
            text = f"begins{': ' if ended else ''}{ended}"
        case "session.owned":
            text = f"taken over by a new runtime (epoch {data['epoch']})"
        case "session.revised":
            text = f"moved from revision {data['from']} to {data['to']}"
        case "session.waiting":
            others = f", {data['given']} of {data['needed']} have approved" if data["needed"] > 1 else ""
            text = f"waits for a person until {rfc3339(data['expires'])[:19]}Z: call {data['call']}{others}"
        case "session.paused" | "session.resumed" | "session.signalled" | "session.frozen" as word:
            text = _steered(word.removeprefix("session."), event)
        case "harness.stopped":
            text = f"the harness was stopped ({data['reason']}): {data['message']}"
        case "session.finished" | "session.failed" | "session.cancelled" | "session.halted" as word:
            text = _over(word.removeprefix("session."), event)
        case "syscall.decided":
            return [f"{clock} #{event['seq']:<4} {_decided(data, err)}"]
        case syscall if syscall.startswith("syscall."):
            text = _outcome(syscall, event)
        case answer if answer.startswith(("approval.", "policy.", "delegation.")):
            text = _people(answer, event)
        case other:
            text = other
    return [f"{clock} #{event['seq']:<4} {plain(text)}"]


def _over(word: str, event: Json) -> str:
    """How a session came to its end."""
    data = event["data"]
    match word:
        case "finished":
            return f"finished: {data['result']}"
        case "failed":
            return f"failed: {data['error']['message']}"
        case "cancelled":
            return f"cancelled by {event['actor']}: {data['reason']}"
        case _:
            return f"halted by policy: {'; '.join(data['reasons'])}"


def _begun(data: Json, actor: str) -> str:
    """How a session came to be, and by whom."""
    if (above := data.get("delegated")) is not None:
        return f"delegated by {above['parent']}, call {above['call']}"
    if (firing := data.get("firing")) is not None:
        own = f"trigger/{firing['trigger']}"
        return f"begun by {own}" + (f", which {actor} fired" if actor != own else "")
    return f"{'begun as a standing agent' if 'standing' in data else 'created'} by {actor}"


def _steered(word: str, event: Json) -> str:
    """What was done to a session from outside."""
    data = event["data"]
    match word:
        case "signalled":
            return f"told {data['name']} by {event['actor']}" + (f": {short(data['data'], ARGS)}" if "data" in data else "")
        case "frozen":
            return f"frozen by {data['freeze']}"
        case _:
            return f"{word} by {event['actor']}: {data['reason']}"


def begins(deferred: Json) -> str:
    """When a deferred session begins, in words: `not before 2026-11-21T08:30:00Z, after s-1 has finished`."""
    told = [f"not before {rfc3339(deferred['not_before'])[:19]}Z"] if "not_before" in deferred else []
    for name, word in (("after", "finished"), ("after_any", "ended")):
        if named := deferred.get(name):
            told.append(f"after {', '.join(named)} {'has' if len(named) == 1 else 'have'} {word}")
    return ", ".join(told)


def _people(kind: str, event: Json) -> str:
    """What people said, what they are told, and what the receiver of a delegation refused."""
    data = event["data"]
    match kind:
        case "approval.granted":
            return f"approved by {event['actor']}{_scope(data)}: {data['reason']}"
        case "approval.denied":
            return f"refused by {event['actor']}: {data['reason']}"
        case "approval.expired":
            return f"nobody approved call {data['call']} in time"
        case "policy.failed":
            return f"policy gave no decision: {data['reason']}"
        case "delegation.refused":
            return f"{data['child']} was not begun: {data['message']} ({data['code']})"
        case "policy.notified":
            return f"for {', '.join(data['to'])}: {data['text']}"
        case _:
            return kind


def _scope(data: Json) -> str:
    return f" for the session ({count(data['max_uses'], 'use')})" if data["scope"] == "session" else ""


def _decided(data: Json, err: bool) -> str:
    effect = data["decision"]["effect"]
    # Of a model call the model says enough; the digest of what it is shown is for programs.
    args = data["args"] if data["tool"] != MODEL_CALL else {"model": data["args"].get("model", "")}
    if data["tool"] == NET_REQUEST:
        # Where it goes is what counts, and may not fall behind the edge.
        asked = [str(args[key]) for key in ("method", "path") if key in args]
        args = {"for": args.get("call", ""), "to": " ".join([f"{args.get('host', '')}:{args.get('port', '')}", *asked])}
    text = (
        f"{paint(effect.ljust(5), err=err, fg=COLOURS[effect], bold=effect != 'allow')} {plain(data['tool'])}({arguments(args)})"
    )
    if effect == "allow":
        return text
    return f"{text}  {plain(', '.join(data['decision']['rules']))}: {plain('; '.join(data['decision']['reasons']))}"


def _outcome(kind: str, event: Json) -> str:
    data = event["data"]
    match kind:
        case "syscall.reconciled":
            words = {"finished": "done", "failed": "failed", "not-run": "was not run"}
            return f"{data['tool']} {words[data['outcome']]}, as {event['actor']} found out: {data['reason']}"
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
    if data["tool"] != MODEL_CALL or not isinstance(body, dict):
        return " (the tool reports an error)" if data["result"]["is_error"] else ""
    words = " ".join(str(block["text"]) for block in body["content"] if block.get("type") == "text")
    return f": {short(words, ARGS)}" if words else ""
