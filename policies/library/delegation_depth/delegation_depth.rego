# METADATA
# title: delegation depth
# description: work is handed on a few times and no further
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/delegation_depth/README.md
package agentos.syscall.rules.delegation_depth

# Sessions above this one, at most.
deepest := 2

# How deep a session may be to reach outside.
deepest_external := 1

# METADATA
# title: denied
# description: the session stands too deep in a chain of delegation
results contains {"rule": "delegation_depth.denied", "effect": "deny", "reason": reason} if {
	depth > deepest
	reason := sprintf("the session stands %d deep in a chain of delegation, at most %d", [depth, deepest])
}

# METADATA
# title: external
# description: the session stands too deep to reach outside
results contains {"rule": "delegation_depth.external", "effect": "deny", "reason": reason} if {
	input.syscall.effect == "external"
	not input.syscall.tool == "model-call"
	depth > deepest_external
	reason := sprintf(
		"the session stands %d deep in a chain of delegation; tool %s reaches outside from at most %d",
		[depth, input.syscall.tool, deepest_external],
	)
}

depth := count(input.session.delegation)
