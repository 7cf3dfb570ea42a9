"""A harness that gives calls ids of its own."""

import sys

from agentos.harness import loop


class Kernel(loop.Kernel):
    def call_all(self, method, several):
        super().call_all(method, [{**params, "call": f"mine_{params['call']}"[:64]} for params in several])


loop.Kernel = Kernel
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
