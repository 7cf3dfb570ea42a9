# METADATA
# title: model
# description: an agent calls the model that its declaration names, or one of the model class that it names, and no other
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
	not declared
	reason := sprintf(
		"agent %s may not call model %s; an operator can name it in the Agent",
		[agent, json.marshal(object.get(input.syscall.args, "model", null))],
	)
}

# A rule of its own, so that an absent model, agent or list is a denial: `not x in y` is undefined where one of them is.
declared if input.syscall.args.model in data.agentos.agents[agent].models

default agent := "(unnamed)"

agent := input.agent.name
