# METADATA
# title: blocked tools
# description: tools with certain labels are not called
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/blocked_tools/README.md
package agentos.syscall.rules.blocked_tools

blocked_labels := {"experimental", "recalled"}

# METADATA
# title: denied
# description: the tool of the call has a blocked label
results contains {"rule": "blocked_tools.denied", "effect": "deny", "reason": reason} if {
	blocked := sort({label | some label in data.agentos.tools[input.syscall.tool].labels; label in blocked_labels})
	count(blocked) > 0
	reason := sprintf("tool %s is labelled %s, and such tools are blocked", [input.syscall.tool, concat(", ", blocked)])
}
