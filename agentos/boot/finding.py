"""Findings of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agentos.abi.canonical import Json
from agentos.sandbox.escape import Tried


class Level(StrEnum):
    """How a finding is to be read."""

    OK = "ok"
    WEAK = "weak"
    """A guarantee that is weaker than one may expect."""
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    level: Level
    found: str
    mend: str = ""
    escape: Tried | None = None
    """The attempt to get out of a sandbox that it is about."""

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape (`schemas/v1/doctor-finding.json`)."""
        body: dict[str, Json] = {"what": self.what, "level": str(self.level), "found": self.found, "mend": self.mend}
        if self.escape is not None:
            tried = self.escape
            body["escape"] = {
                "isolation": tried.isolation,
                "tried": tried.tried,
                "outcome": str(tried.outcome),
                "by": list(tried.by),
            }
        return body
