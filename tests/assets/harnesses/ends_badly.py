"""A harness that leaves with exit code 3."""

import sys

from agentos.harness import loop

loop.main(sys.stdin.buffer, sys.stdout.buffer)
sys.exit(3)
