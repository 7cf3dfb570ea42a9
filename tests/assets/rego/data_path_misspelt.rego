# METADATA
# title: care
# description: a policy with a flaw
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.care

# METADATA
# title: no
# description: never
results contains {"rule": "care.no", "effect": "deny", "reason": "no"} if {
	data.agentos.grant[input.agent.name]
	data.agentos.agents[input.agent.name].governance.rsk == "high"
	data.tenants.acme
	data.agentos.syscall.rules.grants.allowd
}
