"""What the runtime writes to its own log of an error: its types and places, not its words.

The words of an error may be those of a tool, a model or a person, and the runtime's log outlives the erasure of a session. So
tracebacks are written without messages (`abi.trace`), whoever logs them, asyncio among them; what a session's error said is in
the session's own log. Who looks for a fault and knows what he does sets AGENTOS_LOG=debug, which writes everything.
"""

from __future__ import annotations

import asyncio
import logging
import os
from types import TracebackType
from typing import Any, Final, TextIO

from agentos.abi.trace import trace

log = logging.getLogger(__name__)

CHATTY: Final = ("httpcore", "httpcore2", "httpx", "httpx2", "watchfiles")
"""Libraries that log each request, or each change of a file, at `info`: hundreds of lines for one batch that is waited for."""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class Wordless(logging.Formatter):
    """Formats tracebacks without the messages of the errors in them."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`. What another formatter has made of the traceback is not taken, nor ours handed on."""
        theirs, record.exc_text = record.exc_text, None
        try:
            return super().format(record)
        finally:
            record.exc_text = theirs

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802 - the name is logging's
        """See `logging.Formatter.formatException`."""
        return "" if ei[1] is None else f"  {trace(ei[1])}"


def open_log(loop: asyncio.AbstractEventLoop, stream: TextIO) -> None:
    """Have everything that is logged in this process, and what `loop` says of tasks, written to `stream`.

    From the level on that AGENTOS_LOG names; `info` if it is not set. Raises ValueError for what is no level.
    """
    level = os.environ.get("AGENTOS_LOG", "INFO").upper()
    form = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    root, handler = logging.getLogger(), logging.StreamHandler(stream)
    root.setLevel(level)
    root.addHandler(handler)
    if root.level <= logging.DEBUG:
        handler.setFormatter(logging.Formatter(form))
        return
    handler.setFormatter(Wordless(form))
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    loop.set_exception_handler(_told)


def _told(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio would say itself has the error's words in it: a task is shown with its outcome."""
    error, task = context.get("exception"), context.get("task") or context.get("future")
    name = f" ({task.get_name()})" if isinstance(task, asyncio.Task) else ""
    log.error("%s%s: %s", context.get("message", "an error"), name, "" if error is None else trace(error))
