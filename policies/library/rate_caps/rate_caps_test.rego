package agentos.syscall.rules.rate_caps_test

import data.agentos.syscall.rules.rate_caps

found(tool, effect, parameters) := results if {
	results := rate_caps.results with input as {"syscall": {"tool": tool, "effect": effect}}
		with data.agentos.policies.rate_caps as {"parameters": parameters}
}

test_what_reaches_outside_is_counted if {
	found("send-mail", "external", {}) == {{
		"rule": "rate_caps.counted",
		"effect": "oblige",
		"reason": "at most 30 calls with the effect external per agent in 3600 s",
		"obligations": [{"kind": "rate", "name": "rate_caps", "limit": 30, "seconds": 3600, "per": "agent"}],
	}}
}

test_the_rest_is_not if {
	found("read-mail", "read", {}) == set()
	found("write-note", "write", {}) == set()
	found("model-call", "external", {}) == set()
	found("net-request", "external", {}) == set()
}

test_the_figures_are_declared if {
	some result in found("write-note", "write", {"effects": ["write"], "limit": 1, "seconds": 60, "per": "tenant"})
	result.obligations == [{"kind": "rate", "name": "rate_caps", "limit": 1, "seconds": 60, "per": "tenant"}]
}

test_without_a_declaration_the_defaults_hold if {
	results := rate_caps.results with input as {"syscall": {"tool": "send-mail", "effect": "external"}}
	count(results) == 1
}

test_a_parameter_that_there_is_not_denies if {
	every parameters in [{"effects": "x"}, {"effects": ["extrenal"]}, {"limit": "1"}, {"seconds": 0}, {"seconds": null}, {"per": "planet"}, {"pre": "agent"}] {
		some result in found("send-mail", "external", parameters)
		result.rule == "rate_caps.parameters"
		result.effect == "deny"
	}
}
