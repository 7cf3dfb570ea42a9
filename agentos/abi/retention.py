"""How long the log of a session must be kept: what its agent declares, and never less than the floor of its risk.

    days = days_kept({"risk": "high", "retentionDays": 365})     # 365
    kept_until(ended_ms, days)                                   # ms since the epoch

Those who are harmed ask months later: the EU AI Act wants the logs of high-risk systems kept for at least six months (Art. 19 and
26). Admission refuses a declaration below the floor; here it holds for what was declared before there was one. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from agentos.abi.canonical import Json

FLOORS: Final[Mapping[str, int]] = {"high": 183}
"""Days by risk class; `policies/agentos/admission/rules/retention` refuses less, and a test holds the two together."""

DAY_MS: Final = 86_400_000


def days_kept(governance: Mapping[str, Json]) -> int:
    """The days that an agent with this `governance` has its log kept after a session's end; 0: no promise was made."""
    declared, risk = governance.get("retentionDays", 0), governance.get("risk")
    return max(declared if type(declared) is int else 0, FLOORS.get(risk, 0) if isinstance(risk, str) else 0)


def kept_until(ended_ms: int, days: int) -> int:
    """The first moment, in ms, at which a session that ended at `ended_ms` need not be kept any more."""
    return ended_ms + days * DAY_MS


def month_end(period: str) -> int:
    """The first moment behind the month `period` (`202611`), in ms, UTC. Raises ValueError for no month."""
    first = datetime.strptime(period, "%Y%m").replace(tzinfo=UTC)
    following = first.replace(year=first.year + 1, month=1) if first.month == 12 else first.replace(month=first.month + 1)
    return int(following.timestamp()) * 1000
