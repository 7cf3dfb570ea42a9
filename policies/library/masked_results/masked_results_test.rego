package agentos.syscall.rules.masked_results_test

import data.agentos.syscall.rules.masked_results

found(tool, parameters) := results if {
	results := masked_results.results with input as {"syscall": {"tool": tool}}
		with data.agentos.policies.masked_results as {"parameters": parameters}
}

test_a_listed_tool_is_masked if {
	found("read-customers", {}) == {{
		"rule": "masked_results.masked",
		"effect": "oblige",
		"reason": "of what tool read-customers returns, /customers/*/email, /customers/*/iban is masked",
		"obligations": [
			{"kind": "redact", "in": "result", "path": "/customers/*/email"},
			{"kind": "mask", "in": "result", "path": "/customers/*/iban", "keep": 4},
		],
	}}
}

test_another_tool_is_not if found("read-mail", {}) == set()

test_the_paths_are_declared if {
	some result in found("read-mail", {"redacted": {"read-mail": ["/from"]}, "masked": {}})
	result.obligations == [{"kind": "redact", "in": "result", "path": "/from"}]
	found("read-customers", {"redacted": {}, "masked": {}}) == set()
}

test_a_parameter_that_there_is_not_denies if {
	every parameters in [{"redacted": []}, {"masked": "x"}, {"masked": {"read-mail": "/from"}}, {"masked": {"read-mail": ["from"]}}, {"mask": {}}] {
		some result in found("read-customers", parameters)
		result.rule == "masked_results.parameters"
		result.effect == "deny"
	}
}
