package agentos.syscall_test

import data.agentos.syscall

# Stand-ins for what the rules found: main only gathers. `workspace` stands for any rule.
found := {
	"allow": {"rule": "grants.allowed", "effect": "allow", "reason": "a grant"},
	"ask": {"rule": "workspace.ask", "effect": "ask", "reason": "look first"},
	"deny": {"rule": "workspace.deny", "effect": "deny", "reason": "never"},
	"halt": {"rule": "workspace.halt", "effect": "halt", "reason": "stop"},
}

call := {
	"syscall": {"tool": "send", "args_digest": "sha256:1"},
	"agent": {"name": "triage", "labels": {"team": "support"}},
	"session": {"delegation": []},
	"approvals": [],
	"policy_digest": "sha256:p",
	"now": 1000,
}

decided(question, grants, others, policies) := decision if {
	decision := syscall.decision with input as question
		with data.agentos.syscall.rules.grants.results as grants
		with data.agentos.syscall.rules.workspace.results as others
		with data.agentos.policies as policies
		with data.agentos.rules as {"syscall": ["grants", "workspace"]}
}

gathered(results) := decided(
	call,
	{result | some result in results; result.effect == "allow"},
	{result | some result in results; result.effect != "allow"},
	{},
)

test_no_result_is_a_denial if {
	gathered(set()) == {
		"effect": "deny",
		"rules": ["syscall.default"],
		"reasons": ["no rule allows this call"],
		"observed": [],
		"obligations": [],
		"grants": [],
	}
}

test_allow if {
	gathered({found.allow}) == {
		"effect": "allow",
		"rules": ["grants.allowed"],
		"reasons": ["a grant"],
		"observed": [],
		"obligations": [],
		"grants": [],
	}
}

test_ask_over_allow if {
	gathered({found.allow, found.ask}) == {
		"effect": "ask",
		"rules": ["workspace.ask"],
		"reasons": ["look first"],
		"observed": [],
		"obligations": [],
		"grants": [],
	}
}

test_deny_over_ask if {
	gathered({found.allow, found.ask, found.deny}) == {
		"effect": "deny",
		"rules": ["workspace.deny"],
		"reasons": ["never"],
		"observed": [],
		"obligations": [],
		"grants": [],
	}
}

test_halt_over_deny_and_both_are_named if {
	gathered({result | some result in found}) == {
		"effect": "halt",
		"rules": ["workspace.deny", "workspace.halt"],
		"reasons": ["never", "stop"],
		"observed": [],
		"obligations": [],
		"grants": [],
	}
}

test_only_grants_can_allow if {
	decided(call, set(), {found.allow}, {}) == {
		"effect": "deny",
		"rules": ["syscall.malformed"],
		"reasons": ["a rule of agentos.syscall.rules.workspace gives a result that is not a rule, an effect and a reason"],
		"observed": [],
		"obligations": [],
		"grants": [],
	}
}

test_a_malformed_result_denies if {
	every malformed in ["deny", {"rule": "workspace.deny"}, object.union(found.deny, {"effect": "Deny"}), object.union(found.deny, {"x": 1})] {
		decision := decided(call, {found.allow}, {malformed}, {})
		decision.effect == "deny"
		decision.rules == ["syscall.malformed"]
	}
}

test_a_policy_that_warns_is_observed_and_does_not_bind if {
	decided(call, {found.allow}, {found.deny}, {"workspace": {"mode": "warn", "name": "workspace"}}) == {
		"effect": "allow",
		"rules": ["grants.allowed"],
		"reasons": ["a grant"],
		"observed": [{"rule": "workspace.deny", "effect": "deny", "reason": "never", "mode": "warn"}],
		"obligations": [],
		"grants": [],
	}
}

given := {
	"tool": "send",
	"args_digest": "sha256:1",
	"by": "principal/bo",
	"reason": "fine",
	"at": 500,
	"expires": 1001,
	"policy_digest": "sha256:p",
	"scope": "once",
	"rules": ["workspace.ask"],
	"uses_left": 1,
}

for_session := object.union(given, {"scope": "session", "args_digest": "sha256:2"})

