"""A harness that fails at a block that it does not know."""

import sys

from agentos.harness import loop


class Kernel(loop.Kernel):
    def call(self, method, params):
        answer = super().call(method, params)
        for block in answer.get("content", []) if method == "model.call" else []:
            assert block["type"] in {"text", "tool_use"}, block["type"]
        return answer


loop.Kernel = Kernel
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
