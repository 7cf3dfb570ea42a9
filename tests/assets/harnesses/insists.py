"""A harness that asks again what was refused, for ever."""

import sys

from agentos.harness import loop


class Kernel(loop.Kernel):
    def call(self, method, params):
        while True:
            try:
                return super().call(method, params)
            except RuntimeError:
                continue


loop.Kernel = Kernel
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
