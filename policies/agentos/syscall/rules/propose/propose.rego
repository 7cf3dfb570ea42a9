# METADATA
# title: propose
# description: a proposed change of a file is made once a person has seen it and said yes
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/agentos/syscall/rules/propose/README.md
package agentos.syscall.rules.propose

# METADATA
# title: approval
# description: a person looks at every proposed change, whatever the grant says
results contains {"rule": "propose.approval", "effect": "ask", "reason": reason} if {
	data.agentos.tools[input.syscall.tool].primitive == "propose"
	reason := sprintf("agent %s proposes to write %s; a person decides", [agent, json.marshal(path)])
}

default agent := "(unnamed)"

agent := input.agent.name

default path := null

path := input.syscall.args.path
