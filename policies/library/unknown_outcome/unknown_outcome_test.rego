package agentos.syscall.rules.unknown_outcome_test

import data.agentos.syscall.rules.unknown_outcome

found(tool, effect, unknown, parameters) := results if {
	results := unknown_outcome.results with input as {"syscall": {"tool": tool, "effect": effect}, "session": {"unknown": unknown}}
		with data.agentos.policies.unknown_outcome as {"parameters": parameters}
		with data.agentos.tools as {"pay": {"effect": "external"}, "fetch": {"effect": "read"}}
}

blocks(effect, tools) := {{
	"rule": {"deny": "unknown_outcome.blocks", "ask": "unknown_outcome.asks"}[effect],
	"effect": effect,
	"reason": sprintf("what came of a call of %s is unknown; look, and say it: agentos session reconcile", [tools]),
}}

test_what_changes_something_waits_for_the_truth if {
	found("pay", "external", ["pay"], {}) == blocks("deny", "pay")
	found("write-note", "write", ["pay"], {}) == blocks("deny", "pay")
}

test_all_that_is_unsettled_is_named if found("pay", "external", ["gone", "pay"], {}) == blocks("deny", "gone, pay")

test_where_all_is_known_nothing_is_said if {
	found("pay", "external", [], {}) == set()
	unknown_outcome.results == set() with input as {"syscall": {"tool": "pay", "effect": "external"}, "session": {}}
}

test_a_lost_read_has_changed_nothing if found("pay", "external", ["fetch"], {}) == set()

test_reading_and_thinking_go_on if {
	found("fetch", "read", ["pay"], {}) == set()
	found("model-call", "external", ["pay"], {}) == set()
	found("net-request", "external", ["pay"], {}) == set()
}

test_what_is_declared_holds if {
	found("pay", "external", ["pay"], {"effect": "ask"}) == blocks("ask", "pay")
	found("write-note", "write", ["pay"], {"effects": ["external"]}) == set()
}

test_without_a_declaration_the_defaults_hold if {
	results := unknown_outcome.results with input as {
		"syscall": {"tool": "pay", "effect": "external"},
		"session": {"unknown": ["pay"]},
	}
	results == blocks("deny", "pay")
}

test_a_parameter_that_there_is_not_denies if {
	every parameters in [{"effect": "allow"}, {"effect": null}, {"effects": "write"}, {"effects": ["read"]}, {"tools": []}] {
		some result in found("pay", "external", [], parameters)
		result.rule == "unknown_outcome.parameters"
		result.effect == "deny"
	}
}
