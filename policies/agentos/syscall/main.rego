# METADATA
# title: syscall
# description: the one decision about one syscall, gathered from the results of all rules
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall

# METADATA
# title: decision
# description: the strictest effect that binds, with the rules that led to it; no allow is a denial
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
	not approved
} else := "allow" if {
	bound.allow
} else := "allow" if {
	bound.ask
	approved
}

deciding := bound.halt | object.get(bound, "deny", set()) if {
	effect == "halt"
} else := bound.deny if {
	bound.deny
} else := bound.ask if {
	effect == "ask"
} else := (object.get(bound, "allow", set()) | object.get(bound, "ask", set())) | approvals if {
	effect == "allow"
} else := {{"rule": "syscall.default", "reason": "no rule allows this call"}}

bound[effect] contains result if {
	some tail
	data.agentos.syscall.rules[tail].results[candidate]
	not tail in watched
	result := checked(tail, candidate)
	effect := result.effect
}

observed contains {"rule": result.rule, "effect": result.effect, "reason": result.reason, "mode": mode} if {
	some tail in watched
	mode := data.agentos.policies[tail].mode
	data.agentos.syscall.rules[tail].results[candidate]
	result := checked(tail, candidate)
}

watched contains tail if {
	some tail
	data.agentos.policies[tail].mode in {"warn", "dryrun"}
}

# Only the rule `grants` can allow; a result that is none denies instead of being overlooked.
checked(tail, candidate) := candidate if {
	effects := {"halt", "deny", "ask"} | {"allow" | tail == "grants"}
	candidate.effect in effects
	is_string(candidate.rule)
	is_string(candidate.reason)
	object.keys(candidate) == {"rule", "effect", "reason"}
} else := {
	"rule": "syscall.malformed",
	"effect": "deny",
	"reason": sprintf("a rule of agentos.syscall.rules.%s gives a result that is not a rule, an effect and a reason", [tail]),
}

# A person approved exactly this call: the same tool with the same arguments.
approval contains given if {
	some given in input.approvals
	given.tool == input.syscall.tool
	given.args_digest == input.syscall.args_digest
}

approved if count(approval) > 0

approvals contains {"rule": "syscall.approved", "reason": reason} if {
	bound.ask
	some given in approval
	reason := sprintf("%s approved this call: %s", [given.by, given.reason])
}