approved_by(approvals, rule) := decided(object.union(call, {"approvals": approvals}), set(), {rule}, {})

approved_as(approval) := approved_by([approval], found.ask)

test_an_approval_of_this_call_satisfies_ask if {
	approved_as(given) == {
		"effect": "allow",
		"rules": ["syscall.approved", "workspace.ask"],
		"reasons": ["principal/bo approved this call: fine", "look first"],
		"observed": [],
		"obligations": [],
		"grants": [],
	}
}

test_an_approval_of_other_arguments_does_not if {
	approved_as(object.union(given, {"args_digest": "sha256:2"})).effect == "ask"
}

test_an_approval_of_another_tool_does_not if {
	approved_as(object.union(given, {"tool": "read"})).effect == "ask"
}

test_an_approval_under_another_policy_does_not if {
	approved_as(object.union(given, {"policy_digest": "sha256:q"})).effect == "ask"
}

test_an_approval_that_has_expired_does_not if {
	every expires in [1000, 999, 0, null] {
		approved_as(object.union(given, {"expires": expires})).effect == "ask"
	}
}

test_an_approval_without_a_clock_does_not if {
	question := object.union(object.remove(call, ["now"]), {"approvals": [given]})
	decided(question, set(), {found.ask}, {}).effect == "ask"
}

test_an_approval_of_no_known_scope_does_not if {
	approved_as(object.union(given, {"scope": "for ever"})).effect == "ask"
}

test_an_approval_for_the_session_covers_other_arguments if {
	approved_as(for_session).effect == "allow"
}

test_an_approval_for_the_session_ends_with_its_uses if {
	every left in [0, null] {
		approved_as(object.union(for_session, {"uses_left": left})).effect == "ask"
	}
}

test_an_approval_for_the_session_is_for_the_rules_that_asked if {
	approved_as(object.union(for_session, {"rules": ["budget.ask"]})).effect == "ask"
}

two_people := object.union(found.ask, {"obligations": [{"kind": "approvers", "count": 2}]})

bo_and_cy := [given, object.union(given, {"by": "principal/cy"})]

test_two_approvers_are_two_people if {
	approved_by([given], two_people).effect == "ask"
	approved_by([given, object.union(given, {"reason": "again"})], two_people).effect == "ask"
	approved_by(bo_and_cy, two_people).effect == "allow"
}

masked := {"kind": "mask", "in": "args", "path": "/iban", "keep": 4}

obliging := {"rule": "workspace.mask", "effect": "oblige", "reason": "the account is masked", "obligations": [masked]}

test_an_obligation_rides_on_an_allow if {
	gathered({found.allow, obliging}) == {
		"effect": "allow",
		"rules": ["grants.allowed", "workspace.mask"],
		"reasons": ["a grant", "the account is masked"],
		"observed": [],
		"obligations": [object.union(masked, {"rule": "workspace.mask"})],
		"grants": [],
	}
}

test_an_obligation_rides_on_an_ask if {
	decision := gathered({found.allow, found.ask, obliging})
	decision.effect == "ask"
	decision.obligations == [object.union(masked, {"rule": "workspace.mask"})]
}

test_an_obligation_permits_nothing if {
	decision := gathered({obliging})
	decision.effect == "deny"
	decision.rules == ["syscall.default"]
	decision.obligations == []
}

test_a_denial_marks_and_tells_and_does_nothing_else if {
	label := {"kind": "label", "labels": ["suspect"]}
	decision := gathered({found.allow, object.union(found.deny, {"obligations": [masked, label]})})
	decision.effect == "deny"
	decision.obligations == [object.union(label, {"rule": "workspace.deny"})]
}

test_a_halt_marks_and_tells_and_does_nothing_else if {
	notify := {"kind": "notify", "to": ["security"], "text": "look"}
	decision := gathered({found.allow, object.union(found.halt, {"obligations": [masked, notify]})})
	decision.effect == "halt"
	decision.obligations == [object.union(notify, {"rule": "workspace.halt"})]
}

