# METADATA
# title: isolated hands
# description: a tool that starts a process does so in a sandbox that sets it apart
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/isolated_hands/README.md
package agentos.syscall.rules.isolated_hands

# What counts as set apart.
isolations := {"bubblewrap", "container"}

# METADATA
# title: denied
# description: the process of the call would be set apart from nothing
results contains {"rule": "isolated_hands.denied", "effect": "deny", "reason": reason} if {
	starts
	not isolated
	reason := sprintf("tool %s would work in sandbox %s, which does not set it apart from the machine", [input.syscall.tool, sandbox])
}

starts if data.agentos.tools[input.syscall.tool].driver == "exec"

# A server at an address is no process of ours.
starts if {
	data.agentos.tools[input.syscall.tool].driver == "mcp"
	not data.agentos.tools[input.syscall.tool].reach
}

isolated if data.agentos.sandboxes[sandbox].isolation in isolations

# That of the tool, else that of the agent, else the one that is always there.
sandbox := named if {
	named := data.agentos.tools[input.syscall.tool].sandbox
} else := named if {
	named := data.agentos.agents[input.agent.name].sandbox
} else := "default"
