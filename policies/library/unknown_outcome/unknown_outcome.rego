# METADATA
# title: unknown outcome
# description: nothing more is changed by a session that holds a call of which nobody knows the outcome
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/unknown_outcome/README.md
package agentos.syscall.rules.unknown_outcome

# METADATA
# title: blocks
# description: a call that changes something, while a call that changed something or did not is unsettled
results contains {"rule": "unknown_outcome.blocks", "effect": "deny", "reason": reason} if {
	effect == "deny"
	concerned
}

# METADATA
# title: asks
# description: the same, where the Policy declares that a person may let it through
results contains {"rule": "unknown_outcome.asks", "effect": "ask", "reason": reason} if {
	effect == "ask"
	concerned
}

concerned if {
	input.syscall.effect in effects
	not input.syscall.tool == "model-call"
	not input.syscall.tool == "net-request"
	count(unsettled) > 0
}

reason := sprintf(
	"what came of a call of %s is unknown; look, and say it: agentos session reconcile",
	[concat(", ", sort(unsettled))],
)

# A read that was lost has changed nothing.
unsettled contains tool if {
	some tool in input.session.unknown
	not data.agentos.tools[tool].effect == "read"
}

# `spec.parameters` of the Policy, or these.
declared := object.get(data.agentos.policies.unknown_outcome, "parameters", {})

default effect := "deny"

effect := declared.effect if declared.effect in {"ask", "deny"}

default effects := ["external", "write"]

effects := declared.effects if is_array(declared.effects)

# METADATA
# title: parameters
# description: the Policy declares a parameter that there is not, or one of another kind
results contains {"rule": "unknown_outcome.parameters", "effect": "deny", "reason": reason} if {
	some key, value in data.agentos.policies.unknown_outcome.parameters
	not known(key, value)
	reason := sprintf("parameter %s of policy unknown_outcome cannot be %s; see its page", [key, json.marshal(value)])
}

known("effect", value) if value in {"ask", "deny"}

known("effects", value) if {
	is_array(value)
	count({one | some one in value} - {"write", "external"}) == 0
}
