"""A harness that writes a page to standard error for each frame."""

import sys

from agentos.harness import loop


class Kernel(loop.Kernel):
    def _read(self):
        sys.stderr.write("debugging " * 200)
        return super()._read()


loop.Kernel = Kernel
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
