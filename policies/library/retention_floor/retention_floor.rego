# METADATA
# title: retention floor
# description: the log of an agent that can do harm is kept long enough for those who ask afterwards
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/library/retention_floor/README.md
package agentos.admission.rules.retention_floor

# Days by risk class: `spec.parameters` of the Policy, or these.
default floors := {"high": 365}

floors := data.agentos.policies.retention_floor.parameters.days if {
	is_object(data.agentos.policies.retention_floor.parameters.days)
}

# METADATA
# title: short
# description: an agent declares no retention, or one below the floor of its risk class
results contains {"rule": "retention_floor.short", "effect": "deny", "reason": reason} if {
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

# METADATA
# title: parameters
# description: the Policy declares a parameter that there is not, or one of another kind
results contains {"rule": "retention_floor.parameters", "effect": "deny", "reason": reason} if {
	some key, value in data.agentos.policies.retention_floor.parameters
	not known(key, value)
	reason := sprintf("parameter %s of policy retention_floor cannot be %s; see its page", [key, json.marshal(value)])
}

known("days", value) if {
	is_object(value)
	every risk, days in value {
		risk in {"minimal", "limited", "high"}
		is_number(days)
	}
}
