package agentos.syscall.rules.propose_test

import data.agentos.syscall.rules.propose

tools := {"suggest": {"primitive": "propose"}, "write": {"primitive": "write"}, "git": {"driver": "exec"}}

found(tool, args) := results if {
	results := propose.results with input as {"agent": {"name": "triage"}, "syscall": {"tool": tool, "args": args}}
		with data.agentos.tools as tools
}

test_a_person_is_asked if {
	found("suggest", {"path": "report.md", "content": "x"}) == {{
		"rule": "propose.approval",
		"effect": "ask",
		"reason": `agent triage proposes to write "report.md"; a person decides`,
	}}
}

test_also_when_little_is_told if {
	{result.effect | some result in found("suggest", {})} == {"ask"}
	{result.effect | some result in found("suggest", {"path": ["a"]})} == {"ask"}
	results := propose.results with input as {"syscall": {"tool": "suggest"}} with data.agentos.tools as tools
	{result.rule | some result in results} == {"propose.approval"}
}

test_another_tool_is_not_its_matter if {
	every tool in ["write", "git", "ghost", "net-request"] {
		found(tool, {"path": "report.md"}) == set()
	}
}
