"""Who used what in a delegation: the tree of sessions below one, each with what its own calls used and what it comes to with all
that is below it.

It is read from headers alone, session by session, so it is the same for sessions that are over and for those that were erased.
The children of a session are those that its decisions name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.attributes import names_of
from agentos.abi.event import TERMINAL
from agentos.kernel.booked import Books, History
from agentos.scheduler.budget import UNITS

MOST: Final = 1000
"""Sessions of a tree that are read."""


@dataclass(slots=True)
class Branch:
    """One session of a tree. Amounts by unit: `own` its calls have used, `total` and `held` are with all that is below it.

    `agent` is empty while it has made no call. `depth` 0 is the session that was asked for.
    """

    session: str
    parent: str = ""
    depth: int = 0
    agent: str = ""
    children: tuple[str, ...] = ()
    own: Mapping[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)


async def read_tree(history: History, tenant: str, session: str, most: int = MOST) -> tuple[list[Branch], bool]:
    """A session and those below it, each behind its parent, and whether these are all: not more than `most` are read.

    Raises LogUnavailable, ChainBroken.
    """
    found: list[Branch] = []
    seen, coming = {session}, [Branch(session)]
    while coming and len(found) < most:
        branch = coming.pop()
        await _fill(branch, history, tenant)
        found.append(branch)
        fresh = [name for name in branch.children if name not in seen]
        seen.update(fresh)
        coming += (Branch(name, branch.session, branch.depth + 1) for name in reversed(fresh))
    known = {branch.session: branch for branch in found}
    # Whoever is below stands behind, so each has all of its own when it is added to the one above.
    for branch in reversed(found):
        if branch.parent:
            above = known[branch.parent]
            above.total = dict(Counter(above.total) + Counter(branch.total))
            above.held = dict(Counter(above.held) + Counter(branch.held))
    return found, not coming


async def _fill(branch: Branch, history: History, tenant: str) -> None:
    """Read what a session has used and held itself, and whom it has delegated to."""
    books, over, account = Books(), False, ("session", branch.session)
    children: dict[str, None] = {}
    async for told in history(tenant, branch.session):
        branch.agent = branch.agent or str(told.attributes.get("agent", ""))
        if told.kind in TERMINAL:
            over = True
            continue
        books.fold(told)
        children |= dict.fromkeys(names_of(told.attributes, "children"))
    used = {unit: amount for unit in UNITS if (amount := books.ledger.used(account, unit))}
    held = {unit: amount for unit in UNITS if (amount := books.ledger.reserved(account, unit))}
    if over:
        # Nobody will say what they used.
        used, held = dict(Counter(used) + Counter(held)), {}
    branch.children, branch.own, branch.total, branch.held = tuple(children), used, dict(used), held
