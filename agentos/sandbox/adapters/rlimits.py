"""Limits of each process, by prlimit: set from outside, before the program begins, and inherited by all that it starts."""

from __future__ import annotations

import resource
from typing import Final

from agentos.sandbox.port import SandboxUnavailable
from agentos.sandbox.profile import Limits

_MIB: Final = 1024 * 1024


def rlimits(limits: Limits) -> tuple[tuple[int, int], ...]:
    """What is set, as pairs of resource and value."""
    found = [
        # 1, not 0: only that keeps a dump from a handler (`|program` in core_pattern) as well.
        (resource.RLIMIT_CORE, 1),
        (resource.RLIMIT_FSIZE, limits.file_mib * _MIB),
        (resource.RLIMIT_NOFILE, limits.open_files),
        # Private memory that can be written; address space is what interpreters reserve by the gigabyte and never touch.
        (resource.RLIMIT_DATA, limits.memory_mib * _MIB),
    ]
    if limits.cpu_s is not None:
        found.append((resource.RLIMIT_CPU, limits.cpu_s))
    return tuple(found)


def limit(pid: int, pairs: tuple[tuple[int, int], ...]) -> None:
    """Set them for the process `pid`; nothing is raised above what it may have. Raises SandboxUnavailable."""
    for kind, value in pairs:
        try:
            most = resource.prlimit(pid, kind)[1]
            bound = value if most == resource.RLIM_INFINITY else min(value, most)
            resource.prlimit(pid, kind, (bound, bound))
        except (OSError, ValueError) as error:
            raise SandboxUnavailable(f"the limits of a process cannot be set: {error}") from error
