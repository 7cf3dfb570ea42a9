# METADATA
# title: high risk oversight
# description: a person oversees what an agent of high risk changes
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/high_risk_oversight/README.md
package agentos.syscall.rules.high_risk_oversight

overseen_risks := {"high"}

# Effects that go without oversight.
free_effects := {"read"}

# METADATA
# title: asks
# description: a call by an agent of high risk that is not only a look
results contains {"rule": "high_risk_oversight.asks", "effect": "ask", "reason": reason} if {
	risk := data.agentos.agents[input.agent.name].governance.risk
	risk in overseen_risks
	not input.syscall.tool == "model-call"
	not input.syscall.tool == "net-request"
	not free
	reason := sprintf("agent %s is of risk class %s; a person oversees tool %s", [input.agent.name, risk, input.syscall.tool])
}

free if input.syscall.effect in free_effects