test_a_rule_cannot_name_another_as_the_source_of_an_obligation if {
	decision := gathered({found.allow, object.union(obliging, {"obligations": [object.union(masked, {"rule": "grants.allowed"})]})})
	decision.obligations == [object.union(masked, {"rule": "workspace.mask"})]
}

test_malformed_obligations_deny if {
	bad := [
		object.union(found.ask, {"obligations": "mask"}),
		object.union(found.ask, {"obligations": ["mask"]}),
		object.union(found.ask, {"obligations": [{"path": "/iban"}]}),
		object.union(found.ask, {"obligations": [{"kind": 1}]}),
		object.union(obliging, {"obligations": []}),
		object.union(obliging, {"obligations": [{"path": "/iban"}]}),
		object.union(obliging, {"x": 1}),
		object.union(obliging, {"rule": 1}),
		object.union(obliging, {"reason": null}),
		{"rule": "workspace.mask", "effect": "oblige", "reason": "nothing"},
	]
	every result in bad {
		decision := decided(call, {found.allow}, {result}, {})
		decision.effect == "deny"
		decision.rules == ["syscall.malformed"]
	}
}

test_what_a_watched_policy_would_oblige_does_not_bind if {
	decision := decided(call, {found.allow}, {obliging}, {"workspace": {"mode": "dryrun", "name": "workspace"}})
	decision.effect == "allow"
	decision.obligations == []
	decision.observed == [{"rule": "workspace.mask", "effect": "oblige", "reason": "the account is masked", "mode": "dryrun"}]
}

scoped(scope) := decision.effect if {
	decision := decided(call, {found.allow}, {found.deny}, {"workspace": {"mode": "enforce", "name": "workspace", "scope": scope}})
		with data.agentos.tools as {"send": {"labels": ["mail", "slow"]}}
}

test_a_policy_speaks_within_its_scope if {
	every scope in [
		{},
		{"agents": ["other", "triage"]},
		{"agentLabels": {"team": "support"}},
		{"tools": ["send"]},
		{"toolLabels": ["mail", "pay"]},
		{"agents": ["triage"], "agentLabels": {"team": "support"}, "tools": ["send"], "toolLabels": ["mail"]},
	] {
		scoped(scope) == "deny"
	}
}

test_a_policy_is_silent_beyond_its_scope if {
	every scope in [
		{"agents": ["other"]},
		{"agentLabels": {"team": "sales"}},
		{"agentLabels": {"team": "support", "region": "eu"}},
		{"tools": ["read"]},
		{"toolLabels": ["pay"]},
		{"agents": ["triage"], "tools": ["read"]},
	] {
		scoped(scope) == "allow"
	}
}

test_a_call_without_an_agent_is_beyond_no_scope if {
	decision := decided(object.remove(call, ["agent"]), {found.allow}, {found.deny}, {"workspace": {
		"mode": "enforce",
		"name": "workspace",
		"scope": {"agents": ["triage"]},
	}})
	decision.effect == "deny"
}

# triage acts for lead, who is of another team.
lead := {"agent": "lead", "labels": {"team": "sales", "region": "eu"}}

acting_for(delegators, scope) := decision.effect if {
	question := object.union(call, {"session": {"delegators": delegators}})
	decision := decided(question, {found.allow}, {found.deny}, {"workspace": {"mode": "enforce", "name": "workspace", "scope": scope}})
}

test_a_policy_for_an_agent_binds_who_acts_for_it if {
	every scope in [
		{"agents": ["lead"]},
		{"agents": ["triage"]},
		{"agentLabels": {"team": "sales"}},
		{"agentLabels": {"team": "support"}},
		{"agents": ["lead"], "agentLabels": {"region": "eu"}},
	] {
		acting_for([lead], scope) == "deny"
	}
}

test_a_policy_for_others_does_not_bind_a_chain_without_them if {
	every scope in [
		{"agents": ["other"]},
		{"agentLabels": {"team": "sales", "region": "us"}},
		{"agents": ["lead"], "agentLabels": {"team": "support"}},
		{"agents": ["lead"], "tools": ["read"]},
	] {
		acting_for([lead], scope) == "allow"
	}
}

