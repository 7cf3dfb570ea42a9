# METADATA
# title: model
# description: an agent calls the model that its declaration names, and no other
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/agentos/syscall/rules/model/README.md
package agentos.syscall.rules.model

# METADATA
# title: undeclared
# description: the model of the call is not the agent's
results contains {"rule": "model.undeclared", "effect": "deny", "reason": reason} if {
	input.syscall.tool == "model-call"
	not input.syscall.args.model == data.agentos.agents[agent].model
	reason := sprintf(
		"agent %s may not call model %s; an operator can name it in the Agent",
		[agent, json.marshal(object.get(input.syscall.args, "model", null))],
	)
}

default agent := "(unnamed)"

agent := input.agent.name
