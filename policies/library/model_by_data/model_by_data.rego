# METADATA
# title: model by data
# description: sensitive data is shown to approved models only
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/model_by_data/README.md
package agentos.syscall.rules.model_by_data

# Labels of sessions, and values of the Agent's label `data`, that make the session sensitive.
sensitive := {"confidential", "health", "pii"}

# Names of Models that may see such data begin with one of these.
approved_prefixes := {"inhouse-"}

# METADATA
# title: agent
# description: an agent that works with sensitive data calls another model
results contains {"rule": "model_by_data.agent", "effect": "deny", "reason": reason} if {
	unapproved
	class := input.agent.labels.data
	class in sensitive
	reason := sprintf("agent %s works with data of class %s, for which model %s is not approved", [input.agent.name, class, model])
}

# METADATA
# title: session
# description: a session that has read sensitive data calls another model
results contains {"rule": "model_by_data.session", "effect": "deny", "reason": reason} if {
	unapproved
	some label in input.session.labels
	label in sensitive
	reason := sprintf("the session has read data labelled %s, for which model %s is not approved", [label, model])
}

unapproved if {
	input.syscall.tool == "model-call"
	not approved
}

approved if {
	is_string(input.syscall.args.model)
	some prefix in approved_prefixes
	startswith(input.syscall.args.model, prefix)
}

model := json.marshal(object.get(input.syscall.args, "model", null))
