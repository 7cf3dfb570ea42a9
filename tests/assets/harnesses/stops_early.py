"""A harness that goes by the stop reason, and makes the first call of a reply alone."""

import sys

from agentos.harness import loop


class Kernel(loop.Kernel):
    def call(self, method, params):
        answer = super().call(method, params)
        if method == "model.call":
            calls = [block for block in answer["content"] if block["type"] == "tool_use"]
            kept = calls[:1] if answer["stop_reason"] == "tool_use" else []
            answer["content"] = [block for block in answer["content"] if block not in calls] + kept
        return answer


loop.Kernel = Kernel
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
