package agentos.syscall.rules.grants_test

import data.agentos.syscall.rules.grants

call := {
	"syscall": {"tool": "write", "effect": "write", "args": {"path": "out/a.md", "size": 3}, "args_digest": "sha256:1"},
	"agent": {"name": "triage"},
	"session": {"delegation": []},
	"now": 1000,
}

open_grant := {"name": "g", "args": {}, "approval": false, "by": "principal/al"}

found(given) := results if {
	results := grants.results with input as call with data.agentos.grants as {"triage": {"write": given}}
}

allowed := {{
	"rule": "grants.allowed",
	"effect": "allow",
	"reason": "grant g lets agent triage call tool write (granted by principal/al)",
	"grants": ["g"],
}}

none := {{
	"rule": "grants.none",
	"effect": "deny",
	"reason": "no grant lets agent triage call tool write; an operator can add a ToolGrant",
}}

with_args(args) := found([object.union(open_grant, {"args": args})])

with_path(path, constraint) := results if {
	results := grants.results with input as json.patch(call, [{"op": "add", "path": "/syscall/args/path", "value": path}])
		with data.agentos.grants as {"triage": {"write": [object.union(open_grant, {"args": {"path": constraint}})]}}
}

ids(results) := {result.rule | some result in results}

test_a_grant_allows if found([open_grant]) == allowed

test_no_grant_denies if found([]) == none

test_no_data_denies if {
	results := grants.results with input as call
	results == none
}

test_a_grant_for_another_agent_denies if {
	results := grants.results with input as call with data.agentos.grants as {"other": {"write": [open_grant]}}
	results == none
}

test_an_empty_input_is_not_allowed if {
	results := grants.results with input as {} with data.agentos.grants as {"triage": {"write": [open_grant]}}
	ids(results) == {"grants.none", "grants.chain"}
}

test_approval_asks if {
	found([object.union(open_grant, {"approval": true})]) == {{
		"rule": "grants.approval",
		"effect": "ask",
		"reason": "grant g lets agent triage call tool write when a person approves",
		"grants": ["g"],
	}}
}

test_a_grant_without_approval_suffices if {
	found([object.union(open_grant, {"approval": true, "name": "h"}), open_grant]) == allowed
}

test_a_grant_that_ends_later_allows if found([object.union(open_grant, {"until": 1001})]) == allowed

test_a_grant_that_has_ended_denies if {
	found([object.union(open_grant, {"until": 1000})]) == {{
		"rule": "grants.expired",
		"effect": "deny",
		"reason": "grant g let agent triage call tool write until 1970-01-01T00:00:01Z; an operator can renew the ToolGrant",
	}}
}

test_a_grant_with_an_end_needs_a_clock if {
	every given in [object.remove(call, ["now"]), object.union(call, {"now": "0"})] {
		results := grants.results with input as given
			with data.agentos.grants as {"triage": {"write": [object.union(open_grant, {"until": 1001})]}}
		ids(results) == {"grants.expired"}
	}
}

test_unmet_arguments_are_named if {
	with_args({"path": {"glob": "docs/**"}, "size": {"maximum": 3}}) == {{
		"rule": "grants.args",
		"effect": "deny",
		"reason": `grant g lets agent triage call tool write only with path {"glob":"docs/**"}; an operator can widen the ToolGrant`,
	}}
}

test_an_absent_argument_satisfies_nothing if ids(with_args({"to": {"maxLength": 100}})) == {"grants.args"}

test_an_unknown_constraint_holds_never if ids(with_args({"path": {"like": "out"}})) == {"grants.args"}

test_every_constraint_must_hold if ids(with_args({"size": {"minimum": 1, "maximum": 2}})) == {"grants.args"}

