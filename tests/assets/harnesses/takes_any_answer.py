"""A harness that takes whatever comes for the answer."""

import sys

from agentos.harness import loop


class Kernel(loop.Kernel):
    def _answer(self, waiting):
        frame = self._read()
        if "error" in frame:
            raise loop._Gone
        return next(iter(waiting)), frame.get("result", {"content": [], "is_error": False})


loop.Kernel = Kernel
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
