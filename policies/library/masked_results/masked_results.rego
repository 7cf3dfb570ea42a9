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

# METADATA
# title: parameters
# description: the Policy declares a parameter that there is not, or one of another kind
results contains {"rule": "masked_results.parameters", "effect": "deny", "reason": reason} if {
	some key, value in data.agentos.policies.masked_results.parameters
	not known(key, value)
	reason := sprintf("parameter %s of policy masked_results cannot be %s; see its page", [key, json.marshal(value)])
}

known("redacted", value) if pointers(value)

known("masked", value) if pointers(value)

pointers(value) if {
	is_object(value)
	every paths in value {
		is_array(paths)
		every path in paths {
			startswith(path, "/")
		}
	}
}
