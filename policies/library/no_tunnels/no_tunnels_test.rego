package agentos.syscall.rules.no_tunnels_test

import data.agentos.syscall.rules.no_tunnels

found(tool, args) := {result.rule | some result in results} if {
	results := no_tunnels.results with input as {"syscall": {"tool": tool, "args": args}}
}

test_what_is_seen if {
	found("net-request", {"scheme": "http"}) == set()
	found("net-request", {"scheme": "https"}) == set()
}

test_what_is_not if {
	every args in [{"scheme": "tunnel"}, {"scheme": "ftp"}, {"scheme": null}, {}] {
		found("net-request", args) == {"no_tunnels.denied"}
	}
}

test_other_calls if found("fetch", {"scheme": "tunnel"}) == set()
