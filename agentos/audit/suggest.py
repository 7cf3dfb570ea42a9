"""Grants drafted from denials: what would have let through exactly the calls that were denied for want of a grant.

Every draft names one agent and one tool, holds each argument that can be named to the values that were seen together, asks for a
person's approval, ends soon, and counts its uses where few calls were denied. It is a draft to be read: an injected call among
the denials would be granted too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.event import rfc3339
from agentos.policy.granting import settled_by_own_grant

LONGEST: Final = 200
"""Most characters of a text that a condition names; a longer one is left open, and said so."""

FEW: Final = 20
"""Up to so many denied calls a draft allows exactly that many uses."""

DAYS: Final = 7
"""How long a draft lasts, in days from now, to the end of the day."""

_DAY_MS: Final = 86_400_000

Args = Mapping[str, Json]


def suggest(decisions: Sequence[Mapping[str, Json]], *, name: str, now_ms: int) -> list[dict[str, Json]]:
    """ToolGrants that would have let through what grants alone denied; none if nothing was.

    `decisions` are shaped as `policy.recorded` gives them. Of calls with the same arguments by name, no other combination of
    values is granted than those that were denied; several grants stand for what one could only cover with others beside.
    """
    groups: dict[tuple[str, str, tuple[str, ...]], list[Mapping[str, Json]]] = {}
    for item in decisions:
        if _only_grants(item):
            asked = item["question"]
            names = tuple(sorted(asked["syscall"]["args"]))
            groups.setdefault((asked["agent"]["name"], asked["syscall"]["tool"], names), []).append(item)
    until = rfc3339((now_ms // _DAY_MS + DAYS + 1) * _DAY_MS).replace(".000Z", "Z")
    drafts = [_grant(agent, tool, part, until) for (agent, tool, _), items in sorted(groups.items()) for part in _parts(items)]
    return [
        {"apiVersion": "agentos/v1", "kind": "ToolGrant", "metadata": {"name": f"{name}-{place}"}, "spec": spec}
        for place, spec in enumerate(drafts, 1)
    ]


def _only_grants(item: Mapping[str, Json]) -> bool:
    rules = item["decision"]["rules"]
    return item["decision"]["effect"] == "deny" and bool(rules) and all(map(settled_by_own_grant, rules))


def _args(item: Mapping[str, Json]) -> Args:
    args: Args = item["question"]["syscall"]["args"]
    return args


def _parts(items: Sequence[Mapping[str, Json]]) -> Iterable[list[Mapping[str, Json]]]:
    """`items` so that within a part at most one argument varies: then a list of its values grants nothing beside."""
    values: dict[str, set[str]] = {}
    for item in items:
        for key, value in _named(item).items():
            values.setdefault(key, set()).add(_told(value))
    varied = max(sorted(values), key=lambda key: len(values[key]), default=None)
    parts: dict[tuple[str, ...], list[Mapping[str, Json]]] = {}
    for item in items:
        # A value that cannot be named in a condition is no reason to hold calls apart, but that it cannot be is one.
        fixed = tuple(f"{key}={_told(value)}" for key, value in sorted(_named(item).items()) if key != varied)
        parts.setdefault((*fixed, *sorted(_named(item))), []).append(item)
    return parts.values()


def _named(item: Mapping[str, Json]) -> dict[str, Json]:
    """The arguments that a condition can name: short texts, whole numbers, true and false."""
    return {
        key: value
        for key, value in _args(item).items()
        if isinstance(value, (bool, int)) or (isinstance(value, str) and len(value) <= LONGEST)
    }


def _told(value: Json) -> str:
    """Tells `1` from `"1"` and from `true`."""
    return repr(value)


def _grant(agent: str, tool: str, items: Sequence[Mapping[str, Json]], until: str) -> dict[str, Json]:
    args: dict[str, Json] = {}
    for key in sorted(_named(items[0])):
        values = list({_told(_args(item)[key]): _args(item)[key] for item in items}.values())
        args[key] = {"equals": values[0]} if len(values) == 1 else {"oneOf": values}
    open_ = sorted(set(_args(items[0])) - set(args))
    sessions = ", ".join(sorted({item["session"] for item in items}))
    reason = f"drafted from denied calls ({len(items)}) of {sessions}; read every line before applying"
    if open_:
        reason += f"; any value passes for {', '.join(open_)}"
    spec: dict[str, Json] = {"agents": [agent], "tools": [tool], "args": args, "approval": "required", "until": until}
    if len(items) <= FEW:
        spec["maxUses"] = len(items)
    return {**spec, "reason": reason}
