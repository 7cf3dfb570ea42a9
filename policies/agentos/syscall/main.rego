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
	"obligations": sort(obligations),
	"grants": grants,
}

default effect := "deny"

effect := "halt" if {
	"halt" in effects
} else := "deny" if {
	"deny" in effects
} else := "ask" if {
	count(asking) > 0
	not approved
} else := "allow" if {
	# An obligation permits nothing.
	count(effects - {"oblige"}) > 0
}

effects := {result.effect | some result in bound}

# Which results led to an effect: what binds less is not told.
led := {
	"halt": {"halt", "deny"},
	"deny": {"deny"},
	"ask": {"ask", "oblige"},
	"allow": {"allow", "ask", "oblige"},
}

deciding := {{"rule": "syscall.default", "reason": "no rule allows this call"}} if {
	count(effects - {"oblige"}) == 0
} else := {result | some result in bound; result.effect in led[effect]} | approvals

# A call that is not made can still mark its session and be told of.
kept := {"halt": {"label", "notify"}, "deny": {"label", "notify"}}

obligations contains object.union(obligation, {"rule": result.rule}) if {
	some result in bound
	some obligation in result.obligations
	not left_out(obligation)
}

left_out(obligation) if {
	kinds := kept[effect]
	not obligation.kind in kinds
}

# What a call is let through by, at once or when a person says yes: of more than a decision may name the first.
grants := array.slice(sort({name | some result in bound; some name in result.grants}), 0, 100) if {
	effect in {"allow", "ask"}
} else := []

bound contains checked(tail, candidate) if {
	some tail in loaded
	not tail in watched
	not tail in elsewhere
	some candidate in data.agentos.syscall.rules[tail].results
}

observed contains {"rule": result.rule, "effect": result.effect, "reason": result.reason, "mode": mode} if {
	some tail in watched
	tail in loaded
	not tail in elsewhere
	mode := data.agentos.policies[tail].mode
	some candidate in data.agentos.syscall.rules[tail].results
	result := checked(tail, candidate)
}

watched contains tail if {
	some tail
	data.agentos.policies[tail].mode in {"warn", "dryrun"}
}

# The runtime lists what is loaded, so that a package beyond whose scope the call lies is not evaluated.
loaded := tails if {
	tails := data.agentos.rules.syscall
} else := {tail | some tail; data.agentos.syscall.rules[tail].results}

elsewhere contains tail if {
	some tail
	beyond(data.agentos.policies[tail].scope)
}

# What is not known of a call puts it beyond no scope. A policy for an agent binds whoever acts for that agent.
beyond(scope) if {
	every caller in callers {
		outside(scope, caller)
	}
}

outside(scope, caller) if {
	is_string(caller.agent)
	not caller.agent in scope.agents
	scope.agents
}

outside(scope, caller) if {
	is_object(caller.labels)
	some name, value in scope.agentLabels
	not object.get(caller.labels, name, null) == value
}

beyond(scope) if {
	tool := input.syscall.tool
	not tool in scope.tools
	scope.tools
}

beyond(scope) if {
	labels := data.agentos.tools[input.syscall.tool].labels
	count({label | some label in scope.toolLabels} & {label | some label in labels}) == 0
	scope.toolLabels
}

# Who calls, and for whom.
callers := array.concat([{"agent": input.agent.name, "labels": input.agent.labels}], acting_for) if is_array(acting_for)

default acting_for := []

acting_for := input.session.delegators

# Only the rule `grants` can allow, and name grants; a result that is none denies instead of being overlooked.
checked(tail, candidate) := candidate if {
	effects := {"halt", "deny", "ask"} | {"allow" | tail == "grants"}
	candidate.effect in effects
	is_string(candidate.rule)
	is_string(candidate.reason)
	parts := {"obligations"} | {"grants" | tail == "grants"}
	object.keys(candidate) - parts == {"rule", "effect", "reason"}
	well_formed(object.get(candidate, "obligations", []))
	names(object.get(candidate, "grants", []))
} else := candidate if {
	candidate.effect == "oblige"
	is_string(candidate.rule)
	is_string(candidate.reason)
	object.keys(candidate) == {"rule", "effect", "reason", "obligations"}
	well_formed(candidate.obligations)
	count(candidate.obligations) > 0
} else := {
	"rule": "syscall.malformed",
	"effect": "deny",
	"reason": sprintf("a rule of agentos.syscall.rules.%s gives a result that is not a rule, an effect and a reason", [tail]),
}

names(given) if {
	is_array(given)
	every name in given {
		is_string(name)
	}
}

# Which kinds there are, and with which fields, is for the runtime to know: it denies what it does not.
well_formed(obligations) if {
	is_array(obligations)
	every obligation in obligations {
		is_object(obligation)
		is_string(obligation.kind)
	}
}

# People approved this very call (the same tool, the same arguments), or calls like it for this session: under the policy that
# is in force, and not too long ago.
approval contains given if {
	some given in input.approvals
	given.tool == input.syscall.tool
	given.policy_digest == input.policy_digest
	is_number(input.now)
	is_number(given.expires)
	input.now < given.expires
	every rule in asking {
		rule in given.rules
	}
	covers(given)
}

covers(given) if {
	given.scope == "once"
	given.args_digest == input.syscall.args_digest
}

covers(given) if {
	given.scope == "session"
	is_number(given.uses_left)
	given.uses_left > 0
}

# Who wants a person: rules that ask, and rules that want approvers, however they put it.
asking contains result.rule if {
	some result in bound
	result.effect == "ask"
}

asking contains result.rule if {
	some result in bound
	some obligation in result.obligations
	obligation.kind == "approvers"
}

approved if count({given.by | some given in approval}) >= approvers

# How many different people: one, unless a rule wants more.
approvers := max({1} | {obligation.count |
	some result in bound
	some obligation in result.obligations
	obligation.kind == "approvers"
	is_number(obligation.count)
})

approvals contains {"rule": "syscall.approved", "reason": reason} if {
	effect == "allow"
	count(asking) > 0
	some given in approval
	reason := sprintf("%s approved this call: %s", [given.by, given.reason])
}
