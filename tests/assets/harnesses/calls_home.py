"""A harness that tries the network, and looks around at home."""

import contextlib
import socket
import sys
from pathlib import Path

from agentos.harness import loop

with contextlib.suppress(OSError):
    socket.create_connection(("192.0.2.1", 443), timeout=1)
with contextlib.suppress(OSError):
    Path("~/.ssh/id_ed25519").expanduser().read_bytes()
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
