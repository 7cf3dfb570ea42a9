"""Where an error came from, without a word of what it says.

The message of an error may hold words of a tool, a model or a person; so may the messages of those that it came from. The log of
the runtime outlives an erasure and is read by more people than a session is, so an error that may be a session's goes there as
its types and its places, and nothing else. What it says is in the session's own log, sealed.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator


def trace(error: BaseException) -> str:
    """The types of `error` and of what it came from, newest first, with the lines of code that raised them; several lines."""
    return "\n  from ".join(_told(one) for one in _chain(error))


def _told(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    places = "".join(f"\n    {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)
    inner = "".join(f"\n  and {trace(one)}" for one in error.exceptions) if isinstance(error, BaseExceptionGroup) else ""
    return f"{type(error).__module__}.{type(error).__qualname__}{places}{inner}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
