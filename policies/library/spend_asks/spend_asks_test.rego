package agentos.syscall.rules.spend_asks_test

import data.agentos.syscall.rules.spend_asks

found(tool, effect, budget) := results if {
	results := spend_asks.results with input as {
		"syscall": {"tool": tool, "effect": effect},
		"agent": {"name": "clerk"},
		"budget": budget,
	}
		with data.agentos.agents as {"clerk": {"budget": {"calls": 10, "tokens": 1000}}}
}

asks(part, what, tool) := {
	"rule": "spend_asks.asks",
	"effect": "ask",
	"reason": sprintf("the session has used %d %% of its %s; a person looks whether tool %s is still wanted", [part, what, tool]),
}

test_below_the_share if found("pay", "external", {"calls": 8, "tokens": 799}) == set()

test_tokens if found("pay", "external", {"calls": 8, "tokens": 800}) == {asks(80, "tokens", "pay")}

test_calls if found("write-note", "write", {"calls": 9, "tokens": 0}) == {asks(90, "calls", "write-note")}

test_both if {
	found("pay", "external", {"calls": 10, "tokens": 1000}) == {asks(90, "calls", "pay"), asks(80, "tokens", "pay")}
}

test_a_count_that_is_none if {
	found("pay", "external", {"calls": null, "tokens": 0}) == {asks(90, "calls", "pay")}
	found("pay", "external", {"calls": 0, "tokens": false}) == {asks(80, "tokens", "pay")}
	found("pay", "external", {"calls": 0}) == {asks(80, "tokens", "pay")}
}

test_reading_and_thinking_go_on if {
	found("read-mail", "read", {"calls": 10, "tokens": 1000}) == set()
	found("model-call", "external", {"calls": 10, "tokens": 1000}) == set()
	found("net-request", "external", {"calls": 10, "tokens": 1000}) == set()
}
