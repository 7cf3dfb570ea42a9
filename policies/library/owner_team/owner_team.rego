# METADATA
# title: owner team
# description: a team that exists answers for each agent, and its purpose is told
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/library/owner_team/README.md
package agentos.admission.rules.owner_team

# The whole owner: a mailbox of a team, never a person's.
owner := `^team-[a-z][a-z0-9-]*@kestrelrow\.example$`

# Fewest words of a purpose.
words := 3

# METADATA
# title: owner
# description: the owner of an agent is not a team
results contains {"rule": "owner_team.owner", "effect": "deny", "reason": reason} if {
	some agent in agents
	given := governance(agent, "owner")
	not regex.match(owner, given)
	reason := sprintf("agent %s is owned by %s; name a team, such as team-service@kestrelrow.example", [agent.metadata.name, json.marshal(given)])
}

# METADATA
# title: purpose
# description: the purpose of an agent says nothing
results contains {"rule": "owner_team.purpose", "effect": "deny", "reason": reason} if {
	some agent in agents
	given := governance(agent, "purpose")
	count(regex.find_n(`\S+`, given, -1)) < words
	reason := sprintf("agent %s has the purpose %s; say in a sentence what it is for", [agent.metadata.name, json.marshal(given)])
}

agents := [resource | some resource in input.resources; resource.kind == "Agent"]

governance(agent, name) := agent.spec.governance[name] if is_string(agent.spec.governance[name])

else := ""
