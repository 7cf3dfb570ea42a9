# METADATA
# title: harness commands
# description: only known programs drive the sessions of agents, in known sandboxes
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/library/harness_commands/README.md
package agentos.admission.rules.harness_commands

# How a command must begin; more words may follow.
allowed_commands := [
	["sh", "/opt/harness/loop.sh"],
	["python", "-I", "/opt/harness/loop.py"],
]

# Where they may work: these show them nothing but those programs.
allowed_sandboxes := {"brain"}

# METADATA
# title: command
# description: the program that drives an agent is not a known one
results contains {"rule": "harness_commands.command", "effect": "deny", "reason": reason} if {
	some agent, harness in harnesses
	not known(harness.command)
	reason := sprintf("agent %s would be driven by %s, which is not on the list", [agent, concat(" ", harness.command)])
}

# METADATA
# title: sandbox
# description: the program that drives an agent works in a place that is not a known one
results contains {"rule": "harness_commands.sandbox", "effect": "deny", "reason": reason} if {
	some agent, harness in harnesses
	not object.get(harness, "sandbox", "") in allowed_sandboxes
	reason := sprintf("the harness of agent %s would work in a sandbox that is not on the list", [agent])
}

harnesses[agent.metadata.name] := agent.spec.harness if {
	some agent in input.resources
	agent.kind == "Agent"
}

known(command) if {
	some begin in allowed_commands
	array.slice(command, 0, count(begin)) == begin
}
