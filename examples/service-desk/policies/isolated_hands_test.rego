package agentos.syscall.rules.isolated_hands_test

import data.agentos.syscall.rules.isolated_hands

tools := {
	"sort": {"driver": "exec"},
	"build": {"driver": "exec", "sandbox": "box"},
	"reach-all": {"driver": "exec", "sandbox": "bare"},
	"lost": {"driver": "exec", "sandbox": "ghost"},
	"server": {"driver": "mcp"},
	"bare-server": {"driver": "mcp", "sandbox": "bare"},
	"remote": {"driver": "mcp", "reach": [{"host": "x", "ports": [443]}]},
	"fetch": {"driver": "http", "reach": []},
	"read": {"driver": "builtin"},
}

sandboxes := {
	"default": {"isolation": "bubblewrap"},
	"box": {"isolation": "container"},
	"bare": {"isolation": "unsafe-none"},
}

agents := {"triage": {}, "wild": {"sandbox": "bare"}, "tame": {"sandbox": "box"}}

found(agent, tool) := results if {
	results := isolated_hands.results with input as {"syscall": {"tool": tool}, "agent": {"name": agent}}
		with data.agentos.tools as tools
		with data.agentos.sandboxes as sandboxes
		with data.agentos.agents as agents
}

denied(tool, sandbox) := {{
	"rule": "isolated_hands.denied",
	"effect": "deny",
	"reason": sprintf("tool %s would work in sandbox %s, which does not set it apart from the machine", [tool, sandbox]),
}}

test_processes_that_are_set_apart if {
	every tool in ["sort", "build", "server"] {
		found("triage", tool) == set()
	}
	found("ghost", "sort") == set()
	found("tame", "sort") == set()
}

test_the_sandbox_of_the_tool if {
	found("triage", "reach-all") == denied("reach-all", "bare")
	found("tame", "bare-server") == denied("bare-server", "bare")
	found("wild", "build") == set()
}

test_the_sandbox_of_the_agent if {
	found("wild", "sort") == denied("sort", "bare")
	found("wild", "server") == denied("server", "bare")
}

test_a_sandbox_that_is_not_there if found("triage", "lost") == denied("lost", "ghost")

test_what_starts_no_process if {
	every tool in ["remote", "fetch", "read", "model-call", "net-request", "ghost"] {
		found("wild", tool) == set()
	}
}
