"""Sessions and those that they have delegated to, as `agentos ps` and `agentos session show` tell of them.

Pure: rows are those of `session.list`, events those of the session itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json

ENDED: Final = frozenset({"finished", "failed", "cancelled", "halted", "refused"})
"""States of a child of which nothing more comes."""

_REFUSED: Final = "agentos.delegation.refused"


def tree(rows: Sequence[Json]) -> list[tuple[int, Json]]:
    """Each row with how many others stand above it: whoever was delegated to comes below its parent, in the order of its making.

    A row whose parent is not among `rows` stands for itself. `rows` are newest first, and so are those at the top.
    """
    known = {row["id"] for row in rows}
    below: defaultdict[str, list[Json]] = defaultdict(list)
    top: list[Json] = []
    for row in rows:
        if row["origin"] == "delegated" and row["parent"] in known:
            below[row["parent"]].append(row)
        else:
            top.append(row)
    found: list[tuple[int, Json]] = []
    waiting = [(0, row) for row in reversed(top)]
    while waiting:
        depth, row = waiting.pop()
        found.append((depth, row))
        # They come newest first, and the stack turns that round.
        waiting += [(depth + 1, one) for one in below.pop(row["id"], ())]
    return found


def came_from(row: Json) -> str:
    """What a session came of, in a word or two; `-` for one that somebody ran."""
    match row["origin"]:
        case "delegated":
            return str(row["parent"])
        case "forked":
            return f"fork of {row['parent']}"
        case "trigger":
            return f"trigger {row['trigger_name']}"
        case "standing":
            return "standing"
        case _:
            return "-"


def children(delegations: Mapping[str, Json], events: Sequence[Json], rows: Sequence[Json]) -> list[dict[str, Json]]:
    """Whom a session has delegated to, call by call: `{session, call, agent, state, goal}`.

    `state` is that of the session, `refused` for one that was never begun because the receiver would not, and `not begun` for one
    that is on its way. `rows` are the sessions that came of it.
    """
    known = {row["id"]: row for row in rows}
    refused = {event["data"]["child"] for event in events if event["type"] == _REFUSED}
    found: list[dict[str, Json]] = []
    for call, names in delegations.items():
        for name in names:
            row = known.get(name, {})
            state = row.get("state") or ("refused" if name in refused else "not begun")
            found.append(
                {
                    "session": name,
                    "call": call,
                    "agent": row.get("agent", ""),
                    "state": f"{state}, frozen" if "frozen" in row else state,
                    "goal": row.get("goal", ""),
                }
            )
    return found


def summary(found: Sequence[Mapping[str, Json]]) -> str:
    """`10: 8 finished, 2 cancelled`."""
    counted = Counter(str(one["state"]) for one in found)
    return f"{len(found)}: {', '.join(f'{number} {word}' for word, number in sorted(counted.items()))}"
