# METADATA
# title: secrets out
# description: what leaves holds no bank account, card number, password or key
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/secrets_out/README.md
package agentos.syscall.rules.secrets_out

# Folders of the workspace whose files something else carries out.
outgoing_folders := {"outbox"}

# What a secret looks like, by what it is called in the reason.
secrets := {
	"a bank account (IBAN)": `(?i)\b[a-z]{2}[0-9]{2}(?:[ .-]?[a-z0-9]{4}){2,7}(?:[ .-]?[a-z0-9]{1,3})?\b`,
	"a password": `(?i)\b(?:password|passwd|passphrase|passcode)\b(?: is|:| =|=)+ *\S{4,}`,
	"an access key": `\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|sk-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,})`,
	"a private key": `-----BEGIN [A-Z ]*PRIVATE KEY-----`,
}

# Digits in the length of a card number, alone or in groups.
card := `\b[0-9](?:[ -]?[0-9]){12,18}\b`

# Characters of all arguments as JSON that are looked through. More of them would take too long, and are denied.
longest := 50000

# METADATA
# title: found
# description: an argument of a call that leads out looks like a secret
results contains {"rule": "secrets_out.found", "effect": "deny", "reason": reason} if {
	leaves
	some kind in kinds
	reason := sprintf("the arguments of tool %s seem to hold %s; leave it out", [input.syscall.tool, kind])
}

# METADATA
# title: unread
# description: a call that leads out has more text than is looked through
results contains {"rule": "secrets_out.unread", "effect": "deny", "reason": reason} if {
	leaves
	size > longest
	reason := sprintf(
		"the arguments of tool %s have %d characters; at most %d are looked through for secrets",
		[input.syscall.tool, size, longest],
	)
}

size := count(json.marshal(input.syscall.args))

leaves if {
	input.syscall.effect == "external"
	not input.syscall.tool == "model-call"
}

leaves if {
	input.syscall.effect == "write"
	some name in data.agentos.tools[input.syscall.tool].workspace_args
	walk(input.syscall.args[name], [_, path])
	is_string(path)
	some step in split(lower(path), "/")
	step in outgoing_folders
}

# Texts and numbers at any depth, and the names under which they stand.
texts contains value if {
	size <= longest
	walk(input.syscall.args, [_, value])
	is_string(value)
}

texts contains name if {
	size <= longest
	walk(input.syscall.args, [path, _])
	some name in path
	is_string(name)
}

texts contains json.marshal(value) if {
	size <= longest
	walk(input.syscall.args, [_, value])
	is_number(value)
}

kinds contains kind if {
	some text in texts
	some kind, pattern in secrets
	regex.match(pattern, text)
}

kinds contains "a card number" if {
	some text in texts
	some found in regex.find_n(card, text, -1)
	checked(split(regex.replace(found, `[ -]`, ""), ""))
}

# The check digit that every card number carries (ISO/IEC 7812): every second digit from the right counts twice.
checked(digits) if {
	sum([weight |
		some place, digit in digits
		weight := weighed(to_number(digit), (count(digits) - place) % 2)
	]) % 10 == 0
}

weighed(digit, 1) := digit

weighed(digit, 0) := 2 * digit if digit < 5

weighed(digit, 0) := (2 * digit) - 9 if digit >= 5
