"""A harness that looks around at home."""

import contextlib
import sys
from pathlib import Path

from agentos.harness import loop

with contextlib.suppress(OSError):
    Path("~/.ssh/id_ed25519").expanduser().read_bytes()
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
