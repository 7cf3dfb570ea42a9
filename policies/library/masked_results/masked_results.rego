# METADATA
# title: masked results
# description: what a tool returns is masked before the model reads it
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/masked_results/README.md
package agentos.syscall.rules.masked_results

# METADATA
# title: masked
# description: parts of the result of a tool are hidden but for their last characters, or as a whole
results contains {"rule": "masked_results.masked", "effect": "oblige", "reason": reason, "obligations": obligations} if {
	count(obligations) > 0
	reason := sprintf(
		"of what tool %s returns, %s is masked",
		[input.syscall.tool, concat(", ", [one.path | some one in obligations])],
	)
}

obligations := array.concat(
	[{"kind": "redact", "in": "result", "path": path} | some path in redacted[input.syscall.tool]],
	[{"kind": "mask", "in": "result", "path": path, "keep": 4} | some path in masked[input.syscall.tool]],
)

# JSON Pointers into the result, by tool: `spec.parameters` of the Policy, or these.
default redacted := {"read-customers": ["/customers/*/email"]}

redacted := data.agentos.policies.masked_results.parameters.redacted if {
	is_object(data.agentos.policies.masked_results.parameters.redacted)
}

default masked := {"read-customers": ["/customers/*/iban"]}

masked := data.agentos.policies.masked_results.parameters.masked if {
	is_object(data.agentos.policies.masked_results.parameters.masked)
}
