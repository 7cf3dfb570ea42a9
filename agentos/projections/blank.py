"""The rows of the index as they begin: a session, a call of one."""

from __future__ import annotations

from agentos.abi.chain import GENESIS
from agentos.projections.decoded import Header
from agentos.projections.table import Row


def blank_session(name: str) -> Row:
    """Nothing was heard of it yet."""
    return {
        "id": name,
        "agent": "",
        "state": "running",
        "created_ms": 0,
        "updated_ms": 0,
        "calls": 0,
        "denied": 0,
        "model_calls": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "actor": "",
        "config_revision": 0,
        "waiting_call": None,
        "paused": 0,
        "deferred": None,
        "parent": None,
        "origin": None,
        "trigger_name": None,
        "firing": None,
        "ended": None,
        "seq": 0,
        "head": GENESIS,
    }


def blank_syscall(session: Row, event: Header, call: str, tool: str | None) -> Row:
    """A call that `event` is the first to tell of. `tool` is None where the model's own word is all there is."""
    return {
        "session": session["id"],
        "call": call,
        "tool": tool,
        "tool_effect": None,
        "decision": None,
        "asked": 0,
        "rules": "[]",
        # On whose behalf: the principal who started the session; the agent has a column of its own.
        "actor": session["actor"] or event.actor,
        "agent": session["agent"],
        "config_revision": event.config_revision,
        "policy_digest": event.policy_digest,
        "approval_by": None,
        "approvals": "[]",
        "outcome": "pending",
        "model": "",
        "started_ms": event.time_ms,
        "duration_us": None,
        "turn": None,
        "seqs": "",
    }
