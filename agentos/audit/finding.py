"""What the checks of a pack's meaning give: findings, and what could not be looked at."""

from __future__ import annotations

from dataclasses import dataclass

Unseen = set[tuple[str, int]]
"""(check, seq): events for which a check could not be made whole, as a payload that it needs is withheld or erased."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not in order. `where` is added to the name of the session or chain, such as `#12`."""

    check: str
    where: str
    message: str
