# METADATA
# title: trifecta
# description: private data, content of strangers and a way out do not meet in one session
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/trifecta/README.md
package agentos.syscall.rules.trifecta

# Labels of data that must not get out, and of content that strangers can write.
private_labels := {"confidential", "health", "pii", "private"}

untrusted_labels := {"untrusted"}

# Folders of the workspace whose files something else carries out.
outgoing_folders := {"outbox"}

# METADATA
# title: closed
# description: a way out of a session that has read both private data and untrusted content
results contains {"rule": "trifecta.closed", "effect": "deny", "reason": reason} if {
	met
	not asked
}

# METADATA
# title: asks
# description: the same, where the Policy declares that a person may let it through
results contains {"rule": "trifecta.asks", "effect": "ask", "reason": reason} if {
	met
	asked
}

asked if {
	asks
	not unseen
}

asks if data.agentos.policies.trifecta.parameters.effect == "ask"

reason := sprintf(
	"tool %s is a way out, and the session has read both private data (%s) and content of strangers",
	[input.syscall.tool, concat(", ", sort(private))],
)

private := labels & private_labels

met if {
	count(private) > 0
	count(labels & untrusted_labels) > 0
	way_out
}

labels := {label | some label in input.session.labels}

way_out if {
	input.syscall.effect == "external"
	not input.syscall.tool == "model-call"
	not input.syscall.tool == "net-request"
}

# A request is part of a call. Where that call was no way out by its declaration, the request is one that nobody was asked about.
way_out if unseen

way_out if {
	input.syscall.tool == "net-request"
	not asks
}

unseen if {
	input.syscall.tool == "net-request"
	not declared
}

declared if data.agentos.tools[input.syscall.args.tool].effect == "external"

way_out if {
	input.syscall.effect == "write"
	some name in data.agentos.tools[input.syscall.tool].workspace_args
	walk(input.syscall.args[name], [_, path])
	is_string(path)
	some step in split(lower(path), "/")
	step in outgoing_folders
}

# METADATA
# title: parameters
# description: the Policy declares a parameter that there is not, or one of another kind
results contains {"rule": "trifecta.parameters", "effect": "deny", "reason": reason} if {
	some key, value in data.agentos.policies.trifecta.parameters
	not known(key, value)
	reason := sprintf("parameter %s of policy trifecta cannot be %s; see its page", [key, json.marshal(value)])
}

known("effect", value) if value in {"ask", "deny"}
