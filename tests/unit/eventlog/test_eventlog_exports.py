"""What the room shows."""

from __future__ import annotations

import subprocess
import sys
import types

import agentos.eventlog


def test_what_is_exported_is_what_is_visible():
    """`__all__` is sorted and names exactly the public values of the package."""
    visible = {
        name
        for name, value in vars(agentos.eventlog).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }
    assert set(agentos.eventlog.__all__) == visible
    assert list(agentos.eventlog.__all__) == sorted(agentos.eventlog.__all__)


def test_importing_the_room_brings_no_vendor():
    """The room can be imported without NATS, keys or an event loop: the command line stays quick."""
    program = "import agentos.eventlog, sys; print([m for m in ('nats', 'nkeys', 'asyncio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
