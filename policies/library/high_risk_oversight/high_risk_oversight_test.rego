package agentos.syscall.rules.high_risk_oversight_test

import data.agentos.syscall.rules.high_risk_oversight

found(agent, syscall) := results if {
	results := high_risk_oversight.results with input as {"syscall": syscall, "agent": {"name": agent}}
		with data.agentos.agents as {"payer": {"governance": {"risk": "high"}}, "clerk": {"governance": {"risk": "limited"}}}
}

asks(tool) := {{
	"rule": "high_risk_oversight.asks",
	"effect": "ask",
	"reason": sprintf("agent payer is of risk class high; a person oversees tool %s", [tool]),
}}

test_high_risk_writes if found("payer", {"tool": "write-note", "effect": "write"}) == asks("write-note")

test_high_risk_reaches_outside if found("payer", {"tool": "pay", "effect": "external"}) == asks("pay")

test_an_effect_that_is_not_told_is_overseen if found("payer", {"tool": "pay"}) == asks("pay")

test_high_risk_reads_and_thinks if {
	found("payer", {"tool": "read-mail", "effect": "read"}) == set()
	found("payer", {"tool": "model-call", "effect": "external"}) == set()
	found("payer", {"tool": "net-request", "effect": "external"}) == set()
}

test_lesser_risk if found("clerk", {"tool": "pay", "effect": "external"}) == set()
