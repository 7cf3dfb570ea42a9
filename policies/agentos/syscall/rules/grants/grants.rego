# METADATA
# title: grants
# description: a tool is called only under a grant that is current and covers its arguments
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/agentos/syscall/rules/grants/README.md
package agentos.syscall.rules.grants

# METADATA
# title: allowed
# description: a current grant covers the call and asks nobody
results contains {"rule": "grants.allowed", "effect": "allow", "reason": reason, "grants": [grant.name]} if {
	some grant in applicable
	not grant.approval
	unlimited(grant)
	reason := sprintf("grant %s lets agent %s call tool %s (granted by %s)", [grant.name, agent, tool, grant.by])
}

# METADATA
# title: counted
# description: grants cover the call and ask nobody, each for so many uses; the first that has one left pays for it
results contains {"rule": "grants.counted", "effect": "allow", "reason": reason, "obligations": [obligation], "grants": names} if {
	free := [grant | some grant in applicable; not grant.approval]
	count(free) > 0
	every grant in free {
		not unlimited(grant)
	}
	obligation := paid_by(free)
	names := [grant.name | some grant in free]
	reason := sprintf("grant %s lets agent %s call tool %s while it has uses left", [concat(", ", names), agent, tool])
}

# METADATA
# title: approval
# description: grants cover the call, and each of them asks for a person's approval
results contains {"rule": "grants.approval", "effect": "ask", "reason": reason, "grants": [grant.name]} if {
	some grant in applicable
	every other in applicable {
		other.approval
	}
	some_unlimited
	reason := sprintf("grant %s lets agent %s call tool %s when a person approves", [grant.name, agent, tool])
}

# METADATA
# title: approval counted
# description: grants cover the call for so many uses, and each of them asks for a person's approval
results contains {"rule": "grants.approval-counted", "effect": "ask", "reason": reason, "obligations": [obligation], "grants": names} if {
	count(applicable) > 0
	every grant in applicable {
		grant.approval
	}
	not some_unlimited
	obligation := paid_by(applicable)
	names := [grant.name | some grant in applicable]
	reason := sprintf(
		"grant %s lets agent %s call tool %s when a person approves, while it has uses left",
		[concat(", ", names), agent, tool],
	)
}

# METADATA
# title: model
# description: every agent may call a model; the rule model says which one
results contains {"rule": "grants.model", "effect": "allow", "reason": reason} if {
	tool == "model-call"
	reason := sprintf("agent %s may call its model", [agent])
}

# METADATA
# title: none
# description: no grant names this agent and this tool
results contains {"rule": "grants.none", "effect": "deny", "reason": reason} if {
	count(given) == 0
	not pseudo
	reason := sprintf("no grant lets agent %s call tool %s; an operator can add a ToolGrant", [agent, tool])
}

# METADATA
# title: spent
# description: the grants for this agent and this tool have no use left
results contains {"rule": "grants.spent", "effect": "deny", "reason": reason} if {
	count(given) > 0
	count(applicable) == 0
	some grant in given
	grant.digest in spent
	reason := sprintf(
		"grant %s let agent %s call tool %s %d times; an operator can renew the ToolGrant",
		[grant.name, agent, tool, grant.max_uses],
	)
}

# METADATA
# title: expired
# description: the grants for this agent and this tool have ended
results contains {"rule": "grants.expired", "effect": "deny", "reason": reason} if {
	count(applicable) == 0
	some grant in named
	not current(grant)
	reason := sprintf(
		"grant %s let agent %s call tool %s until %s; an operator can renew the ToolGrant",
		[grant.name, agent, tool, ended(grant)],
	)
}

# METADATA
# title: arguments
# description: a current grant names this agent and this tool, but not with these arguments
results contains {"rule": "grants.args", "effect": "deny", "reason": reason} if {
	count(applicable) == 0
	some grant in named
	current(grant)
	unmet := [name | some name, constraint in grant.args; not satisfied(name, constraint)]
	wanted := [sprintf("%s %s", [name, json.marshal(grant.args[name])]) | some name in unmet]
	reason := sprintf(
		"grant %s lets agent %s call tool %s only with %s; an operator can widen the ToolGrant",
		[grant.name, agent, tool, concat(", ", wanted)],
	)
}

