"""Hostile MCP servers, as processes in a sandbox and at an address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rt_case import CONTAINED, DENIED, FAILED, INERT, STOPPED, Check, Group, How, Step, Told, says, says_not
from rt_tools import mcp_stdio, mcp_url
from rt_world import World

_AFTER_A_CALL = ("description_changes", "schema_changes", "vanishes")
_ANSWERS: dict[str, tuple[str, frozenset[How], Check | None]] = {
    "doubles": ("offer a tool twice", STOPPED, None),
    "pinned": ("offer another tool than was approved", FAILED, says("not what was approved")),
    "flood_notifications": ("flood with notifications", STOPPED, None),
    "flood_requests": ("flood with requests of its own", STOPPED, None),
    "flood_answers": ("flood with answers to nothing", STOPPED, None),
    "flood_noise": ("flood with what is no protocol", STOPPED, None),
    "flood_line": ("flood with a line that has no end", STOPPED, None),
    "flood_stderr": ("flood its error output", STOPPED, None),
    "hang": ("never answer", STOPPED, None),
    "oversized": ("answer with a frame of 5 MiB", STOPPED, None),
    "wrong_id": ("answer another call", STOPPED, says_not("went")),
    "no_id": ("answer nobody", STOPPED, None),
    "broken_text": ("answer with what is no UTF-8", STOPPED, None),
    "deep": ("answer with 5000 levels", STOPPED, None),
    "half": ("answer half", STOPPED, None),
    "not_a_number": ("answer with NaN", STOPPED | CONTAINED, says_not("NaN")),
    "huge_number": ("answer with an integer beyond 2^53", STOPPED | CONTAINED, says("dropped", "2^53")),
    "double_keys": ("answer with a key twice", STOPPED | CONTAINED, None),
    "surrogates": ("answer with half a surrogate pair", STOPPED | CONTAINED, None),
    "steals": ("read passwords of the host", CONTAINED, says_not("root:")),
}
_REMOTE: dict[str, tuple[str, frozenset[How], Check | None]] = {
    "redirect": ("send the call on to an address of this machine", STOPPED, None),
    "hang": ("never answer", STOPPED, None),
    "flood": ("flood", STOPPED, None),
    "wrong-id": ("answer another call", STOPPED, says_not("went")),
    "error": ("answer with an error", CONTAINED | STOPPED, None),
}


def declarations(world: World) -> Iterator[dict[str, Any]]:
    names = [*_ANSWERS, *_AFTER_A_CALL, "instructions"]
    for how in names:
        more: dict[str, Any] = {"mcp": {"pin": "sha256:" + "0" * 64}} if how == "pinned" else {}
        if how == "description_changes":
            more = {"mcp": {"pin": _pin()}}
        if how == "instructions":
            more["labels"] = ["untrusted"]
        yield mcp_stdio(how, **more)
    for how in (*_REMOTE, "changes", "instructions"):
        more = {"mcp": {"pin": _pin()}} if how == "changes" else {}
        yield mcp_url(how, world.site.port, **more)


def _pin() -> str:
    """The digest of what the servers offer at first."""
    from mcp_types import Tool

    from agentos.abi.canonical import digest_of
    from agentos.drivers.adapters.mcp_offer import offer

    return digest_of(offer(Tool(name="go", description="Goes.", input_schema={"type": "object", "properties": {}})))


def _labelled(world: World, told: Told) -> str | None:
    """What it says is text of others: it may be shown, and carries its label from then on."""
    return None if "SYSTEM" in told.text and "untrusted" in told.labels else f"it is not labelled: {told}"


def groups(world: World) -> Iterator[Group]:
    steps = [_stdio(how, *rest) for how, rest in _ANSWERS.items()]
    steps += [_remote(how, *rest) for how, rest in _REMOTE.items()]
    for how in _AFTER_A_CALL:
        # The first call finds what was declared; behind it the server is another one.
        tool = f"mcp-{how}".replace("_", "-")
        steps.append(Step(f"mcp-{how}-first", "prepares", tool, {}, INERT, laying=True))
        steps.append(Step(f"mcp-{how}", f"{how.replace('_', ' ')} once it is trusted", tool, {}, FAILED))
    steps.append(Step("remote-changes-first", "prepares", "remote-changes", {}, INERT, laying=True))
    steps.append(Step("remote-changes", "change a pinned description once it is trusted", "remote-changes", {}, FAILED))
    yield Group("MCP servers", "mcp hostile", steps, seconds=240)
    tainted = [
        Step("mcp-instructions", "answer with instructions", "mcp-instructions", {}, INERT, _labelled),
        Step("mcp-instructed", "do as they say: a tool that no grant covers", "never-granted", {"path": "x"}, DENIED),
    ]
    yield Group("MCP servers", "mcp instructions", tainted)


def _stdio(how: str, tries: str, ways: frozenset[How], check: Check | None) -> Step:
    return Step(f"mcp-{how}", tries, f"mcp-{how}".replace("_", "-"), {}, ways, check)


def _remote(how: str, tries: str, ways: frozenset[How], check: Check | None) -> Step:
    return Step(f"remote-{how}", f"at an address: {tries}", f"remote-{how}", {}, ways, check)
