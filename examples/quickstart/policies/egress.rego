# METADATA
# title: egress
# description: what a session has read does not leave by a way that nobody has looked at
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: examples/quickstart/policies/README.md
package agentos.syscall.rules.egress

# METADATA
# title: untrusted
# description: a session that has read untrusted text calls no tool that reaches outside
results contains {"rule": "egress.untrusted", "effect": "deny", "reason": reason} if {
	"untrusted" in input.session.labels
	input.syscall.effect == "external"

	# The model is asked through the same gate; which model that is, the rule model decides.
	input.syscall.tool != "model-call"
	reason := sprintf(
		"the session has read text that strangers wrote, so tool %s, which reaches outside, is closed to it",
		[input.syscall.tool],
	)
}

# METADATA
# title: secrets
# description: a draft in outbox/ holds no bank account, password or key
results contains {"rule": "egress.secrets", "effect": "deny", "reason": reason} if {
	input.syscall.effect == "write"
	"outbox" in split(input.syscall.args.path, "/")
	some kind, pattern in secrets
	some text in input.syscall.args
	regex.match(pattern, text)
	reason := sprintf("the text for %s seems to hold %s; leave it out, or let a person send it", [input.syscall.args.path, kind])
}

secrets := {
	"a bank account (IBAN)": `(?i)\b[a-z]{2}[0-9]{2}(?:[ .\x{a0}-]?[a-z0-9]{4}){2,7}(?:[ .\x{a0}-]?[a-z0-9]{1,3})?\b`,
	"a password": `(?i)\b(?:password|passwd|passphrase|passcode|pin code)\b(?: is|:| =|=)+ *\S{4,}`,
	"an access key": `(?i)\b(?:AKIA[0-9A-Z]{16}\b|(?:api[ _-]?key|secret|token)(?: is|:| =|=)+ *\S{12,})`,
	"a private key": `-----BEGIN [A-Z ]*PRIVATE KEY-----`,
}