default agent := "(unnamed)"

agent := input.agent.name

default tool := "(unnamed)"

tool := input.syscall.tool

default given := []

given := data.agentos.grants[agent][tool]

# A grant without a use left is as good as none.
named := [grant | some grant in given; not used_up(grant)]

used_up(grant) if grant.digest in spent

default spent := []

spent := input.spent

applicable := [grant |
	some grant in named
	current(grant)
	every name, constraint in grant.args {
		satisfied(name, constraint)
	}
]

unlimited(grant) if not "max_uses" in object.keys(grant)

some_unlimited if {
	some grant in applicable
	unlimited(grant)
}

# As many as one obligation may name; behind those that are used up the others come.
most := 100

paid_by(grants) := {
	"kind": "uses",
	"grants": [{"name": grant.name, "digest": grant.digest, "maximum": grant.max_uses} | some grant in array.slice(grants, 0, most)],
}

current(grant) if not "until" in object.keys(grant)

current(grant) if {
	is_number(input.now)
	input.now < grant.until
}

ended(grant) := time.format(grant.until * 1000000)

# An absent argument satisfies nothing, and a constraint that is not known here holds never.
satisfied(name, constraint) if {
	value := input.syscall.args[name]
	every kind, want in constraint {
		holds(kind, want, value)
	}
}

holds("equals", want, value) if want == value

holds("oneOf", want, value) if value in want

holds("glob", want, value) if {
	is_string(value)
	glob.match(want, ["/"], value)
}

holds("pattern", want, value) if {
	is_string(value)
	regex.is_valid(want)
	regex.match(sprintf(`^(?:%s)$`, [want]), value)
}

holds("maximum", want, value) if {
	is_number(value)
	value <= want
}

holds("minimum", want, value) if {
	is_number(value)
	value >= want
}

holds("maxLength", want, value) if {
	is_string(value)
	count(value) <= want
}

# METADATA
# title: chain
# description: for whom the session acts is not told, or not in a way that can be checked
results contains {"rule": "grants.chain", "effect": "deny", "reason": reason} if {
	not chained
	reason := "the session does not tell for whom it acts: session.delegation and session.delegators must name the same sessions"
}

# METADATA
# title: delegator
# description: an agent that the session acts for holds no grant that covers the call
results contains {"rule": "grants.delegator", "effect": "deny", "reason": reason} if {
	some one in input.session.delegators
	not pseudo
	count(lent(one.agent)) == 0
	reason := sprintf(
		"agent %s acts for agent %s, which no grant lets call tool %s with these arguments now; an operator can add or widen a ToolGrant",
		[agent, one.agent, tool],
	)
}

# METADATA
# title: undelegated
# description: an agent that the session acts for holds no grant any more for the tool by which it delegated
results contains {"rule": "grants.undelegated", "effect": "deny", "reason": reason} if {
	some one in input.session.delegators
	not pseudo
	not may_delegate(one)
	reason := sprintf(
		"agent %s acts for agent %s, which no grant lets call tool %s any more; an operator can renew the ToolGrant",
		[agent, one.agent, one.tool],
	)
}

# METADATA
# title: narrowed
# description: a delegation left this tool out
results contains {"rule": "grants.narrowed", "effect": "deny", "reason": reason} if {
	some names in narrowings
	not pseudo
	not within(tool, names)
	reason := sprintf("agent %s was delegated to with tools %s, so it may not call tool %s", [agent, json.marshal(names), tool])
}

