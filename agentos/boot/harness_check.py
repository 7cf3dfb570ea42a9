"""`agentos harness check`, put together: the suite, and a place as harnesses have it, with traps where homes are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from agentos.abi.errors import Unavailable
from agentos.boot.harness_place import LOOP, bare, brainly, launch_of, words_and_mounts
from agentos.conformance import Case, Outcome, Report, Surroundings, check
from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.profile import Mount

OWNER: Final = "harness/check"


def check_harness(
    command: Sequence[str],
    cases: Sequence[Case],
    *,
    apart: bool,
    patience: float,
    mounts: Sequence[Path] = (),
    told: Callable[[Outcome], None] | None = None,
) -> Report:
    """Try `cases` on `command`, the built-in loop where it is empty; `apart`: in a sandbox, with `mounts` in it.

    Raises SandboxUnavailable, DriverError, Unavailable.
    """
    there = [path.resolve() for path in mounts]
    words, own = words_and_mounts(command, Path.cwd(), there) if command else (LOOP, ())
    more = [Mount(str(path), str(path)) for path in there]
    profile = brainly()
    profile = replace(profile, mounts=(*profile.mounts, *own, *more)) if apart else bare(profile)
    opened: list[str] = []
    # Whoever opens something is not killed for it here: that is one case, and the others can be tried.
    launch = launch_of(words, profile, OWNER, opened.append if apart else None)
    surroundings = Surroundings(HostSandboxes(None), launch, patience, opened if apart else None)
    try:
        with _quiet():
            return asyncio.run(check(surroundings, cases, told))
    except OSError as error:
        raise Unavailable(f"the harness could not be started: {error.strerror or error}", mend="look at the command") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """That nothing sets a harness apart is said once, in the report, and not for each case."""
    words = logging.getLogger("agentos.sandbox.adapters.bare")
    before = words.level
    words.setLevel(logging.ERROR)
    try:
        yield
    finally:
        words.setLevel(before)
