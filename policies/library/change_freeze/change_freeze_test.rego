package agentos.syscall.rules.change_freeze_test

import data.agentos.syscall.rules.change_freeze

period := {"from": "2026-12-18T17:00:00Z", "until": "2027-01-04T07:00:00Z", "why": "end of the year"}

question(tool, effect, moment) := {
	"syscall": {"tool": tool, "effect": effect},
	"now": time.parse_rfc3339_ns(moment) / 1000000,
}

found(question, freezes) := results if {
	results := change_freeze.results with input as question with change_freeze.freezes as freezes
}

at(moment) := found(question("deploy", "external", moment), [period])

frozen := {{
	"rule": "change_freeze.frozen",
	"effect": "deny",
	"reason": "tool deploy is frozen until 2027-01-04T07:00:00Z (end of the year)",
}}

unknown := {{
	"rule": "change_freeze.unknown",
	"effect": "deny",
	"reason": "whether tool deploy is frozen cannot be told: the clock or a period cannot be read",
}}

test_in_the_freeze if {
	at("2026-12-18T17:00:00Z") == frozen
	at("2027-01-04T06:59:59.999Z") == frozen
}

test_before_and_after if {
	at("2026-12-18T16:59:59.999Z") == set()
	at("2027-01-04T07:00:00Z") == set()
}

test_the_shipped_period if {
	results := change_freeze.results with input as question("deploy", "external", "2026-12-24T12:00:00Z")
	results == frozen
}

test_a_second_freeze if {
	other := {"from": "2026-06-01T00:00:00Z", "until": "2026-06-02T00:00:00Z", "why": "audit"}
	found(question("deploy", "external", "2026-12-24T12:00:00Z"), [other, period]) == frozen
}

test_what_stays_inside if {
	found(question("write-note", "write", "2026-12-24T12:00:00Z"), [period]) == set()
	found(question("model-call", "external", "2026-12-24T12:00:00Z"), [period]) == set()
	found(question("net-request", "external", "2026-12-24T12:00:00Z"), [period]) == set()
}

test_no_clock if {
	every now in ["soon", null] {
		found({"syscall": {"tool": "deploy", "effect": "external"}, "now": now}, [period]) == unknown
	}
	found({"syscall": {"tool": "deploy", "effect": "external"}}, [period]) == unknown
}

test_no_clock_and_what_stays_inside if {
	found({"syscall": {"tool": "write-note", "effect": "write"}}, [period]) == set()
	found({"syscall": {"tool": "model-call", "effect": "external"}}, [period]) == set()
}

test_a_misspelt_period if {
	every change in [{"from": "2026-12-18"}, {"until": "never"}, {"until": "2026-12-18T17:00:00Z"}, {"from": 7}, {"until": 7}, {"why": null}] {
		found(question("deploy", "external", "2026-06-24T12:00:00Z"), [object.union(period, change)]) == unknown
	}
	found(question("deploy", "external", "2026-06-24T12:00:00Z"), [object.remove(period, ["until"])]) == unknown
}
