# METADATA
# title: read only
# description: an agent that is labelled read-only changes nothing
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/read_only/README.md
package agentos.syscall.rules.read_only

# The label of the Agent.
label := {"name": "access", "value": "read-only"}

# METADATA
# title: denied
# description: a call by such an agent that does more than read
results contains {"rule": "read_only.denied", "effect": "deny", "reason": reason} if {
	input.agent.labels[label.name] == label.value
	not input.syscall.effect == "read"
	not input.syscall.tool == "model-call"
	not input.syscall.tool == "net-request"
	reason := sprintf(
		"agent %s is labelled %s: %s, and tool %s does more than read",
		[input.agent.name, label.name, label.value, input.syscall.tool],
	)
}