# What each constraint takes, and what it does not.
samples := [
	{"constraint": {"equals": "a"}, "yes": ["a"], "no": ["b", 1, null, ["a"]]},
	{"constraint": {"equals": 1}, "yes": [1], "no": ["1", true]},
	{"constraint": {"oneOf": ["a", 2]}, "yes": ["a", 2], "no": ["b", "2", ["a"]]},
	{"constraint": {"glob": "out/*.md"}, "yes": ["out/a.md"], "no": ["out/b/a.md", "a.md", 3, null]},
	{"constraint": {"glob": "out/**"}, "yes": ["out/a", "out/b/c"], "no": ["in/a", {}]},
	{"constraint": {"pattern": "[a-z]+"}, "yes": ["abc"], "no": ["abc1", "1abc", "abc\n", "", 7]},
	{"constraint": {"pattern": "a|b"}, "yes": ["a", "b"], "no": ["ab", "ax"]},
	{"constraint": {"pattern": "a)|(b"}, "yes": [], "no": ["a", "ax", "b"]},
	{"constraint": {"maximum": 3}, "yes": [3, -1], "no": [4, "1", null, true]},
	{"constraint": {"minimum": 3}, "yes": [3, 9], "no": [2, "9", [], {}]},
	{"constraint": {"maxLength": 2}, "yes": ["", "ab"], "no": ["abc", 1, []]},
]

test_constraints_take_what_they_should if {
	every sample in samples {
		every value in sample.yes {
			ids(with_path(value, sample.constraint)) == {"grants.allowed"}
		}
	}
}

test_constraints_refuse_what_they_should if {
	every sample in samples {
		every value in sample.no {
			ids(with_path(value, sample.constraint)) == {"grants.args"}
		}
	}
}

test_a_model_call_needs_no_grant if {
	results := grants.results with input as json.patch(call, [{"op": "replace", "path": "/syscall/tool", "value": "model-call"}])
	results == {{"rule": "grants.model", "effect": "allow", "reason": "agent triage may call its model"}}
}

test_a_request_needs_no_grant if {
	results := grants.results with input as json.patch(call, [{"op": "replace", "path": "/syscall/tool", "value": "net-request"}])
	results == {{"rule": "grants.net", "effect": "allow", "reason": "agent triage may have requests sent by what it calls"}}
}

limited(name, uses, approval) := {
	"name": name,
	"args": {},
	"approval": approval,
	"by": "principal/alice",
	"digest": sprintf("sha256:%s", [name]),
	"max_uses": uses,
}

paid(grants) := {"kind": "uses", "grants": [{"name": grant.name, "digest": grant.digest, "maximum": grant.max_uses} | some grant in grants]}

sending := {"agent": {"name": "a"}, "session": {"delegation": []}, "syscall": {"tool": "send", "args": {}}, "now": 1}

of(offered) := results if {
	results := grants.results with input as sending
		with data.agentos.grants as {"a": {"send": offered}}
}

test_a_counted_grant_is_paid_for if {
	one := limited("one", 3, false)
	of([one]) == {{
		"rule": "grants.counted",
		"effect": "allow",
		"reason": "grant one lets agent a call tool send while it has uses left",
		"obligations": [paid([one])],
		"grants": ["one"],
	}}
}

test_the_first_of_several_counted_grants_pays if {
	some result in of([limited("one", 3, false), limited("two", 1, false)])
	result.obligations == [paid([limited("one", 3, false), limited("two", 1, false)])]
}

test_a_free_grant_costs_no_use if {
	free := object.remove(limited("free", 1, false), ["max_uses"])
	some result in of([limited("one", 3, false), free])
	result.rule == "grants.allowed"
	{result.rule | some result in of([limited("one", 3, false), free])} == {"grants.allowed"}
}

test_a_counted_grant_that_asks if {
	one := limited("one", 3, true)
	of([one]) == {{
		"rule": "grants.approval-counted",
		"effect": "ask",
		"reason": "grant one lets agent a call tool send when a person approves, while it has uses left",
		"obligations": [paid([one])],
		"grants": ["one"],
	}}
}

test_a_counted_grant_that_asks_nobody_goes_first if {
	{result.rule | some result in of([limited("one", 3, true), limited("two", 2, false)])} == {"grants.counted"}
}

test_among_grants_that_ask_one_without_a_count_will_do if {
	free := object.remove(limited("free", 1, true), ["max_uses"])
	{result.rule | some result in of([limited("one", 3, true), free])} == {"grants.approval"}
}

