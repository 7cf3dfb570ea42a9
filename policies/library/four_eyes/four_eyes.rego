# METADATA
# title: four eyes
# description: two people look at each call of a grave effect
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/four_eyes/README.md
package agentos.syscall.rules.four_eyes

# METADATA
# title: two
# description: a call of such an effect waits for two approvers
results contains {
	"rule": "four_eyes.two",
	"effect": "ask",
	"reason": reason,
	"obligations": [{"kind": "approvers", "count": people}],
} if {
	input.syscall.effect in effects
	not input.syscall.tool == "model-call"
	not input.syscall.tool == "net-request"
	reason := sprintf(
		"tool %s has the effect %s; %d people approve each such call",
		[input.syscall.tool, input.syscall.effect, people],
	)
}

# Which effects, and how many people: `spec.parameters` of the Policy, or these.
default effects := ["external"]

effects := data.agentos.policies.four_eyes.parameters.effects if {
	is_array(data.agentos.policies.four_eyes.parameters.effects)
}

default people := 2

people := data.agentos.policies.four_eyes.parameters.people if {
	is_number(data.agentos.policies.four_eyes.parameters.people)
}

# METADATA
# title: parameters
# description: the Policy declares a parameter that there is not, or one of another kind
results contains {"rule": "four_eyes.parameters", "effect": "deny", "reason": reason} if {
	some key, value in data.agentos.policies.four_eyes.parameters
	not known(key, value)
	reason := sprintf("parameter %s of policy four_eyes cannot be %s; see its page", [key, json.marshal(value)])
}

known("effects", value) if {
	is_array(value)
	count({effect | some effect in value} - {"read", "write", "external"}) == 0
}

known("people", value) if {
	is_number(value)
	value >= 1
	round(value) == value
}
