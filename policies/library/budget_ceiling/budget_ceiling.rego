# METADATA
# title: budget ceiling
# description: the budget of an agent stays below the ceiling of its risk class
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/library/budget_ceiling/README.md
package agentos.admission.rules.budget_ceiling

ceilings := {
	"minimal": {"calls": 5000, "tokens": 5000000},
	"limited": {"calls": 1000, "tokens": 2000000},
	"high": {"calls": 100, "tokens": 500000},
}

# What holds where an Agent says nothing.
defaults := {"calls": 200, "tokens": 1000000}

# METADATA
# title: above
# description: a budget is above the ceiling
results contains {"rule": "budget_ceiling.above", "effect": "deny", "reason": reason} if {
	some agent in input.resources
	agent.kind == "Agent"
	risk := agent.spec.governance.risk
	some what, most in ceilings[risk]
	given := object.get(object.get(agent.spec, "budget", {}), what, defaults[what])
	given > most
	reason := sprintf("agent %s may use %d %s in a session; at risk %s at most %d", [agent.metadata.name, given, what, risk, most])
}
