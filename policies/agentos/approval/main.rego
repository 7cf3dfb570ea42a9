# METADATA
# title: approval
# description: whether a person's yes to one call counts; what no rule refuses does
# schemas:
#   - input: schema["approval-input"]
package agentos.approval

# METADATA
# title: decision
# description: a denial if any rule that binds refuses, with the rules that did
# entrypoint: true
decision := {
	"effect": effect,
	"rules": sort({result.rule | some result in deciding}),
	"reasons": [pair[1] | some pair in sort({[result.rule, result.reason] | some result in deciding})],
	"observed": sort(observed),
}

default effect := "deny"

effect := "allow" if {
	# Undefined for an input that is no approval: then nothing is allowed.
	is_string(input.approval.by)
	is_string(input.call.args_digest)
	is_string(input.session.actor)
	is_array(input.approvals)
	count(bound) == 0
}

deciding := bound if {
	count(bound) > 0
} else := set() if {
	effect == "allow"
} else := {{"rule": "approval.default", "reason": "the question names no approver, no call or no session"}}

bound contains checked(tail, candidate) if {
	some tail in loaded
	not tail in watched
	some candidate in data.agentos.approval.rules[tail].results
}

observed contains {"rule": result.rule, "effect": result.effect, "reason": result.reason, "mode": mode} if {
	some tail in watched
	mode := data.agentos.policies[tail].mode
	some candidate in data.agentos.approval.rules[tail].results
	result := checked(tail, candidate)
}

watched contains tail if {
	some tail
	data.agentos.policies[tail].mode in {"warn", "dryrun"}
}

loaded := tails if {
	tails := data.agentos.rules.approval
} else := {tail | some tail; data.agentos.approval.rules[tail].results}

# A result that is none denies instead of being overlooked.
checked(tail, candidate) := candidate if {
	candidate.effect == "deny"
	is_string(candidate.rule)
	is_string(candidate.reason)
	object.keys(candidate) == {"rule", "effect", "reason"}
} else := {
	"rule": "approval.malformed",
	"effect": "deny",
	"reason": sprintf("a rule of agentos.approval.rules.%s gives a result that is not a rule, the effect deny and a reason", [tail]),
}
