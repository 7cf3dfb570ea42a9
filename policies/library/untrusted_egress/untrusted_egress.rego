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
	read := sort({label | some label in input.session.labels; label in untrusted_labels})
	count(read) > 0
	reason := sprintf(
		"tool %s reaches outside, and the session has read content labelled %s; a person looks first",
		[input.syscall.tool, concat(", ", read)],
	)
}
