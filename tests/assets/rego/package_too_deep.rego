# METADATA
# title: care
# description: a policy with a flaw
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.care.deep

# METADATA
# title: no
# description: never
results contains {"rule": "care.no", "effect": "deny", "reason": reason} if {
	input.syscall.args.deep.path == "x"
	some grant in data.agentos.grants[input.agent.name][input.syscall.tool]
	grant.approval
	reason := sprintf("%s", [input.session.labels[0]])
}