test_a_delegator_that_cannot_be_read_is_beyond_no_scope if {
	acting_for([{}], {"agents": ["other"]}) == "deny"
	acting_for([{"agent": 1}], {"agents": ["other"]}) == "deny"
	acting_for([{"agent": "lead", "labels": []}], {"agentLabels": {"team": "none"}}) == "deny"
	acting_for([{"agent": "lead"}], {"agentLabels": {"team": "none"}}) == "deny"
	acting_for("lead", {"agents": ["other"]}) == "deny"
}

listed(tails) := decision.effect if {
	decision := syscall.decision with input as call
		with data.agentos.syscall.rules.grants.results as {found.allow}
		with data.agentos.syscall.rules.workspace.results as {found.deny}
		with data.agentos.rules as {"syscall": tails}
}

# Nothing is listed under `opa test`: then every package that is there speaks.
test_without_a_list_every_package_speaks if {
	decision := syscall.decision with input as call
		with data.agentos.syscall.rules.grants.results as {found.allow}
		with data.agentos.syscall.rules.workspace.results as {found.deny}
	decision.effect == "deny"
	"workspace.deny" in decision.rules
}

test_what_is_loaded_is_what_the_runtime_lists if {
	listed(["grants", "workspace"]) == "deny"
	listed(["grants"]) == "allow"
	listed([]) == "deny"
}

wanting := {
	"rule": "workspace.two",
	"effect": "oblige",
	"reason": "two look",
	"obligations": [{"kind": "approvers", "count": 2}],
}

test_who_wants_approvers_asks if {
	decision := gathered({found.allow, wanting})
	decision.effect == "ask"
	decision.rules == ["workspace.two"]
	both := [object.union(one, {"rules": ["workspace.two"]}) | some one in bo_and_cy]
	question := object.union(call, {"approvals": both})
	decided(question, {found.allow}, {wanting}, {}).effect == "allow"
}

test_an_approval_covers_the_rules_that_asked_for_it if {
	every scope in ["once", "session"] {
		approved_as(object.union(given, {"scope": scope, "rules": ["budget.ask"]})).effect == "ask"
	}
}

# Two grants let the call through, one with a person's yes.
granted := object.union(found.allow, {"grants": ["mails"]})

asked := {"rule": "grants.approval", "effect": "ask", "reason": "a grant that asks", "grants": ["asks"]}

by_grants(grants, others) := decided(call, grants, others, {}).grants

test_what_is_allowed_names_its_grants if {
	by_grants({granted}, set()) == ["mails"]
	by_grants({granted, object.union(granted, {"reason": "another", "grants": ["mails", "all"]})}, set()) == ["all", "mails"]
}

test_what_asks_names_the_grants_it_would_go_under if {
	by_grants({asked}, set()) == ["asks"]
	by_grants({granted}, {found.ask}) == ["mails"]
}

test_what_people_approved_still_rests_on_its_grants if {
	approval := object.union(given, {"rules": ["workspace.ask"]})
	decision := decided(object.union(call, {"approvals": [approval]}), {granted}, {found.ask}, {})
	decision.effect == "allow"
	decision.grants == ["mails"]
}

test_what_is_denied_rests_on_no_grant if {
	by_grants({granted}, {found.deny}) == []
	by_grants({granted, asked}, {found.halt}) == []
}

test_no_more_grants_are_named_than_a_decision_may_hold if {
	many := [sprintf("g-%d", [number]) | some number in numbers.range(100, 250)]
	by_grants({object.union(found.allow, {"grants": many})}, set()) == array.slice(many, 0, 100)
}

test_only_grants_names_grants if {
	every result in [object.union(found.ask, {"grants": ["mails"]}), object.union(obliging, {"grants": []}), object.union(found.deny, {"grants": []})] {
		decision := decided(call, {granted}, {result}, {})
		decision.effect == "deny"
		decision.rules == ["syscall.malformed"]
		decision.grants == []
	}
}

test_grants_that_are_no_names_deny if {
	every wrong in ["mails", [1], [["mails"]], {"mails"}, null] {
		decision := decided(call, {object.union(found.allow, {"grants": wrong})}, set(), {})
		decision.effect == "deny"
		decision.rules == ["syscall.malformed"]
	}
}
