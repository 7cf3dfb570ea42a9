"""A harness that thinks that it is always the first one."""

import sys

from agentos.harness import loop


class Kernel(loop.Kernel):
    def call(self, method, params):
        answer = super().call(method, params)
        return {**answer, "pending": [], "final": None} if method == "session.view" else answer


loop.Kernel = Kernel
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
