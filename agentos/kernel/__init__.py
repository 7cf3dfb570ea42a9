"""The kernel: the one gate through which every effect passes, and the sessions that pass through it.

sessions = Sessions(logs, source, gate, runner, drivers, workspaces, timer, random)
state = await sessions.create("default", "triage", "sort the inbox", None, "principal/ann")

the call       gate, deciding, ruling, rewrite, obligations, consent, charges, acts, stopping, failures, provenance, repeated,
               reconcile
its price      budgets, booked, lineage, counted, allowance, budget_texts, budget_tree
its turn       admission, asking, seat, places, adrift, batched; waits, lending, waiting, locks
the session    sessions, opening, journal, snapshot, runner, turn, serving, served, methods, view, line, ending, live, life, fork,
               replay, workspace
people         approvals, answering, signals, freeze
others         deferral; delegation, receiving, handover, homecoming, cascade
values         firing, standing, and port: what the kernel is handed from outside
"""

from agentos.kernel.port import AgentSpec, Configuration, ConfigurationSource

__all__ = ["AgentSpec", "Configuration", "ConfigurationSource"]