spent_of(offered, digests) := {result.rule | some result in results} if {
	results := grants.results with input as object.union(sending, {"spent": digests}) with data.agentos.grants as {"a": {"send": offered}}
}

test_a_grant_without_a_use_left_is_as_good_as_none if {
	spent_of([limited("one", 3, false)], ["sha256:one"]) == {"grants.spent"}
}

test_after_one_grant_is_used_up_the_next_pays if {
	spent_of([limited("one", 3, false), limited("two", 1, false)], ["sha256:one"]) == {"grants.counted"}
}

test_after_a_grant_is_used_up_a_person_is_asked_where_a_grant_says_so if {
	asking := object.remove(limited("asking", 1, true), ["max_uses"])
	spent_of([limited("one", 3, false), asking], ["sha256:one"]) == {"grants.approval"}
}

test_the_reason_says_how_many_uses_there_were if {
	some result in grants.results with input as object.union(sending, {"spent": ["sha256:one"]})
		with data.agentos.grants as {"a": {"send": [limited("one", 3, false)]}}
	result.reason == "grant one let agent a call tool send 3 times; an operator can renew the ToolGrant"
}

named_by(offered) := {name | some result in of(offered); some name in result.grants}

test_each_grant_that_lets_it_through_is_named if {
	free := object.remove(limited("free", 1, false), ["max_uses"])
	wide := object.remove(limited("wide", 1, false), ["max_uses"])
	named_by([free, wide, limited("one", 3, false), limited("asking", 3, true)]) == {"free", "wide"}
	named_by([limited("one", 3, false), limited("two", 2, false), limited("asking", 3, true)]) == {"one", "two"}
	named_by([limited("one", 3, true), limited("two", 2, true)]) == {"one", "two"}
}

test_a_grant_that_does_not_apply_is_not_named if {
	other := object.union(limited("other", 3, false), {"args": {"to": {"equals": "x"}}})
	named_by([limited("one", 3, false), other]) == {"one"}
	named_by([other]) == set()
}

# Agent worker acts for lead, and lead for boss.
link(agent) := {"session": sprintf("s-%s", [agent]), "agent": agent, "labels": {}, "tool": "hand-on", "tools": null}

acting(links) := {
	"agent": {"name": "worker"},
	"session": {"delegation": [one.session | some one in links], "delegators": links},
	"syscall": {"tool": "send", "args": {"to": "bo"}},
	"now": 1000,
}

named_grant(name) := object.union(open_grant, {"name": name})

hand_on := {"hand-on": [named_grant("hands")]}

# What is granted to worker, and to each of its delegators beside the tool by which it delegated.
granted(worker, others) := object.union({"worker": {"send": worker}}, {name: object.union(hand_on, {"send": offered}) |
	some name, offered in others
})

asked(question, held) := results if {
	results := grants.results with input as question with data.agentos.grants as held
}

own_allow := {
	"rule": "grants.allowed",
	"effect": "allow",
	"reason": "grant own lets agent worker call tool send (granted by principal/al)",
	"grants": ["own"],
}

test_a_session_that_acts_for_others_needs_the_grants_of_all_of_them if {
	held := granted([named_grant("own")], {"lead": [named_grant("of-lead")], "boss": [named_grant("of-boss")]})
	asked(acting([link("boss"), link("lead")]), held) == {
		own_allow,
		{
			"rule": "grants.delegated",
			"effect": "allow",
			"reason": "grant of-lead lets agent lead, for which it acts, call tool send (granted by principal/al)",
			"grants": ["of-lead"],
		},
		{
			"rule": "grants.delegated",
			"effect": "allow",
			"reason": "grant of-boss lets agent boss, for which it acts, call tool send (granted by principal/al)",
			"grants": ["of-boss"],
		},
	}
}

test_a_delegator_without_a_grant_denies if {
	held := granted([named_grant("own")], {"lead": [named_grant("of-lead")], "boss": []})
	reason := concat(" ", [
		"agent worker acts for agent boss, which no grant lets call tool send with these arguments now;",
		"an operator can add or widen a ToolGrant",
	])
	some result in asked(acting([link("boss"), link("lead")]), held)
	result == {"rule": "grants.delegator", "effect": "deny", "reason": reason}
}

