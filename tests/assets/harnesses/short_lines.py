"""A harness that reads frames into a buffer of 64 KiB."""

import sys

from agentos.abi import rpc
from agentos.harness import loop

rpc.MAX_FRAME = 64 * 1024
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
