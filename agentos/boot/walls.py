"""What a Tenant declares about its walls at the NATS server: connections of its principals, their messages, the store of its log.

The store is dealt out so that nobody's part is somebody else's: what tenants declare, and an even share of the rest for each that
declares nothing (of two at least, so that the second tenant takes nothing away from the first). What is declared beyond the disk
is refused when it is applied. What the disk has lost since then is not looked at: the runtime starts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentos.abi.errors import UsageError
from agentos.abi.resource import Resource

MIB: Final = 1024 * 1024

LEAST_SHARE: Final = 64 * MIB
"""Bytes that a tenant without a declared limit has at least, however small the disk."""

_SHARERS: Final = 2
"""Tenants that the room is shared among at least."""


@dataclass(frozen=True, slots=True)
class Walls:
    """`spec.limits` of a Tenant, as far as the server holds them."""

    connections: int = 64
    """Of the tenant's principals, all together, at one time."""
    message_kib: int = 8192
    """Largest message between a principal and the runtime."""
    events_per_second: int = 100
    """Of each publisher."""
    log_mib: int | None = None
    """What the tenant's log may fill; None: an even share of what the disk gives."""


PLAIN: Final = Walls()


def walls_of(resources: Sequence[Resource]) -> dict[str, Walls]:
    """What is declared, by tenant; a tenant that declares nothing is missing."""
    found = {}
    for item in resources:
        if item.key.kind == "Tenant":
            limits = item.spec.get("limits", {})
            found[item.key.name] = Walls(
                limits.get("connections", PLAIN.connections),
                limits.get("messageKiB", PLAIN.message_kib),
                limits.get("eventsPerSecond", PLAIN.events_per_second),
                limits.get("logMiB"),
            )
    return found


def shares(room: int, tenants: Collection[str], walls: Mapping[str, Walls]) -> dict[str, int]:
    """Bytes that the log of each of `tenants` may fill, of `room` in all. At least `LEAST_SHARE` for who declares nothing."""
    declared = {name: walls[name].log_mib for name in tenants if name in walls}
    given = {name: most * MIB for name, most in declared.items() if most is not None}
    rest = [name for name in tenants if name not in given]
    each = (room - sum(given.values())) // max(_SHARERS, len(rest))
    return given | dict.fromkeys(rest, max(LEAST_SHARE, each))


def require_room(room: int | None, tenants: Collection[str], walls: Mapping[str, Walls]) -> None:
    """Whether the logs of `tenants` find place in `room` bytes (None: nobody can tell). Raises UsageError."""
    if room is None or all(walls.get(name, PLAIN).log_mib is None for name in tenants):
        return
    dealt = shares(room, tenants, walls)
    if sum(dealt.values()) > room:
        declared = sum(walls.get(name, PLAIN).log_mib or 0 for name in tenants)
        raise UsageError(
            f"the disk gives {room // MIB} MiB for logs; tenants declare {declared} of them, and those that declare nothing need "
            f"{LEAST_SHARE // MIB} each",
            where="Tenant spec.limits.logMiB",
            mend="declare less, or give the home a larger disk",
        )


def room_of(folder: Path) -> int:
    """Bytes that logs may fill on the disk of `folder`: three quarters of what is free and what they fill now."""
    used = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                used += os.stat(os.path.join(place, name), follow_symlinks=False).st_blocks * 512  # noqa: PTH118, PTH116 - many files
            except FileNotFoundError:
                continue  # the server drops files while we look
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return (shutil.disk_usage(there).free + used) * 3 // 4
