# METADATA
# title: delegation
# description: an agent delegates only as deep, to as many, to whom and with what tools its declarations let it
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/agentos/syscall/rules/delegation/README.md
package agentos.syscall.rules.delegation

import data.agentos.syscall.rules.grants

# METADATA
# title: undeclared
# description: the agent's declaration does not say that it delegates
results contains {"rule": "delegation.undeclared", "effect": "deny", "reason": reason} if {
	delegates
	not limits
	reason := sprintf("agent %s may not delegate; an operator can declare delegates in the Agent", [agent])
}

# METADATA
# title: depth
# description: there would be more levels of sessions below one of the chain than its agent lets there be
results contains {"rule": "delegation.depth", "effect": "deny", "reason": reason} if {
	delegates
	limits
	some place, name in chain
	below := count(chain) - place
	below > depth(name)
	reason := sprintf(
		"agent %s lets there be %d levels of sessions below its own, and this would be the %s; an operator can raise maxDepth",
		[name, depth(name), nth(below)],
	)
}

# METADATA
# title: fan-out
# description: the session would have more children than its agent may have
results contains {"rule": "delegation.fan-out", "effect": "deny", "reason": reason} if {
	delegates
	limits
	not room
	reason := sprintf("the sessions of agent %s may delegate to %d others each; an operator can raise maxChildren", [agent, most])
}

# METADATA
# title: agent
# description: the tool does not delegate to the agent that is asked for
results contains {"rule": "delegation.agent", "effect": "deny", "reason": reason} if {
	delegates
	some name in named
	not name in agents
	reason := sprintf("tool %s delegates to %s, not to %s", [input.syscall.tool, concat(", ", agents), json.marshal(name)])
}

# METADATA
# title: unaddressed
# description: a task that is for no agent, where there are several
results contains {"rule": "delegation.unaddressed", "effect": "deny", "reason": reason} if {
	delegates
	not addressed
	reason := sprintf("name the agent of each task: tool %s delegates to %s", [input.syscall.tool, concat(", ", agents)])
}

# METADATA
# title: beyond
# description: a child is to have a tool that its parent has not
results contains {"rule": "delegation.beyond", "effect": "deny", "reason": reason} if {
	delegates
	lacking := [json.marshal(name) | some name in input.syscall.args.tools; not held(name)]
	count(lacking) > 0
	reason := sprintf("agent %s cannot hand on what it has not: %s", [agent, concat(", ", lacking)])
}

# METADATA
# title: malformed
# description: the arguments do not tell to whom, what, or with which tools
results contains {"rule": "delegation.malformed", "effect": "deny", "reason": reason} if {
	delegates
	some name, problem in {"agent": agent_odd, "tasks": tasks_odd, "tools": tools_odd}
	problem
	reason := sprintf("argument %s is not what a delegation takes", [name])
}

delegates if data.agentos.tools[input.syscall.tool].driver == "delegate"

default agent := "(unnamed)"

agent := input.agent.name

limits := data.agentos.agents[agent].delegates

default agents := []

agents := data.agentos.tools[input.syscall.tool].agents

default delegators := []

delegators := input.session.delegators if is_array(input.session.delegators)

# Every agent of the chain binds it, the first at the top: whoever may be delegated to in one tree sits in others too.
chain := array.concat([one.agent | some one in delegators], [agent])

nth(1) := "first"

nth(number) := sprintf("%dth", [number]) if number > 3

nth(2) := "second"

nth(3) := "third"

# Who does not delegate any more lets nobody do so for it.
depth(name) := allowed if {
	allowed := data.agentos.agents[name].delegates.max_depth
	is_number(allowed)
} else := 0

default most := 0

most := limits.max_children if is_number(limits.max_children)

# Rules without arguments, so that a count that is no number is a denial.
room if {
	is_number(begun)
	(begun + asked) + reducing <= most
}

default begun := 0

begun := input.session.children

default asked := 1

asked := count(input.syscall.args.tasks) if is_array(input.syscall.args.tasks)

default reducing := 0

reducing := 1 if data.agentos.tools[input.syscall.tool].reduce

named contains input.syscall.args.agent

named contains task.agent if some task in input.syscall.args.tasks

addressed if count(agents) == 1

addressed if is_string(input.syscall.args.agent)

addressed if {
	is_array(input.syscall.args.tasks)
	every task in input.syscall.args.tasks {
		is_string(task.agent)
	}
}

# What the session may not call itself it cannot hand on; whether a call is covered is asked at each call.
held(name) if {
	some grant in data.agentos.grants[agent][name]
	grants.current(grant)
	every names in grants.narrowings {
		grants.within(name, names)
	}
}

default agent_odd := false

agent_odd if type_name(input.syscall.args.agent) != "string"

default tasks_odd := false

tasks_odd if type_name(input.syscall.args.tasks) != "array"

tasks_odd if {
	some task in input.syscall.args.tasks
	not is_object(task)
}

default tools_odd := false

tools_odd if type_name(input.syscall.args.tools) != "array"
