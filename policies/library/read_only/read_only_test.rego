package agentos.syscall.rules.read_only_test

import data.agentos.syscall.rules.read_only

found(labels, syscall) := results if {
	results := read_only.results with input as {"syscall": syscall, "agent": {"name": "reporter", "labels": labels}}
}

denied(tool) := {{
	"rule": "read_only.denied",
	"effect": "deny",
	"reason": sprintf("agent reporter is labelled access: read-only, and tool %s does more than read", [tool]),
}}

labelled := {"access": "read-only", "team": "finance"}

test_it_reads_and_thinks if {
	found(labelled, {"tool": "read-mail", "effect": "read"}) == set()
	found(labelled, {"tool": "model-call", "effect": "external"}) == set()
	found(labelled, {"tool": "net-request", "effect": "external"}) == set()
}

test_it_changes_nothing if {
	found(labelled, {"tool": "write-note", "effect": "write"}) == denied("write-note")
	found(labelled, {"tool": "send-mail", "effect": "external"}) == denied("send-mail")
	found(labelled, {"tool": "send-mail"}) == denied("send-mail")
}

test_others_are_free if {
	found({}, {"tool": "send-mail", "effect": "external"}) == set()
	found({"access": "full"}, {"tool": "send-mail", "effect": "external"}) == set()
}
