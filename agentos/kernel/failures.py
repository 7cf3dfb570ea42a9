"""Failures of a driver in words for the log and the model.

>>> unfit("it is too long")["code"]
'result'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentos.abi.canonical import Json, NotCanonical
from agentos.abi.errors import DriverError
from agentos.abi.obligation import Obligation
from agentos.drivers.port import ModelUnavailable
from agentos.kernel.asking import PREEMPTED
from agentos.kernel.obligations import withheld

MAX_WORDS: Final = 4096
"""Most characters of an error that a driver reports."""


class Preempted(DriverError):
    """A model call was stopped for one that had waited longer than its class has patience. `partial`: what was said by then.

    What the model thought, or wrote of a tool's arguments, is not in that: nobody can say how much was used.
    """

    code = PREEMPTED
    retryable = True
    answered = True

    def __init__(self, message: str, *, partial: str = "", where: str | None = None, mend: str | None = None) -> None:
        super().__init__(message, where=where, mend=mend)
        self.partial = partial


def told(error: DriverError | NotCanonical, hidden: Sequence[Obligation] = ()) -> dict[str, Json]:
    """A driver's error for the log and the model: what, where, how to mend it, and whether asking again can help.

    Its words are left out where obligations hide what comes of the call. NotCanonical is of a result that cannot be told.
    """
    if isinstance(error, NotCanonical):
        return unfit(str(error), hidden)
    where, mend = f"{error.where}: " if error.where else "", f"; {error.mend}" if error.mend else ""
    words = f"{where}{error.message}{mend}".encode("utf-8", "replace").decode("utf-8")
    message = words if len(words) <= MAX_WORDS else words[:MAX_WORDS] + "…"
    body: dict[str, Json] = {"code": error.code, "message": message, "retryable": error.retryable}
    if hidden:
        body["message"] = withheld(hidden)
    elif isinstance(error, Preempted) and error.partial:
        body["partial"] = error.partial.encode("utf-8", "replace").decode("utf-8")
    if isinstance(error, ModelUnavailable) and error.retry_after is not None:
        body["retry_after_ms"] = int(error.retry_after * 1000)
    return body


def unfit(why: str, hidden: Sequence[Obligation] = ()) -> dict[str, Json]:
    """The error of a call whose result cannot be told."""
    message = withheld(hidden) if hidden else f"the call was performed, but its result cannot be recorded: {why}"
    return {"code": "result", "message": message, "retryable": False}
