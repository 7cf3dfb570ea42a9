"""A harness that keeps everything it was ever told."""

import sys

from agentos.harness import loop

kept = []


class Kernel(loop.Kernel):
    def _read(self):
        frame = super()._read()
        kept.append(frame)
        return frame


loop.Kernel = Kernel
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
