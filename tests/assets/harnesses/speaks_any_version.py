"""A harness that claims whatever version it is offered."""

import sys

from agentos.abi import rpc
from agentos.harness import loop


class Kernel(loop.Kernel):
    def greet(self):
        frame = self._read()
        self._write(rpc.response(frame["id"], {"abi": frame["params"]["abi"]}))


loop.Kernel = Kernel
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
