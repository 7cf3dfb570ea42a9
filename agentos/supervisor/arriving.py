"""When a file has arrived, and which files a pattern means. Pure: what was seen goes in, with the time; what to act on comes out.

A file that somebody is still writing is none yet. It has arrived when two looks at it, `STILL_US` apart, saw the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

STILL_US: Final = 1_000_000
"""Microseconds that a file has to stand still for."""

LONGEST_PAUSE_US: Final = 60_000_000
"""Microseconds between two tries to act on a file at most."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What tells a file from what it was: any write changes one of these."""

    bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(slots=True)
class _Watched:
    seen: Seen
    since_us: int
    told: bool = False
    tries: int = 0
    """How often it could not be acted on."""


class Settling:
    """The files of one place, from look to look."""

    def __init__(self) -> None:
        self._files: dict[str, _Watched] = {}

    def pause_s(self, now_us: int) -> float | None:
        """Seconds until some file may count that does not yet; None if there is none."""
        times = [one.since_us + STILL_US for one in self._files.values() if not one.told]
        return max(0.0, (min(times) - now_us) / 1_000_000) if times else None

    def look(self, files: Mapping[str, Seen], now_us: int) -> list[str]:
        """Take in what is there at `now_us`, which never goes back; paths that have come to stand still, sorted, each once."""
        for path in [path for path in self._files if path not in files]:
            del self._files[path]
        for path, seen in files.items():
            known = self._files.get(path)
            if known is None or known.seen != seen:
                self._files[path] = _Watched(seen, now_us)
        settled = [path for path, one in self._files.items() if not one.told and now_us - one.since_us >= STILL_US]
        for path in settled:
            self._files[path].told = True
        return sorted(settled)

    def again(self, path: str, now_us: int) -> None:
        """Have `path` told once more: it could not be acted on. The pause grows each time, up to `LONGEST_PAUSE_US`."""
        known = self._files.get(path)
        if known is not None:
            pause_us = min(STILL_US << known.tries, LONGEST_PAUSE_US)
            known.told, known.since_us, known.tries = False, now_us + pause_us - STILL_US, min(known.tries + 1, 16)


def meant(glob: str, path: str) -> bool:
    """Whether `glob` means `path`: `*` and `?` stand within a name, `**` for any folders; none for a dot that begins a name."""
    names = path.split("/")
    # Where the part of the pattern that was looked at may have come to in the names.
    places = {0}
    for one in _parts(glob):
        if one is None:
            places = {later for place in places for later in _onward(names, place)}
        else:
            places = {place + 1 for place in places if place < len(names) and one.fullmatch(names[place])}
    return len(names) in places


def arrival_id(space: str, path: str, digest: str) -> str:
    """Of this content at this place; it tells neither."""
    place = hashlib.sha256(f"{space}\0{path}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{place}-{digest.removeprefix('sha256:')}"


def _onward(names: list[str], place: int) -> list[int]:
    """Where `**` may lead to from `place`: past any names that are not hidden."""
    found = [place]
    while place < len(names) and not names[place].startswith("."):
        place += 1
        found.append(place)
    return found


@lru_cache(maxsize=1000)
def _parts(glob: str) -> tuple[re.Pattern[str] | None, ...]:
    """The names of a pattern; None for `**`."""
    return tuple(None if name == "**" else _name(name) for name in glob.split("/") if name)


def _name(pattern: str) -> re.Pattern[str]:
    first, *rest = [re.escape(part).replace(r"\?", ".") for part in re.split(r"\*+", pattern)]
    # Each star takes as little as it can and never gives it back: so a long name takes no longer than its length times theirs.
    stars = [f"(?>.*?{part})" for part in rest[:-1]] + [f".*{part}" for part in rest[-1:]]
    hidden = "" if pattern.startswith(".") else r"(?!\.)"
    return re.compile(hidden + first + "".join(stars), re.DOTALL)
