"""The words of the gateway: what a person is asked, what a client is told of a call that waits.

All that comes from a model or a tool is shown whole or not at all, with what cannot be seen escaped, and in a block that a client
which reads Markdown shows as it is: nobody is asked to say yes to what is not shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json
from agentos.gateway.upstream import Done, Waiting

LONGEST: Final = 6_000
"""Most characters of a question; what would be longer is asked in the inbox alone."""

REASON: Final = 500
"""Most characters of a reason."""

_FENCE: Final = "```"

_UNSEEN: Final = frozenset(
    map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164, *range(0xFE00, 0xFE10), 0xFFA0))
) | frozenset(map(chr, range(0xE0100, 0xE01F0)))
"""Characters that count as printable and show nothing: fillers, blanks, selectors of variants."""

FORM: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        "approve": {
            "type": "boolean",
            "title": "Approve this call",
            "description": "yes lets this one call through, no refuses it; to leave it in the inbox, dismiss this question",
            "default": False,
        },
        "reason": {
            "type": "string",
            "title": "Reason",
            "description": "stands in the log beside your answer",
            "maxLength": REASON,
        },
    },
    "required": ["approve"],
}
"""What is asked: an object of two plain fields, as elicitation allows it."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a person said to a question."""

    granted: bool
    reason: str


def question(waiting: Waiting, agent: str) -> str | None:
    """The question to a person about what waits; None where it cannot be shown whole, or is about another call."""
    if waiting.behind:
        return None
    asked = waiting.question
    # A line of the block is one of ours or of JSON, so none of them is a fence and ends it.
    lines = [
        f"Agent {plain(agent)} wants to call the tool {plain(str(asked['tool']))}:",
        _FENCE,
        safe_json(asked["args"]),
        *(f"Why it is asked about: {plain(str(why))}" for why in asked["reasons"]),
        f"Session {plain(str(asked['session']))}, call {plain(waiting.call)}.",
        _FENCE,
    ]
    text = "\n".join(lines)
    return text if len(text) <= LONGEST else None


def said(content: Mapping[str, Json] | None, client: str) -> Said:
    """The answer in a form that was sent back; anything but a plain yes is a no."""
    body = content or {}
    given = body.get("reason")
    reason = plain(given.strip()[:REASON]) if isinstance(given, str) else ""
    return Said(body.get("approve") is True, f"{reason or 'no reason given'} (asked through MCP client {plain(client)})")


def waits(waiting: Waiting, why: str = "") -> str:
    """What a client is told whose call waits in the inbox."""
    asked = waiting.question
    session = plain(str(asked["session"]))
    missing = int(asked.get("needed") or 1) - int(asked.get("given") or 0)
    people = "a person" if missing == 1 else f"{missing} people"
    behind = f" of call {waiting.asked} ({plain(str(asked['tool']))}), behind which it stands," if waiting.behind else ""
    lines = [
        f"This call has not been made: it waits for the approval{behind} by {people}.",
        *(f"Why: {plain(str(one))}" for one in asked["reasons"]),
        *([f"Asked here, and not settled by it: {plain(why)}"] if why else []),
        f"To answer: agentos approvals approve {session} --reason '…' (or deny).",
        "Then call the tool again with the same arguments, and you get its result.",
    ]
    return "\n".join(lines)


def note(waiting: Waiting) -> dict[str, Json]:
    """The same for programs, as `_meta` of the result."""
    asked = waiting.question
    return {
        "agentos/state": "waiting",
        "agentos/session": str(asked["session"]),
        "agentos/call": waiting.call,
    }


def text_of(done: Done) -> str:
    """What a tool said, as text that can be sent."""
    return done.content.encode("utf-8", "backslashreplace").decode("utf-8")


def plain(text: str) -> str:
    """`text` on one line, its characters that cannot be seen escaped."""
    return "".join(char if _seen(char) else char.encode("unicode_escape").decode("ascii") for char in text)


def safe_json(value: Json) -> str:
    """`value` as indented JSON, its characters that cannot be seen escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(char if char == "\n" or _seen(char) else json.dumps(char)[1:-1] for char in text)


def _seen(char: str) -> bool:
    return char.isprintable() and char not in _UNSEEN
