"""Who runs next, on what, and with which budget: pure values and queues on an injected clock; no task, thread or socket.

tree = ShareTree()
tree.enqueue(("acme", "support", "triage"), "turn-1")
tree.dequeue(charge=900)                                     # (("acme", "support", "triage"), "turn-1")
"""

from agentos.scheduler.share import ShareTree, Standing

__all__ = ["ShareTree", "Standing"]
