# METADATA
# title: untrusted egress
# description: a session that has read what strangers wrote reaches outside only after a person looked
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/untrusted_egress/README.md
package agentos.syscall.rules.untrusted_egress

# Labels of content that strangers can write.
untrusted_labels := {"untrusted"}

# METADATA
# title: asks
# description: a tool that reaches outside, after untrusted content was read
results contains {"rule": "untrusted_egress.asks", "effect": "ask", "reason": reason} if {
	input.syscall.effect == "external"
	not input.syscall.tool == "model-call"
	not input.syscall.tool == "net-request"
	count(read) > 0
	reason := sprintf(
		"tool %s reaches outside, and the session has read content labelled %s; a person looks first",
		[input.syscall.tool, concat(", ", read)],
	)
}

# METADATA
# title: unseen
# description: a request, after untrusted content was read, of a tool that nobody looks at because it is not declared to reach outside
results contains {"rule": "untrusted_egress.unseen", "effect": "deny", "reason": reason} if {
	input.syscall.tool == "net-request"
	not declared
	count(read) > 0
	reason := sprintf(
		"tool %s is not declared as effect external, and the session has read content labelled %s; no request of it leaves",
		[requester, concat(", ", read)],
	)
}

default requester := "(unnamed)"

requester := input.syscall.args.tool

# Whose call was looked at as a whole, with all the requests that it makes.
declared if data.agentos.tools[input.syscall.args.tool].effect == "external"

read := sort({label | some label in input.session.labels; label in untrusted_labels})
