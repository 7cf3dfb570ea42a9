"""Keeps a nats-server of our own alive: one that dies is started again, unless it dies again and again."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path
from typing import Final, Protocol

from agentos.abi.errors import Unavailable
from agentos.kernel.port import Timer

log = logging.getLogger(__name__)

RESTARTS: Final = 5
"""How often a server that dies is started again within `WITHIN_S`; what dies faster is not mended by starting it."""

WITHIN_S: Final = 60

PAUSE_S: Final = 0.5
"""Seconds until a start that failed is tried again."""


class Mortal(Protocol):
    """A server that can be started again."""

    async def died(self) -> str:
        """Wait until it has ended; say how."""

    async def restart(self) -> None:
        """Start it again. Raises Unavailable."""


async def keep_alive(server: Mortal, timer: Timer, folder: Path) -> None:
    """Start `server` again whenever it dies; `folder` is where its log is.

    Raises Unavailable when it has died, or has not come up, more than RESTARTS times within WITHIN_S.
    """
    deaths: deque[int] = deque(maxlen=RESTARTS)
    while True:
        how = await server.died()
        while True:
            now = timer.monotonic_us()
            if len(deaths) == RESTARTS and now - deaths[0] < WITHIN_S * 1_000_000:
                raise Unavailable(
                    f"the nats-server has died {RESTARTS + 1} times within {WITHIN_S} s, the last time with {how}",
                    mend=f"see {folder}/nats.log",
                )
            deaths.append(now)
            log.error("the nats-server has died (%s): starting it again", how)
            try:
                await server.restart()
            except Unavailable as error:
                how = error.message
                await timer.sleep(PAUSE_S)
            else:
                log.warning("the nats-server is back")
                break
