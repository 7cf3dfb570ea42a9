package agentos.control_test

import data.agentos.control

asked(roles, home, verb, tenant) := decision if {
	decision := control.decision with input as {
		"abi": "agentos/v1",
		"principal": {"name": "al", "roles": roles, "tenant": home},
		"verb": verb,
		"tenant": tenant,
	}
}

test_an_operator_applies if {
	asked(["operator"], "*", "registry.apply", "acme") == {
		"effect": "allow",
		"rules": ["roles.allowed"],
		"reasons": ["role operator may use registry.apply"],
	}
}

test_an_auditor_does_not if {
	asked(["auditor"], "*", "registry.apply", "acme") == {
		"effect": "deny",
		"rules": ["roles.missing"],
		"reasons": ["principal al may not use registry.apply; role operator can"],
	}
}

test_roles_add_up if asked(["auditor", "operator"], "*", "registry.apply", "acme").effect == "allow"

test_an_unknown_role_is_no_role if asked(["root"], "*", "registry.get", "acme").effect == "deny"

test_an_operator_does_not_approve if {
	asked(["operator"], "*", "approval.approve", "default") == {
		"effect": "deny",
		"rules": ["roles.missing"],
		"reasons": ["principal al may not use approval.approve; role approver can"],
	}
}

test_who_steers_a_session if {
	every verb in ["session.pause", "session.resume", "session.reconcile", "session.fork"] {
		asked(["operator"], "*", verb, "default").effect == "allow"
		asked(["approver", "auditor", "compliance"], "*", verb, "default") == {
			"effect": "deny",
			"rules": ["roles.missing"],
			"reasons": [sprintf("principal al may not use %s; role operator can", [verb])],
		}
	}
}

test_who_drives_a_session_from_outside if {
	every verb in ["open", "tools", "call", "result", "cancel", "close"] {
		asked(["agent"], "default", sprintf("gateway.%s", [verb]), "default").effect == "allow"
		asked(["operator"], "*", sprintf("gateway.%s", [verb]), "default").effect == "allow"
		asked(["agent"], "other", sprintf("gateway.%s", [verb]), "default").effect == "deny"
		asked(["approver", "auditor", "compliance", "worker"], "*", sprintf("gateway.%s", [verb]), "default") == {
			"effect": "deny",
			"rules": ["roles.missing"],
			"reasons": [sprintf("principal al may not use gateway.%s; role agent or operator can", [verb])],
		}
	}
	every verb in ["approval.approve", "session.get", "session.list", "registry.get"] {
		asked(["agent"], "default", verb, "default").effect == "deny"
	}
}

test_who_sees_locks_and_who_breaks_one if {
	every role in ["operator", "approver", "auditor", "compliance"] {
		asked([role], "*", "lock.list", "default").effect == "allow"
	}
	asked(["operator"], "*", "lock.break", "default").effect == "allow"
	asked(["approver", "auditor", "compliance"], "*", "lock.break", "default") == {
		"effect": "deny",
		"rules": ["roles.missing"],
		"reasons": ["principal al may not use lock.break; role operator can"],
	}
}

test_operators_alone_look_after_secrets if {
	every verb in ["secret.list", "secret.check"] {
		asked(["operator"], "*", verb, "default").effect == "allow"
		asked(["approver", "auditor", "compliance"], "*", verb, "default") == {
			"effect": "deny",
			"rules": ["roles.missing"],
			"reasons": [sprintf("principal al may not use %s; role operator can", [verb])],
		}
	}
}

test_every_role_sees_budgets if {
	every role in ["operator", "approver", "auditor", "compliance"] {
		asked([role], "*", "budget.list", "default").effect == "allow"
	}
}

test_several_roles_are_named_in_order if {
	asked([], "*", "evidence.export", "default").reasons == [
		"principal al may not use evidence.export; role auditor or compliance can",
	]
}