# METADATA
# title: delegated
# description: an agent that the session acts for has a grant that covers the call and asks nobody
results contains {"rule": "grants.delegated", "effect": "allow", "reason": reason, "grants": [grant.name]} if {
	some one in input.session.delegators
	count(applicable) > 0
	some grant in lent(one.agent)
	not grant.approval
	unlimited(grant)
	reason := sprintf(
		"grant %s lets agent %s, for which it acts, call tool %s (granted by %s)",
		[grant.name, one.agent, tool, grant.by],
	)
}

# METADATA
# title: delegator counted
# description: grants of an agent that the session acts for cover the call, each for so many uses; the first that has one left pays
results contains {"rule": "grants.delegator-counted", "effect": "allow", "reason": reason, "obligations": [obligation], "grants": names} if {
	some one in input.session.delegators
	count(applicable) > 0
	free := [grant | some grant in lent(one.agent); not grant.approval]
	count(free) > 0
	every grant in free {
		not unlimited(grant)
	}
	obligation := paid_by(free)
	names := [grant.name | some grant in free]
	reason := sprintf(
		"grant %s lets agent %s, for which it acts, call tool %s while it has uses left",
		[concat(", ", names), one.agent, tool],
	)
}

# METADATA
# title: delegator approval
# description: each grant that covers the call for an agent that the session acts for asks for a person's approval
results contains {"rule": "grants.delegator-approval", "effect": "ask", "reason": reason, "grants": [grant.name]} if {
	some one in input.session.delegators
	some grant in lent(one.agent)
	every other in lent(one.agent) {
		other.approval
	}
	any_unlimited(lent(one.agent))
	reason := sprintf(
		"grant %s lets agent %s, for which it acts, call tool %s when a person approves",
		[grant.name, one.agent, tool],
	)
}

# METADATA
# title: delegator approval counted
# description: the grants of an agent that the session acts for all ask for a person's approval, each for so many uses
results contains {
	"rule": "grants.delegator-approval-counted",
	"effect": "ask",
	"reason": reason,
	"obligations": [obligation],
	"grants": names,
} if {
	some one in input.session.delegators
	offered := lent(one.agent)
	count(offered) > 0
	every grant in offered {
		grant.approval
	}
	not any_unlimited(offered)
	obligation := paid_by(offered)
	names := [grant.name | some grant in offered]
	reason := sprintf(
		"grant %s lets agent %s, for which it acts, call tool %s when a person approves, while it has uses left",
		[concat(", ", names), one.agent, tool],
	)
}

# Nobody, or whole links that are those of the sessions that the session says it descends from.
chained if {
	input.session.delegation == []
	not input.session.delegators
}

chained if {
	is_array(input.session.delegators)
	every one in input.session.delegators {
		is_string(one.agent)
		is_string(one.tool)
		is_object(one.labels)
		type_name(one.tools) in {"null", "array"}
	}
	[one.session | some one in input.session.delegators] == input.session.delegation
}

# The grants of an agent that cover this call.
lent(whose) := [grant |
	some grant in data.agentos.grants[whose][tool]
	not used_up(grant)
	current(grant)
	every name, constraint in grant.args {
		satisfied(name, constraint)
	}
]

# The use that paid for the delegation may have been the last one: only an end or a revocation takes it back.
may_delegate(one) if {
	some grant in data.agentos.grants[one.agent][one.tool]
	current(grant)
}

any_unlimited(grants) if {
	some grant in grants
	unlimited(grant)
}

# What the tools were narrowed to on the way here, each time that they were.
narrowings contains names if {
	names := input.session.tools
}

narrowings contains names if {
	some one in input.session.delegators
	names := one.tools
	names != null
}

within(name, names) if {
	is_array(names)
	name in names
}

# METADATA
# title: net
# description: requests leave while a call acts that was decided; the rule network says where to
results contains {"rule": "grants.net", "effect": "allow", "reason": reason} if {
	tool == "net-request"
	reason := sprintf("agent %s may have requests sent by what it calls", [agent])
}

# What passes the gate under these names is no tool: other rules hold it.
pseudo if tool in {"model-call", "net-request"}
