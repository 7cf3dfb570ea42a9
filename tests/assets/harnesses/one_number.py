"""A harness that uses one number for all its requests."""

import sys

from agentos.harness import loop


class Kernel(loop.Kernel):
    def call(self, method, params):
        self._number = 0
        return super().call(method, params)


loop.Kernel = Kernel
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
