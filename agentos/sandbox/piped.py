"""A process in a place that is spoken to on its streams, all three of them pipes."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE, Process

from agentos.sandbox.port import Place


async def start_piped(place: Place, longest_line: int) -> Process:
    """Execute what `place` is for, as the leader of a group of its own. `longest_line`: most bytes of one that is read whole.

    The program begins once `place.started` was told of it. Raises OSError.
    """
    return await asyncio.create_subprocess_exec(
        *place.argv,
        env=dict(place.env),
        cwd=place.cwd,
        pass_fds=tuple(place.pass_fds),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        limit=longest_line,
        process_group=0,
    )
