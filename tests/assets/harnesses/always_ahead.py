"""A harness that sends all calls at once, whatever the kernel says, and does not mind how much a pipe takes."""

import sys

from agentos.harness import loop


class Kernel(loop.Kernel):
    def greet(self):
        super().greet()
        self._concurrent = True


loop.AHEAD = 1 << 40
loop.Kernel = Kernel
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
