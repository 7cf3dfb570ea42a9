package agentos.syscall.rules.self_granted_test

import data.agentos.syscall.rules.self_granted

grant(name, by) := {"name": name, "args": {}, "approval": false, "by": by}

found(grants, effect) := results if {
	results := self_granted.results with input as {
		"syscall": {"tool": "pay", "effect": effect},
		"agent": {"name": "payer"},
		"session": {"actor": "principal/bo"},
	}
		with data.agentos.grants as {"payer": {"pay": grants, "read": [grant("r", "principal/bo")]}}
}

asks(names) := {{
	"rule": "self_granted.asks",
	"effect": "ask",
	"reason": sprintf("principal/bo started this session and applied grant %s of tool pay; a person looks first", [names]),
}}

test_a_grant_by_somebody_else if found([grant("a", "principal/al")], "external") == set()

test_a_grant_by_the_starter if found([grant("a", "principal/bo")], "external") == asks("a")

test_one_of_several if found([grant("c", "principal/bo"), grant("b", "principal/al"), grant("a", "principal/bo")], "write") == asks("a, c")

test_reading_is_free if found([grant("a", "principal/bo")], "read") == set()

test_no_grant_is_not_its_matter if found([], "external") == set()
