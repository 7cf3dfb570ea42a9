"""Limits of each process."""

from __future__ import annotations

import resource

from agentos.sandbox.adapters.rlimits import rlimits
from agentos.sandbox.profile import Limits


def test_every_declared_limit_is_set() -> None:
    """Each declared number is a limit; a dump is none of a file nor of a handler."""
    found = dict(rlimits(Limits(memory_mib=2, processes=9, cpu_s=3, file_mib=4, open_files=50)))
    mib = 1024 * 1024
    assert found == {
        resource.RLIMIT_DATA: 2 * mib,
        resource.RLIMIT_CPU: 3,
        resource.RLIMIT_FSIZE: 4 * mib,
        resource.RLIMIT_NOFILE: 50,
        resource.RLIMIT_CORE: 1,
    }
    assert resource.RLIMIT_CPU not in dict(rlimits(Limits()))
