# METADATA
# title: budget
# description: a session stays within the calls and tokens that its agent's declaration gives
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/agentos/syscall/rules/budget/README.md
package agentos.syscall.rules.budget

# METADATA
# title: calls
# description: as many calls were made as the agent may make in one session
results contains {"rule": "budget.calls", "effect": "deny", "reason": reason} if {
	not calls_left
	reason := sprintf("the session has used up the %d calls of agent %s; an operator can raise its budget", [limits.calls, agent])
}

# METADATA
# title: tokens
# description: as many tokens were used as the agent may use in one session
results contains {"rule": "budget.tokens", "effect": "deny", "reason": reason} if {
	not tokens_left
	reason := sprintf("the session has used up the %d tokens of agent %s; an operator can raise its budget", [limits.tokens, agent])
}

# METADATA
# title: unknown
# description: the agent, and so its budget, is not declared
results contains {"rule": "budget.unknown", "effect": "deny", "reason": reason} if {
	not limits
	reason := sprintf("agent %s is not declared, so it has no budget; an operator can apply an Agent", [agent])
}

default agent := "(unnamed)"

agent := input.agent.name

limits := data.agentos.agents[agent].budget

# Rules without arguments, so that an absent count is a denial. In Rego null and false are less than every number.
calls_left if {
	is_number(input.budget.calls)
	input.budget.calls < limits.calls
}

# A request is part of a call that was counted.
calls_left if input.syscall.tool == "net-request"

tokens_left if {
	is_number(input.budget.tokens)
	input.budget.tokens < limits.tokens
}
