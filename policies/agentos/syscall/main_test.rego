package agentos.syscall_test

import data.agentos.syscall

# Stand-ins for what the rules found: main only gathers. `workspace` stands for any rule.
found := {
	"allow": {"rule": "grants.allowed", "effect": "allow", "reason": "a grant"},
	"ask": {"rule": "workspace.ask", "effect": "ask", "reason": "look first"},
	"deny": {"rule": "workspace.deny", "effect": "deny", "reason": "never"},
	"halt": {"rule": "workspace.halt", "effect": "halt", "reason": "stop"},
}

call := {"syscall": {"tool": "send", "args_digest": "sha256:1"}, "approvals": []}

decided(question, grants, others, policies) := decision if {
	decision := syscall.decision with input as question
		with data.agentos.syscall.rules.grants.results as grants
		with data.agentos.syscall.rules.workspace.results as others
		with data.agentos.syscall.rules.budget.results as set()
		with data.agentos.syscall.rules.model.results as set()
		with data.agentos.policies as policies
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
	}
}

test_allow if {
	gathered({found.allow}) == {"effect": "allow", "rules": ["grants.allowed"], "reasons": ["a grant"], "observed": []}
}

test_ask_over_allow if {
	gathered({found.allow, found.ask}) == {"effect": "ask", "rules": ["workspace.ask"], "reasons": ["look first"], "observed": []}
}

test_deny_over_ask if {
	gathered({found.allow, found.ask, found.deny}) == {
		"effect": "deny",
		"rules": ["workspace.deny"],
		"reasons": ["never"],
		"observed": [],
	}
}

test_halt_over_deny_and_both_are_named if {
	gathered({result | some result in found}) == {
		"effect": "halt",
		"rules": ["workspace.deny", "workspace.halt"],
		"reasons": ["never", "stop"],
		"observed": [],
	}
}

test_only_grants_can_allow if {
	decided(call, set(), {found.allow}, {}) == {
		"effect": "deny",
		"rules": ["syscall.malformed"],
		"reasons": ["a rule of agentos.syscall.rules.workspace gives a result that is not a rule, an effect and a reason"],
		"observed": [],
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
	}
}

given := {"tool": "send", "args_digest": "sha256:1", "by": "principal/bo", "reason": "fine"}

approved_as(approval) := decided(object.union(call, {"approvals": [approval]}), set(), {found.ask}, {})

test_an_approval_of_this_call_satisfies_ask if {
	approved_as(given) == {
		"effect": "allow",
		"rules": ["syscall.approved", "workspace.ask"],
		"reasons": ["principal/bo approved this call: fine", "look first"],
		"observed": [],
	}
}

test_an_approval_of_other_arguments_does_not if {
	approved_as(object.union(given, {"args_digest": "sha256:2"})).effect == "ask"
}

test_an_approval_of_another_tool_does_not if {
	approved_as(object.union(given, {"tool": "read"})).effect == "ask"
}
