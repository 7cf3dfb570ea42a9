"""A model's reply, before it is recorded: refused where it could not be told apart, shown or counted later.

The model is untrusted, and so is its endpoint: whatever shape a reply has, it must neither break the session nor the log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from typing import Final, TypeGuard

from agentos.abi.canonical import Json, NotCanonical, canonical
from agentos.abi.errors import DriverError
from agentos.drivers.port import ModelReply
from agentos.kernel.departures import NET_IDS

MODEL_IDS: Final = "model-"
"""How the ids of the kernel's own model calls begin."""

MAX_TOKENS: Final = 1_000_000_000
"""More tokens than this no single reply has: a provider that says so, or less than none, is not believed."""

UNREADABLE: Final = "agentos.unreadable"
"""Key under which arguments that have no canonical form (an integer beyond 2^53, …) are kept as text; such a call is refused."""

_CALL_ID: Final = re.compile(rf"(?!{MODEL_IDS}|{NET_IDS})[A-Za-z0-9_-]{{1,64}}", re.ASCII)
"""What may name a call. Ids stand in headers, which are shown when payloads are not, so they have no room for words."""

_COUNTED: Final = re.compile(r"[a-z]{1,8}-?[0-9]{1,9}", re.ASCII)
"""What a harness may call a call that no reply has named: a number, and what it is the number of."""


def is_call_id(value: object) -> TypeGuard[str]:
    """Whether `value` may name a call of a model or a harness."""
    return isinstance(value, str) and _CALL_ID.fullmatch(value) is not None


def is_counted(call: str) -> bool:
    """Whether a harness may use this id of its own accord."""
    return _COUNTED.fullmatch(call) is not None


def is_count(value: object) -> TypeGuard[int]:
    """Whether `value` may be how many tokens something has."""
    return type(value) is int and 0 <= value <= MAX_TOKENS


def check_reply(reply: ModelReply, *, taken: Container[str]) -> None:
    """Raise DriverError for a reply that cannot be kept. Blocks of unknown kinds pass as they are.

    An id in `taken` is refused since that call's result would be mistaken for the new one's.
    """
    counts = (reply.input_tokens, reply.output_tokens)
    if not all(is_count(count) for count in counts):
        raise DriverError(f"the model's reply counts {str(counts)[:100]} tokens")
    if not isinstance(reply.stop_reason, str):
        raise DriverError("the model's reply does not say why it ended")
    if not isinstance(reply.content, (list, tuple)):
        raise DriverError("the model's reply has no list of content blocks")
    seen: set[str] = set()
    for block in reply.content:
        if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
            raise DriverError("the model's reply holds a content block that is no object with a type")
        if block["type"] == "text" and not isinstance(block.get("text"), str):
            raise DriverError("the model's reply holds a text block without text")
        if block["type"] != "tool_use":
            continue
        call = block.get("id")
        if not is_call_id(call) or call in seen or call in taken:
            raise DriverError(f"the model's reply repeats or lacks a call id, or has an odd one: {str(call)[:200]!r}")
        if not isinstance(block.get("name"), str) or not isinstance(block.get("input"), dict):
            raise DriverError(f"the model's call {call} has no name or no arguments object")
        seen.add(call)


def recordable(block: Mapping[str, Json]) -> dict[str, Json]:
    """A block of a checked reply as it is recorded: verbatim, unless its arguments have no canonical form."""
    if block["type"] == "tool_use":
        try:
            canonical(block["input"])
        except NotCanonical:
            return {**block, "input": {UNREADABLE: json.dumps(block["input"], ensure_ascii=True)[:4096]}}
    return dict(block)
