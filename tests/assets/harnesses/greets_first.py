"""A harness that speaks before it is spoken to."""

import sys

from agentos.abi import rpc
from agentos.harness import loop

sys.stdout.buffer.write(rpc.response(0, {"abi": rpc.ABI}))
sys.stdout.buffer.flush()
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