lent(offered) := ids(asked(acting([link("lead")]), granted([named_grant("own")], {"lead": offered})))

test_a_delegators_grant_covers_the_call_itself if {
	every narrow in [
		{"args": {"to": {"equals": "al"}}},
		{"args": {"body": {"maxLength": 9}}},
		{"args": {"to": {"like": "bo"}}},
		{"until": 1000},
		{"until": 1},
	] {
		lent([object.union(open_grant, narrow)]) == {"grants.allowed", "grants.delegator"}
	}
	every wide in [{"args": {"to": {"equals": "bo"}}}, {"until": 1001}] {
		lent([object.union(open_grant, wide)]) == {"grants.allowed", "grants.delegated"}
	}
}

test_the_grants_of_delegators_permit_nothing_by_themselves if {
	held := granted([], {"lead": [named_grant("of-lead")]})
	ids(asked(acting([link("lead")]), held)) == {"grants.none"}
	counted := granted([], {"lead": [limited("of-lead", 3, false)]})
	ids(asked(acting([link("lead")]), counted)) == {"grants.none"}
}

test_what_a_delegator_would_be_asked_is_asked if {
	asking := object.union(open_grant, {"name": "asks", "approval": true})
	held := granted([named_grant("own")], {"lead": [asking]})
	asked(acting([link("lead")]), held) == {own_allow, {
		"rule": "grants.delegator-approval",
		"effect": "ask",
		"reason": "grant asks lets agent lead, for which it acts, call tool send when a person approves",
		"grants": ["asks"],
	}}
	lent([asking, open_grant]) == {"grants.allowed", "grants.delegated"}
	lent([asking, limited("asks-too", 2, true)]) == {"grants.allowed", "grants.delegator-approval"}
}

test_what_is_counted_for_a_delegator_is_counted if {
	counted := limited("of-lead", 3, false)
	held := granted([named_grant("own")], {"lead": [counted]})
	asked(acting([link("lead")]), held) == {own_allow, {
		"rule": "grants.delegator-counted",
		"effect": "allow",
		"reason": "grant of-lead lets agent lead, for which it acts, call tool send while it has uses left",
		"obligations": [paid([counted])],
		"grants": ["of-lead"],
	}}
	lent([counted, open_grant]) == {"grants.allowed", "grants.delegated"}
	lent([counted, limited("asks", 2, true)]) == {"grants.allowed", "grants.delegator-counted"}
}

test_what_is_counted_and_asked_for_a_delegator_is_both if {
	both := limited("of-lead", 3, true)
	held := granted([named_grant("own")], {"lead": [both]})
	asked(acting([link("lead")]), held) == {own_allow, {
		"rule": "grants.delegator-approval-counted",
		"effect": "ask",
		"reason": "grant of-lead lets agent lead, for which it acts, call tool send when a person approves, while it has uses left",
		"obligations": [paid([both])],
		"grants": ["of-lead"],
	}}
}

test_a_delegators_grant_that_is_used_up_is_none if {
	held := granted([named_grant("own")], {"lead": [limited("of-lead", 3, false)]})
	question := object.union(acting([link("lead")]), {"spent": ["sha256:of-lead"]})
	ids(asked(question, held)) == {"grants.allowed", "grants.delegator"}
}

test_who_may_not_delegate_any_more_has_nobody_act_for_it if {
	every hands in [[], [object.union(open_grant, {"until": 1000})]] {
		held := {"worker": {"send": [named_grant("own")]}, "lead": {"send": [open_grant], "hand-on": hands}}
		reason := "agent worker acts for agent lead, which no grant lets call tool hand-on any more; an operator can renew the ToolGrant"
		some result in asked(acting([link("lead")]), held)
		result == {"rule": "grants.undelegated", "effect": "deny", "reason": reason}
	}
}

