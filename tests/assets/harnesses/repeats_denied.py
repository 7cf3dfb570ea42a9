"""A harness that makes a call again that was denied."""

import sys

from agentos.harness import loop


class Kernel(loop.Kernel):
    def call_all(self, method, several):
        for params in several:
            if self.call(method, params)["is_error"]:
                self.call(method, params)


loop.Kernel = Kernel
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
