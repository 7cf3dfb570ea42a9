"""The NATS client without its websockets, where nobody asks for them."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("url", "loaded"), [("nats://127.0.0.1:4222", False), ("tls://host", False), ("ws://host:80", True)])
def test_websockets_are_imported_for_whoever_needs_them(url: str, loaded: bool) -> None:
    """What they need is loaded with the client for a `ws://` address, else only by whoever imports it himself."""
    program = """
import sys
from agentos.eventlog.adapters.nats_import import only_for
with only_for(sys.argv[1]):
    import nats.aio.transport
print("aiohttp" in sys.modules, nats.aio.transport.aiohttp is not None)
import aiohttp
print(aiohttp.ClientSession.__name__)
"""
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [str(loaded), str(loaded), "ClientSession"]
