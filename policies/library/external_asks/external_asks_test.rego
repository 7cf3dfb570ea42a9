package agentos.syscall.rules.external_asks_test

import data.agentos.syscall.rules.external_asks

found(tool, effect) := results if {
	results := external_asks.results with input as {"syscall": {"tool": tool, "effect": effect}}
}

test_external if {
	found("send-mail", "external") == {{
		"rule": "external_asks.asks",
		"effect": "ask",
		"reason": "tool send-mail has the effect external; a person looks at each such call",
	}}
}

test_read_and_write if {
	found("read-mail", "read") == set()
	found("write-note", "write") == set()
}

test_exempt_tools if {
	found("model-call", "external") == set()
	found("net-request", "external") == set()
}
