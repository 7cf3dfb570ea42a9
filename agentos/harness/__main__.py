"""Entry point of the built-in harness."""

import sys

from agentos.harness.loop import main

sys.exit(main(sys.stdin.buffer, sys.stdout.buffer))
