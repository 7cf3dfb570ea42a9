"""The tables of the index: what the headers of a tenant's events come to, with nobody's words in it."""

from __future__ import annotations

from typing import Final

from agentos.projections.read_model import FAULTS, POSITIONS
from agentos.projections.sqlite_file import Layout
from agentos.projections.table import INTEGER, TEXT, Table

APPLICATION_ID: Final = 0x41474F53
"""`AGOS`."""

SCHEMA_VERSION: Final = 6

SESSIONS: Final = Table(
    "sessions",
    {
        "id": TEXT,
        "agent": TEXT,
        "state": TEXT,
        "created_ms": INTEGER,
        "updated_ms": INTEGER,
        "calls": INTEGER,
        "denied": INTEGER,
        "model_calls": INTEGER,
        "input_tokens": INTEGER,
        "output_tokens": INTEGER,
        "actor": TEXT,
        "config_revision": INTEGER,
        "waiting_call": TEXT,
        "paused": INTEGER,
        "deferred": TEXT,
        "parent": TEXT,
        "origin": TEXT,
        "trigger_name": TEXT,
        "firing": TEXT,
        "ended": INTEGER,
        "seq": INTEGER,
        "head": TEXT,
    },
    ["id"],
    rowid=True,
)
"""`deferred` says as JSON what has to hold before it begins, until it does; `parent`, `origin`, `trigger_name` and `firing` say
where it came from; `ended` is the event that ended it; `seq` and `head` are its chain's tip."""

SYSCALLS: Final = Table(
    "syscalls",
    {
        "session": TEXT,
        "call": TEXT,
        "tool": TEXT,
        "tool_effect": TEXT,
        "decision": TEXT,
        "asked": INTEGER,
        "rules": TEXT,
        "actor": TEXT,
        "agent": TEXT,
        "config_revision": INTEGER,
        "policy_digest": TEXT,
        "approval_by": TEXT,
        "approvals": TEXT,
        "outcome": TEXT,
        "model": TEXT,
        "started_ms": INTEGER,
        "duration_us": INTEGER,
        "turn": INTEGER,
        "seqs": TEXT,
    },
    ["session", "call"],
    rowid=True,
)
"""`tool` is null for a call that was refused: its name is the model's own word. `seqs`: the events about it, joined by commas."""

APPROVALS: Final = Table(
    "approvals",
    {
        "session": TEXT,
        "call": TEXT,
        "agent": TEXT,
        "tool": TEXT,
        "tool_effect": TEXT,
        "policy_digest": TEXT,
        "rules": TEXT,
        "decided": INTEGER,
        "asked_ms": INTEGER,
        "expires_ms": INTEGER,
        "needed": INTEGER,
        "given": INTEGER,
        "answers": TEXT,
        "state": TEXT,
        "by": TEXT,
        "decided_ms": INTEGER,
    },
    ["session", "call"],
    rowid=True,
)
"""`decided` is the event of the decision that asks."""

SPEND: Final = Table(
    "spend",
    {
        "day": TEXT,
        "agent": TEXT,
        "tool": TEXT,
        "model": TEXT,
        "calls": INTEGER,
        "failed": INTEGER,
        "input_tokens": INTEGER,
        "output_tokens": INTEGER,
        "duration_us": INTEGER,
    },
    ["day", "agent", "tool", "model"],
)
"""Calls that came to an outcome, by the UTC day of it; a session's own sums are in `sessions`."""

RULES: Final = Table(
    "rules",
    {"rule": TEXT, "started_ms": INTEGER, "session": TEXT, "call": TEXT},
    ["rule", "started_ms", "session", "call"],
)

ANSWERS: Final = Table(
    "answers", {"by": TEXT, "started_ms": INTEGER, "session": TEXT, "call": TEXT}, ["by", "started_ms", "session", "call"]
)

ERASED: Final = Table("erased", {"session": TEXT}, ["session"])
"""Sessions whose payloads were erased."""

CHAINS: Final = Table("chains", {"name": TEXT, "seq": INTEGER, "head": TEXT}, ["name"])
"""How far the chains go that are no session's."""

TABLES: Final = (SESSIONS, SYSCALLS, APPROVALS, SPEND, RULES, ANSWERS, CHAINS, ERASED, POSITIONS, FAULTS)

BY_FILTER: Final = {
    (): "syscalls_started",
    ("agent",): "syscalls_agent",
    ("tool",): "syscalls_tool",
    ("decision",): "syscalls_decision",
    ("agent", "tool"): "syscalls_agent_tool",
    ("agent", "decision"): "syscalls_agent_decision",
    ("tool", "decision"): "syscalls_tool_decision",
    ("agent", "tool", "decision"): "syscalls_agent_tool_decision",
    ("asked",): "syscalls_asked",
    ("agent", "asked"): "syscalls_agent_asked",
    ("tool", "asked"): "syscalls_tool_asked",
    ("agent", "tool", "asked"): "syscalls_agent_tool_asked",
}
"""Which index answers which filters of the audit query: each already lies in the order of the answer, newest first."""


def _index(filters: tuple[str, ...], name: str) -> str:
    columns = [column for column in filters if column != "asked"]
    only = " WHERE asked = 1" if "asked" in filters else ""
    return f"CREATE INDEX {name} ON syscalls ({', '.join([*columns, 'started_ms'])}){only}"


LAYOUT: Final = Layout(
    APPLICATION_ID,
    SCHEMA_VERSION,
    tuple(table.name for table in TABLES),
    (
        *(table.create for table in TABLES),
        *(_index(filters, name) for filters, name in BY_FILTER.items()),
        "CREATE INDEX syscalls_actor ON syscalls (actor, started_ms)",
        "CREATE INDEX sessions_created ON sessions (created_ms)",
        "CREATE INDEX sessions_state ON sessions (state, created_ms)",
        "CREATE INDEX sessions_parent ON sessions (parent) WHERE parent IS NOT NULL",
        "CREATE INDEX sessions_trigger ON sessions (trigger_name, created_ms) WHERE trigger_name IS NOT NULL",
        "CREATE INDEX sessions_firing ON sessions (trigger_name, firing) WHERE firing IS NOT NULL",
        "CREATE INDEX sessions_origin ON sessions (origin, agent, created_ms) WHERE origin IS NOT NULL",
        "CREATE INDEX approvals_state ON approvals (state, asked_ms)",
        # What the runtime looks for every second: questions whose time is over.
        "CREATE INDEX approvals_expiry ON approvals (expires_ms) WHERE state = 'waiting'",
    ),
    ("cache_size = -32768",),
)
