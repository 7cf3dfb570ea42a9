# METADATA
# title: retention
# description: the log of an agent of high risk is kept for at least half a year
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/agentos/admission/rules/retention/README.md
package agentos.admission.rules.retention

# Days by risk class; erasing and retiring hold to the same floors. A policy may ask for more, none for less.
floors := {"high": 183}

# METADATA
# title: short
# description: an agent declares no retention, or one below the floor of its risk class
results contains {"rule": "retention.short", "effect": "deny", "reason": reason} if {
	some agent in input.resources
	agent.kind == "Agent"
	floor := floors[agent.spec.governance.risk]
	declared := object.get(agent.spec.governance, "retentionDays", 0)
	not long_enough(declared, floor)
	reason := sprintf(
		"agent %s has risk %s and keeps its log %v days; declare governance.retentionDays of %v or more",
		[agent.metadata.name, agent.spec.governance.risk, declared, floor],
	)
}

long_enough(declared, floor) if {
	is_number(declared)
	declared >= floor
}