test_an_unknown_verb if {
	asked(["operator"], "*", "registry.format", "default") == {
		"effect": "deny",
		"rules": ["roles.unknown"],
		"reasons": [`no role may use "registry.format"`],
	}
}

test_everyone_sees_the_status if {
	asked([], "acme", "runtime.status", "acme") == {
		"effect": "allow",
		"rules": ["roles.everyone"],
		"reasons": ["every principal may use runtime.status"],
	}
}

test_at_home if asked(["operator"], "acme", "registry.apply", "acme").effect == "allow"

test_abroad if {
	asked(["operator"], "acme", "registry.apply", "default") == {
		"effect": "deny",
		"rules": ["tenant.foreign"],
		"reasons": [`principal al acts on tenant "acme" only; a principal of that tenant or of the fleet can`],
	}
}

test_a_principal_of_a_tenant_makes_no_principals if {
	asked(["operator"], "acme", "principal.create", "acme") == {
		"effect": "deny",
		"rules": ["tenant.fleet"],
		"reasons": ["principal.create concerns the whole fleet; only a principal of the fleet can"],
	}
}

test_nothing_asked_is_denied if {
	every question in [{}, {"principal": {}}, {"verb": "registry.get"}, {"principal": {"roles": ["operator"]}, "verb": "registry.get"}] {
		decision := control.decision with input as question
		decision.effect == "deny"
	}
}

test_no_rule_is_a_denial if {
	decision := control.decision with input as {}
		with data.agentos.control.rules.roles.results as set()
		with data.agentos.control.rules.tenant.results as set()
	decision == {"effect": "deny", "rules": ["control.default"], "reasons": ["no rule allows this command"]}
}

test_everyone_reads_the_public_key if asked([], "acme", "evidence.key", "acme").effect == "allow"

test_everyone_reads_the_keys_of_checkpoints if asked([], "acme", "audit.keys", "acme").effect == "allow"

test_who_reads_the_record_verifies_it if {
	every role in ["operator", "compliance", "auditor"] {
		every verb in ["audit.checkpoint", "audit.prove", "audit.verify"] {
			asked([role], "*", verb, "default").effect == "allow"
		}
	}
	asked(["approver"], "*", "audit.verify", "default").effect == "deny"
}

test_who_audits_searches_the_words if {
	every role in ["compliance", "auditor"] {
		asked([role], "default", "audit.search", "default").effect == "allow"
	}
	every role in ["operator", "approver"] {
		asked([role], "*", "audit.search", "default").effect == "deny"
	}
}

test_operators_alone_replace_the_signing_key if {
	asked([], "*", "audit.rotate", "default").reasons == ["principal al may not use audit.rotate; role operator can"]
}

test_operators_alone_make_backups if {
	asked(["operator"], "*", "backup.create", "default").effect == "allow"
	asked(["approver", "auditor", "compliance"], "*", "backup.create", "default").effect == "deny"
}

test_compliance_alone_erases_and_retires if {
	every verb in ["audit.erase", "audit.erasure", "audit.hold", "audit.release", "audit.retire", "audit.retirement"] {
		asked(["compliance"], "*", verb, "default").effect == "allow"
		asked(["operator", "approver", "auditor"], "*", verb, "default") == {
			"effect": "deny",
			"rules": ["roles.missing"],
			"reasons": [sprintf("principal al may not use %s; role compliance can", [verb])],
		}
	}
}

test_who_reads_the_record_sees_the_holds if {
	every role in ["operator", "compliance", "auditor"] {
		asked([role], "*", "audit.holds", "default").effect == "allow"
	}
}

test_only_the_fleet_gives_principals_new_keys if {
	asked(["operator"], "*", "principal.rotate", "default").effect == "allow"
	asked(["operator"], "acme", "principal.rotate", "acme").effect == "deny"
	asked(["auditor"], "*", "principal.rotate", "default").effect == "deny"
}
