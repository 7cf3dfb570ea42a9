"""The kernel: the one gate through which every effect passes, and the sessions that pass through it.

    sessions = Sessions(logs, source, gate, runner, drivers, workspaces, timer, random)
    state = await sessions.create("default", "triage", "sort the inbox", None, "principal/ann")

`gate` decides, records and acts; `turn` serves a harness; `sessions` creates, parks, wakes and resumes; `journal` writes;
`port` is what the kernel is handed from outside.
"""

from agentos.kernel.port import AgentSpec, Configuration, ConfigurationSource

__all__ = ["AgentSpec", "Configuration", "ConfigurationSource"]