test_a_delegation_that_used_its_grant_up_still_stands if {
	held := {
		"worker": {"send": [named_grant("own")]},
		"lead": {"send": [open_grant], "hand-on": [limited("hands", 1, false)]},
	}
	question := object.union(acting([link("lead")]), {"spent": ["sha256:hands"]})
	ids(asked(question, held)) == {"grants.allowed", "grants.delegated"}
}

narrowed(question) := ids(asked(question, granted([named_grant("own")], {"lead": [open_grant]})))

in_session(question, field, value) := json.patch(question, [{"op": "add", "path": sprintf("/session/%s", [field]), "value": value}])

test_a_tool_that_a_delegation_left_out_is_denied if {
	question := acting([link("lead")])
	reason := `agent worker was delegated to with tools ["read"], so it may not call tool send`
	some result in asked(in_session(question, "tools", ["read"]), granted([named_grant("own")], {"lead": [open_grant]}))
	result == {"rule": "grants.narrowed", "effect": "deny", "reason": reason}
	every odd in [[], "send", null, false, {"send": "send"}, [["send"]]] {
		"grants.narrowed" in narrowed(in_session(question, "tools", odd))
	}
	narrowed(in_session(question, "tools", ["read", "send"])) == {"grants.allowed", "grants.delegated"}
}

test_every_narrowing_on_the_way_counts if {
	"grants.narrowed" in above(["read"])
	"grants.narrowed" in above([])
	above(["send"]) == {"grants.allowed", "grants.delegated"}
}

above(tools) := narrowed(acting([object.union(link("lead"), {"tools": tools})]))

test_a_model_call_asks_no_delegator if {
	question := json.patch(in_session(acting([link("lead")]), "tools", ["read"]), [{
		"op": "replace",
		"path": "/syscall/tool",
		"value": "model-call",
	}])
	ids(asked(question, {})) == {"grants.model"}
}

test_a_request_asks_no_delegator if {
	question := json.patch(in_session(acting([link("lead")]), "tools", ["read"]), [{
		"op": "replace",
		"path": "/syscall/tool",
		"value": "net-request",
	}])
	ids(asked(question, {})) == {"grants.net"}
}

chained(session) := ids(asked(object.union(object.remove(acting([]), ["session"]), {"session": session}), held)) if {
	held := granted([named_grant("own")], {"lead": [open_grant]})
}

test_for_whom_the_session_acts_is_told_whole if {
	every session in [
		{"delegation": ["s-lead"]},
		{"delegation": [], "delegators": [link("lead")]},
		{"delegation": ["s-lead", "s-boss"], "delegators": [link("lead")]},
		{"delegation": ["s-boss"], "delegators": [link("lead")]},
		{"delegation": null, "delegators": [link("lead")]},
		{"delegators": [link("lead")]},
		{"delegation": [], "delegators": "lead"},
		{"delegation": [], "delegators": {}},
		{"delegation": [], "delegators": null},
		{"delegation": ["s-lead"], "delegators": {"0": link("lead")}},
		{"delegation": ["s-lead"], "delegators": [object.union(link("lead"), {"agent": null})]},
		{"delegation": ["s-lead"], "delegators": [object.union(link("lead"), {"tool": 1})]},
		{"delegation": ["s-lead"], "delegators": [object.union(link("lead"), {"labels": []})]},
		{"delegation": ["s-lead"], "delegators": [object.union(link("lead"), {"tools": "send"})]},
		{"delegation": ["s-lead"], "delegators": [object.remove(link("lead"), ["agent"])]},
		{"delegation": ["s-lead"], "delegators": [object.remove(link("lead"), ["tools"])]},
	] {
		"grants.chain" in chained(session)
	}
	not "grants.chain" in chained({"delegation": ["s-lead"], "delegators": [link("lead")]})
	not "grants.chain" in chained({"delegation": [], "delegators": []})
	not "grants.chain" in chained({"delegation": []})
}

test_what_the_reason_of_a_broken_chain_says if {
	some result in asked(object.union(object.remove(acting([]), ["session"]), {"session": {}}), {})
	result == {
		"rule": "grants.chain",
		"effect": "deny",
		"reason": "the session does not tell for whom it acts: session.delegation and session.delegators must name the same sessions",
	}
}
