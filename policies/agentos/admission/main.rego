# METADATA
# title: admission
# description: the one decision about a change of the configuration; what no rule refuses is allowed
# schemas:
#   - input: schema["admission-input"]
package agentos.admission

# METADATA
# title: decision
# description: the strictest effect that binds, with the rules that led to it
# entrypoint: true
decision := {
	"effect": effect,
	"rules": sort({result.rule | some result in deciding}),
	"reasons": [pair[1] | some pair in sort({[result.rule, result.reason] | some result in deciding})],
	"observed": sort(observed),
}

default effect := "deny"

effect := "halt" if {
	bound.halt
} else := "deny" if {
	bound.deny
} else := "ask" if {
	bound.ask
} else := "allow" if {
	# Undefined for an input that is no change: then nothing is allowed.
	is_array(input.changes)
	is_array(input.resources)
}

deciding := bound.halt | object.get(bound, "deny", set()) if {
	effect == "halt"
} else := bound.deny if {
	bound.deny
} else := bound.ask if {
	bound.ask
} else := set() if {
	effect == "allow"
} else := {{"rule": "admission.default", "reason": "the question names no changes and no resources"}}

bound[effect] contains result if {
	some tail
	data.agentos.admission.rules[tail].results[candidate]
	not tail in watched
	result := checked(tail, candidate)
	effect := result.effect
}

observed contains {"rule": result.rule, "effect": result.effect, "reason": result.reason, "mode": mode} if {
	some tail in watched
	mode := data.agentos.policies[tail].mode
	data.agentos.admission.rules[tail].results[candidate]
	result := checked(tail, candidate)
}

watched contains tail if {
	some tail
	data.agentos.policies[tail].mode in {"warn", "dryrun"}
}

# A result that is none denies instead of being overlooked.
checked(_, candidate) := candidate if {
	candidate.effect in {"halt", "deny", "ask"}
	is_string(candidate.rule)
	is_string(candidate.reason)
	object.keys(candidate) == {"rule", "effect", "reason"}
} else := {
	"rule": "admission.malformed",
	"effect": "deny",
	"reason": "a rule of agentos.admission.rules gives a result that is not a rule, an effect and a reason",
}
