# METADATA
# title: rate caps
# description: so many calls of a grave effect in so much time, and no more
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/rate_caps/README.md
package agentos.syscall.rules.rate_caps

# METADATA
# title: counted
# description: a call of such an effect is counted, and the next one over the limit is denied
results contains {
	"rule": "rate_caps.counted",
	"effect": "oblige",
	"reason": reason,
	"obligations": [{"kind": "rate", "name": "rate_caps", "limit": limit, "seconds": seconds, "per": per}],
} if {
	input.syscall.effect in effects
	not input.syscall.tool == "model-call"
	not input.syscall.tool == "net-request"
	reason := sprintf("at most %d calls with the effect %s per %s in %d s", [limit, input.syscall.effect, per, seconds])
}

# `spec.parameters` of the Policy, or these.
declared := object.get(data.agentos.policies.rate_caps, "parameters", {})

default effects := ["external"]

effects := declared.effects if is_array(declared.effects)

default limit := 30

limit := declared.limit if is_number(declared.limit)

default seconds := 3600

seconds := declared.seconds if is_number(declared.seconds)

default per := "agent"

per := declared.per if declared.per in {"session", "agent", "tenant"}

# METADATA
# title: parameters
# description: the Policy declares a parameter that there is not, or one of another kind
results contains {"rule": "rate_caps.parameters", "effect": "deny", "reason": reason} if {
	some key, value in data.agentos.policies.rate_caps.parameters
	not known(key, value)
	reason := sprintf("parameter %s of policy rate_caps cannot be %s; see its page", [key, json.marshal(value)])
}

known("effects", value) if {
	is_array(value)
	count({effect | some effect in value} - {"read", "write", "external"}) == 0
}

known("limit", value) if whole(value, 0)

known("seconds", value) if whole(value, 1)

known("per", value) if value in {"session", "agent", "tenant"}

whole(value, least) if {
	is_number(value)
	value >= least
	round(value) == value
}
