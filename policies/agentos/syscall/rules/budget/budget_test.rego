package agentos.syscall.rules.budget_test

import data.agentos.syscall.rules.budget

agents := {"triage": {"budget": {"calls": 10, "tokens": 1000}}}

found(agent, used) := results if {
	results := budget.results with input as {"agent": {"name": agent}, "budget": used} with data.agentos.agents as agents
}

ids(results) := {result.rule | some result in results}

test_within_the_budget if found("triage", {"calls": 9, "tokens": 999}) == set()

test_all_calls_used if {
	found("triage", {"calls": 10, "tokens": 0}) == {{
		"rule": "budget.calls",
		"effect": "deny",
		"reason": "the session has used up the 10 calls of agent triage; an operator can raise its budget",
	}}
}

test_all_tokens_used if {
	found("triage", {"calls": 0, "tokens": 1001}) == {{
		"rule": "budget.tokens",
		"effect": "deny",
		"reason": "the session has used up the 1000 tokens of agent triage; an operator can raise its budget",
	}}
}

test_counts_that_are_missing_or_no_numbers_deny if {
	every used in [{}, {"calls": null, "tokens": false}, {"calls": "1", "tokens": []}] {
		ids(found("triage", used)) == {"budget.calls", "budget.tokens"}
	}
}

test_an_agent_that_is_not_declared_has_no_budget if {
	"budget.unknown" in ids(found("other", {"calls": 0, "tokens": 0}))
}

asked(tool, used) := {result.rule | some result in results} if {
	results := budget.results with input as {"agent": {"name": "triage"}, "syscall": {"tool": tool}, "budget": used}
		with data.agentos.agents as agents
}

test_a_request_is_no_call_of_its_own if {
	asked("net-request", {"calls": 10, "tokens": 999}) == set()
	asked("net-request", {"calls": 10, "tokens": 1000}) == {"budget.tokens"}
	asked("read", {"calls": 10, "tokens": 999}) == {"budget.calls"}
}
