# METADATA
# title: control
# description: whether a principal may use a verb of the control door; no allow is a denial
# schemas:
#   - input: schema["control-input"]
package agentos.control

# METADATA
# title: decision
# description: deny over allow, with the rules that led to it
# entrypoint: true
decision := {
	"effect": effect,
	"rules": sort({result.rule | some result in deciding}),
	"reasons": [pair[1] | some pair in sort({[result.rule, result.reason] | some result in deciding})],
}

default effect := "deny"

effect := "deny" if {
	bound.deny
} else := "allow" if {
	bound.allow
}

deciding := bound[effect] if {
	bound[effect]
} else := {{"rule": "control.default", "reason": "no rule allows this command"}}

bound[result.effect] contains result if {
	some tail
	data.agentos.control.rules[tail].results[result]
}
