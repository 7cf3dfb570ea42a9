package agentos.syscall.rules.delegation_test

import data.agentos.syscall.rules.delegation

open_grant := {"name": "g", "args": {}, "approval": false, "by": "principal/al"}

facts := {
	"agents": {
		"lead": {"delegates": {"max_depth": 1, "max_children": 4}},
		"boss": {"delegates": {"max_depth": 3, "max_children": 4}},
		"middle": {"delegates": {"max_depth": 2, "max_children": 4}},
		"worker": {},
	},
	"tools": {
		"ask": {"driver": "delegate", "agents": ["worker"]},
		"spread": {"driver": "delegate", "agents": ["worker", "middle"]},
		"gather": {"driver": "delegate", "agents": ["worker"], "reduce": "lead"},
		"send": {"driver": "mcp"},
	},
	"grants": {
		"lead": {"ask": [open_grant], "send": [open_grant], "late": [object.union(open_grant, {"until": 1000})]},
		"middle": {"send": [open_grant], "read": [open_grant]},
	},
}

link(agent) := {"session": sprintf("s-%s", [agent]), "agent": agent, "labels": {}, "tool": "ask", "tools": null}

by(agent, tool, args, session) := {
	"agent": {"name": agent},
	"session": object.union({"delegation": []}, session),
	"syscall": {"tool": tool, "args": args},
	"now": 1000,
}

found(question, told) := results if {
	results := delegation.results with input as question
		with data.agentos.agents as told.agents
		with data.agentos.tools as told.tools
		with data.agentos.grants as told.grants
}

ids(question) := {result.rule | some result in found(question, facts)}

says(question, rule) := reason if {
	some result in found(question, facts)
	result.rule == rule
	result.effect == "deny"
	reason := result.reason
}

goal := {"goal": "look into it"}

test_an_agent_that_declares_it_delegates if ids(by("lead", "ask", goal, {})) == set()

test_an_agent_that_does_not_declare_it_does_not if {
	question := by("worker", "ask", goal, {})
	ids(question) == {"delegation.undeclared"}
	says(question, "delegation.undeclared") == "agent worker may not delegate; an operator can declare delegates in the Agent"
	ids(by("nobody", "ask", goal, {})) == {"delegation.undeclared"}
	ids(object.remove(by("lead", "ask", goal, {}), ["agent"])) == {"delegation.undeclared"}
}

test_other_tools_are_none_of_its_business if {
	every tool in ["send", "unknown", "model-call"] {
		ids(by("worker", tool, {"agent": 1, "tasks": 1, "tools": ["x"]}, {"children": 99})) == set()
		ids(by("lead", tool, {"agent": 1, "tasks": 1, "tools": ["x"]}, {"children": 99, "delegators": [link("boss")]})) == set()
	}
}

test_a_chain_is_as_deep_as_each_of_its_agents_lets_it if {
	ids(by("lead", "ask", goal, {"delegators": [link("boss")]})) == set()
	ids(by("lead", "ask", goal, {"delegators": [link("boss"), link("middle")]})) == set()
	ids(by("boss", "ask", goal, {"delegators": [link("boss"), link("boss")]})) == set()
	every links in [[link("lead")], [link("worker")], [link("middle"), link("boss")], [link("boss"), link("boss"), link("boss")]] {
		ids(by("boss", "ask", goal, {"delegators": links})) == {"delegation.depth"}
	}
}

test_the_reason_names_the_agent_that_binds if {
	says(by("boss", "ask", goal, {"delegators": [link("lead")]}), "delegation.depth") == concat(" ", [
		"agent lead lets there be 1 levels of sessions below its own, and this would be the second;",
		"an operator can raise maxDepth",
	])
	every number, word in {3: "third", 4: "4th"} {
		links := array.concat([link("lead")], [link("boss") | some _ in numbers.range(3, number)])
		contains(says(by("boss", "ask", goal, {"delegators": links}), "delegation.depth"), sprintf("the %s;", [word]))
	}
}

test_a_depth_that_is_no_number_is_none if {
	every odd in ["3", null, true] {
		told := json.patch(facts, [{"op": "add", "path": "/agents/lead/delegates/max_depth", "value": odd}])
		{result.rule | some result in found(by("lead", "ask", goal, {}), told)} == {"delegation.depth"}
	}
}

tasks(number) := {"tasks": [{"agent": "worker", "goal": "one"} | some _ in numbers.range(1, number)]}

