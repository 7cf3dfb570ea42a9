# METADATA
# title: spend asks
# description: past a share of its budget a session changes things only after a person looked
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/spend_asks/README.md
package agentos.syscall.rules.spend_asks

# In hundredths of the budget.
share := {"calls": 90, "tokens": 80}

effects := {"external", "write"}

# METADATA
# title: asks
# description: a call that changes something, from a session that has used more than its share
results contains {"rule": "spend_asks.asks", "effect": "ask", "reason": reason} if {
	input.syscall.effect in effects
	not input.syscall.tool == "model-call"
	not input.syscall.tool == "net-request"
	some what, part in share
	not what in within
	reason := sprintf(
		"the session has used %d %% of its %s; a person looks whether tool %s is still wanted",
		[part, what, input.syscall.tool],
	)
}

# What is below its share. A count that is absent or no number is not.
within contains "calls" if {
	is_number(input.budget.calls)
	input.budget.calls * 100 < data.agentos.agents[input.agent.name].budget.calls * share.calls
}

within contains "tokens" if {
	is_number(input.budget.tokens)
	input.budget.tokens * 100 < data.agentos.agents[input.agent.name].budget.tokens * share.tokens
}
