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
	"halt" in effects
} else := "deny" if {
	"deny" in effects
} else := "ask" if {
	"ask" in effects
	not approved
} else := "allow" if {
	count(effects) > 0
}

effects := {result.effect | some result in bound}

# Which results led to an effect: what binds less is not told.
led := {"halt": {"halt", "deny"}, "deny": {"deny"}, "ask": {"ask"}, "allow": {"allow", "ask"}}

deciding := {{"rule": "syscall.default", "reason": "no rule allows this call"}} if {
	count(bound) == 0
} else := {result | some result in bound; result.effect in led[effect]} | approvals

bound contains checked(tail, candidate) if {
	some tail
	data.agentos.syscall.rules[tail].results[candidate]
	not tail in watched
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
	effect == "allow"
	"ask" in effects
	some given in approval
	reason := sprintf("%s approved this call: %s", [given.by, given.reason])
}
