"""Importing the NATS client without its websockets: `aiohttp`, which only they need, would be a third of a command's start."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_ONLY_FOR_WEBSOCKETS: Final = "aiohttp"


@contextmanager
def only_for(url: str) -> Iterator[None]:
    """Import `nats` inside: `aiohttp` is loaded with it only where `url` (`ws://…`) needs it, or when it is there already.

    For processes that know one server. What is imported outside of this sees `aiohttp` as ever.
    """
    if url.startswith("ws") or _ONLY_FOR_WEBSOCKETS in sys.modules:
        yield
        return
    sys.modules[_ONLY_FOR_WEBSOCKETS] = None  # type: ignore[assignment] # how an import is told that there is no such module
    try:
        yield
    finally:
        del sys.modules[_ONLY_FOR_WEBSOCKETS]
