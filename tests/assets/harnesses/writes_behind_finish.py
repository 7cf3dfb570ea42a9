"""A harness that asks once more behind `finish`."""

import sys

from agentos.abi import rpc
from agentos.harness import loop


class Kernel(loop.Kernel):
    def call(self, method, params):
        if method == "finish":
            self._write(rpc.request(self._number + 1, method, params) + rpc.request(self._number + 2, "session.view", {}))
        return super().call("session.view" if method == "finish" else method, params)


loop.Kernel = Kernel
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
