package agentos.syscall.rules.irreversible_test

import data.agentos.syscall.rules.irreversible

found(tool, effect) := results if {
	results := irreversible.results with input as {"syscall": {"tool": tool, "effect": effect}}
		with data.agentos.tools as {"pay": {"idempotent": false}, "fetch": {"idempotent": true}}
}

asks(tool) := {{
	"rule": "irreversible.asks",
	"effect": "ask",
	"reason": sprintf("tool %s reaches outside and cannot be repeated harmlessly; a person looks first", [tool]),
}}

test_a_payment if found("pay", "external") == asks("pay")

test_an_unknown_tool if found("ghost", "external") == asks("ghost")

test_a_tool_that_can_be_repeated if found("fetch", "external") == set()

test_what_stays_inside if {
	found("pay", "write") == set()
	found("model-call", "external") == set()
	found("net-request", "external") == set()
}
