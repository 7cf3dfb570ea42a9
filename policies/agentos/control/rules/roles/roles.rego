# METADATA
# title: roles
# description: which role may use which verb
# schemas:
#   - input: schema["control-input"]
# related_resources:
#   - ref: policies/agentos/control/rules/roles/README.md
package agentos.control.rules.roles

# METADATA
# title: allowed
# description: a role of the principal has the verb
results contains {"rule": "roles.allowed", "effect": "allow", "reason": reason} if {
	some role in input.principal.roles
	input.verb in verbs[role]
	reason := sprintf("role %s may use %s", [role, input.verb])
}

# METADATA
# title: everyone
# description: a verb that every principal may use
results contains {"rule": "roles.everyone", "effect": "allow", "reason": reason} if {
	for_everyone
	reason := sprintf("every principal may use %s", [input.verb])
}

# METADATA
# title: missing
# description: no role of the principal has the verb, another one does
results contains {"rule": "roles.missing", "effect": "deny", "reason": reason} if {
	count(able) > 0
	count(able & {role | some role in input.principal.roles}) == 0
	not for_everyone
	reason := sprintf(
		"principal %s may not use %s; role %s can",
		[name, input.verb, concat(" or ", sort(able))],
	)
}

# METADATA
# title: unknown
# description: a verb that no role has
results contains {"rule": "roles.unknown", "effect": "deny", "reason": reason} if {
	count(able) == 0
	not for_everyone
	reason := sprintf("no role may use %s", [json.marshal(verb)])
}

default verb := null

verb := input.verb

default name := "(unnamed)"

name := input.principal.name

for_everyone if input.verb in everyone

able contains role if {
	some role
	input.verb in verbs[role]
}

# Public keys are public: who checks a pack or a checkpoint must be able to get them.
everyone := {"audit.keys", "evidence.key", "runtime.status"}

verbs := {
	"agent": {
		"gateway.call",
		"gateway.cancel",
		"gateway.close",
		"gateway.open",
		"gateway.result",
		"gateway.tools",
	},
	"operator": {
		"approval.list",
		"audit.checkpoint",
		"audit.holds",
		"audit.prove",
		"audit.query",
		"audit.rotate",
		"audit.verify",
		"backup.create",
		"budget.list",
		"freeze.lift",
		"freeze.list",
		"freeze.set",
		"fs.blame",
		"fs.diff",
		"fs.list",
		"fs.log",
		"fs.read",
		"fs.restore",
		"fs.undo",
		"fs.write",
		"gateway.call",
		"gateway.cancel",
		"gateway.close",
		"gateway.open",
		"gateway.result",
		"gateway.tools",
		"lock.break",
		"lock.list",
		"policy.facts",
		"policy.status",
		"policy.why",
		"principal.create",
		"principal.list",
		"principal.revoke",
		"principal.rotate",
		"registry.apply",
		"registry.delete",
		"registry.get",
		"registry.history",
		"registry.list",
		"registry.plan",
		"registry.rollback",
		"runtime.shutdown",
		"sched.top",
		"secret.check",
		"secret.list",
		"session.cancel",
		"session.create",
		"session.events",
		"session.files",
		"session.fork",
		"session.get",
		"session.list",
		"session.pause",
		"session.reconcile",
		"session.resume",
		"session.signal",
		"session.upload",
		"session.workspace",
		"standing.disable",
		"standing.enable",
		"standing.get",
		"standing.list",
		"standing.restart",
		"standing.start",
		"standing.stop",
		"trigger.fire",
		"trigger.get",
		"trigger.list",
		"trigger.pause",
		"trigger.reset",
		"trigger.resume",
	},
	"approver": {
		"approval.approve",
		"approval.deny",
		"approval.list",
		"budget.list",
		"freeze.list",
		"lock.list",
		"policy.status",
		"policy.why",
		"sched.top",
		"session.events",
		"session.get",
		"session.list",
		"standing.get",
		"standing.list",
		"trigger.get",
		"trigger.list",
	},
	"compliance": {
		"approval.list",
		"audit.checkpoint",
		"audit.erase",
		"audit.erasure",
		"audit.hold",
		"audit.holds",
		"audit.prove",
		"audit.query",
		"audit.release",
		"audit.retire",
		"audit.retirement",
		"audit.search",
		"audit.verify",
		"budget.list",
		"evidence.export",
		"freeze.list",
		"fs.blame",
		"fs.diff",
		"fs.list",
		"fs.log",
		"fs.read",
		"freeze.set",
		"lock.list",
		"policy.facts",
		"policy.recorded",
		"policy.status",
		"policy.why",
		"registry.get",
		"registry.history",
		"registry.list",
		"registry.plan",
		"sched.top",
		"session.events",
		"session.get",
		"session.list",
		"standing.get",
		"standing.list",
		"trigger.get",
		"trigger.list",
	},
	"auditor": {
		"approval.list",
		"audit.checkpoint",
		"audit.holds",
		"audit.prove",
		"audit.query",
		"audit.rebuild",
		"audit.search",
		"audit.verify",
		"budget.list",
		"evidence.export",
		"freeze.list",
		"fs.blame",
		"fs.diff",
		"fs.list",
		"fs.log",
		"fs.read",
		"lock.list",
		"policy.facts",
		"policy.recorded",
		"policy.status",
		"policy.why",
		"registry.get",
		"registry.history",
		"registry.list",
		"sched.top",
		"session.events",
		"session.files",
		"session.get",
		"session.list",
		"session.workspace",
		"standing.get",
		"standing.list",
		"trigger.get",
		"trigger.list",
	},
}