test_no_more_children_than_declared if {
	ids(by("lead", "ask", tasks(4), {})) == set()
	ids(by("lead", "ask", tasks(1), {"children": 3})) == set()
	ids(by("lead", "ask", goal, {"children": 3})) == set()
	ids(by("lead", "ask", {"tasks": []}, {"children": 4})) == set()
	every asked in [[tasks(5), 0], [tasks(1), 4], [goal, 4], [tasks(3), 2]] {
		ids(by("lead", "ask", asked[0], {"children": asked[1]})) == {"delegation.fan-out"}
	}
	reason := "the sessions of agent lead may delegate to 4 others each; an operator can raise maxChildren"
	says(by("lead", "ask", tasks(5), {}), "delegation.fan-out") == reason
}

test_who_brings_the_results_together_is_a_child_too if {
	ids(by("lead", "gather", tasks(3), {})) == set()
	ids(by("lead", "gather", tasks(4), {})) == {"delegation.fan-out"}
}

test_counts_that_are_no_numbers_deny if {
	every odd in [null, "0", [], false] {
		ids(by("lead", "ask", goal, {"children": odd})) == {"delegation.fan-out"}
		told := json.patch(facts, [{"op": "add", "path": "/agents/lead/delegates/max_children", "value": odd}])
		{result.rule | some result in found(by("lead", "ask", goal, {}), told)} == {"delegation.fan-out"}
	}
}

test_a_tool_delegates_to_its_agents_alone if {
	ids(by("lead", "ask", {"agent": "worker", "goal": "x"}, {})) == set()
	ids(by("lead", "spread", {"tasks": [{"agent": "worker"}, {"agent": "middle"}]}, {})) == set()
	every args in [{"agent": "boss"}, {"tasks": [{"agent": "worker"}, {"agent": "boss"}]}] {
		ids(by("lead", "ask", args, {})) == {"delegation.agent"}
	}
	says(by("lead", "ask", {"agent": "boss"}, {}), "delegation.agent") == `tool ask delegates to worker, not to "boss"`
	told := json.patch(facts, [{"op": "remove", "path": "/tools/ask/agents"}])
	rules := {result.rule | some result in found(by("lead", "ask", {"agent": "worker"}, {}), told)}
	rules == {"delegation.agent"}
}

test_where_there_are_several_agents_one_is_named if {
	ids(by("lead", "spread", {"agent": "middle", "tasks": [{"goal": "x"}]}, {})) == set()
	every args in [goal, {"tasks": [{"agent": "worker"}, {"goal": "x"}]}] {
		ids(by("lead", "spread", args, {})) == {"delegation.unaddressed"}
	}
	reason := "name the agent of each task: tool spread delegates to worker, middle"
	says(by("lead", "spread", goal, {}), "delegation.unaddressed") == reason
}

test_a_child_gets_no_tool_that_its_parent_lacks if {
	ids(by("lead", "ask", {"tools": ["send", "ask"]}, {})) == set()
	ids(by("lead", "ask", {"tools": []}, {})) == set()
	every tools in [["send", "read"], ["late"], ["unknown"], [1], [null], [["send"]]] {
		ids(by("lead", "ask", {"tools": tools}, {})) == {"delegation.beyond"}
	}
	question := by("lead", "ask", {"tools": ["send", "read"]}, {})
	says(question, "delegation.beyond") == `agent lead cannot hand on what it has not: "read"`
}

test_what_a_delegation_left_out_is_lacking if {
	narrowed := object.union(link("boss"), {"tools": ["read"]})
	ids(by("middle", "ask", {"tools": ["read"]}, {"delegators": [narrowed], "tools": ["read"]})) == set()
	ids(by("middle", "ask", {"tools": ["send"]}, {"delegators": [narrowed]})) == {"delegation.beyond"}
	ids(by("middle", "ask", {"tools": ["send"]}, {"delegators": [link("boss")], "tools": ["read"]})) == {"delegation.beyond"}
}

test_odd_arguments_deny if {
	every odd in [null, 1, false, {}, []] {
		"delegation.malformed" in ids(by("lead", "ask", {"agent": odd}, {}))
	}
	every odd in [null, 1, false, {}, "x", ["x"], [{"agent": "worker"}, null]] {
		"delegation.malformed" in ids(by("lead", "ask", {"tasks": odd}, {}))
	}
	every odd in [null, 1, false, {}, "send"] {
		"delegation.malformed" in ids(by("lead", "ask", {"tools": odd}, {}))
	}
	says(by("lead", "ask", {"tools": "send"}, {}), "delegation.malformed") == "argument tools is not what a delegation takes"
}
