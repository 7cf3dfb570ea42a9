"""`agentos harness check`, put together: the suite, the sandbox of this host, and a home folder to be tempted by."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from agentos.abi.errors import Unavailable
from agentos.boot.harness_place import LOOP, bare, brainly, launch_of, words_and_mounts
from agentos.conformance import Case, Outcome, Report, Surroundings, check
from agentos.conformance.home import AT, watched
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
    try:
        with tempfile.TemporaryDirectory(prefix="agentos-home-") as folder, watched(Path(folder).resolve()) as home:
            profile = brainly()
            if apart:
                at_home = Mount(str(Path(folder).resolve()), AT)
                profile = replace(profile, mounts=(*profile.mounts, *own, *more, at_home), env={"HOME": AT})
            else:
                profile = bare(profile)
            opened = home.opened if apart and home is not None else None
            surroundings = Surroundings(HostSandboxes(None), launch_of(words, profile, OWNER), patience, opened)
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
